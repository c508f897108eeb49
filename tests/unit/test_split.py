"""Splits: grouped by patient, stratified by class, seeded, with near-duplicates on one side."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.ingest.split import MIN_PATIENTS, assign, kept_together, tie

SHARES = {"train": 0.44, "audit": 0.21, "val": 0.15, "test": 0.2}


@given(st.integers(0, 10_000), st.integers(8, 60))
@settings(max_examples=25, deadline=None)
def test_no_unit_in_two_splits_and_every_class_in_each(seed: int, per_class: int) -> None:
    rng = np.random.default_rng(seed)
    units = np.repeat(np.arange(2 * per_class), rng.integers(1, 5, 2 * per_class))
    labels = (units % 2).astype(np.int64)
    split = assign(units, labels, SHARES, ("a", "b"), rng)
    for unit in range(2 * per_class):
        assert len(set(split[units == unit])) == 1
    for name, share in SHARES.items():
        for label in (0, 1):
            count = len(set(units[(split == name) & (labels == label)]))
            assert count >= MIN_PATIENTS
            assert abs(count - per_class * share) <= max(1, MIN_PATIENTS, len(SHARES))


def test_shares_are_met_exactly_where_they_can_be() -> None:
    units = np.arange(200)
    split = assign(units, units % 2, SHARES, ("a", "b"), np.random.default_rng(0))
    assert {name: int((split == name).sum()) for name in SHARES} == {"train": 88, "audit": 42, "val": 30, "test": 40}


def test_the_seed_decides() -> None:
    units = np.arange(100)
    one, same, other = (assign(units, units % 2, SHARES, ("a", "b"), np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_audit_is_exchangeable_with_train() -> None:
    units = np.arange(400)
    order = [np.flatnonzero(assign(units, units * 0, SHARES, ("a",), np.random.default_rng(seed)) == "audit").mean() for seed in range(60)]
    assert abs(np.mean(order) - 199.5) < 8  # standard error of the mean of 60 means of 84 is about 2


def test_a_patient_of_two_classes_counts_for_the_rarer() -> None:
    units = np.concatenate([np.arange(48), np.arange(8)])
    labels = np.concatenate([np.zeros(48), np.ones(8)]).astype(np.int64)
    split = assign(units, labels, SHARES, ("common", "rare"), np.random.default_rng(0))
    for name in SHARES:
        assert ((split == name) & (labels == 1)).sum() == 2


def test_too_few_patients_says_which_class_and_how_many_would_do() -> None:
    units = np.arange(43)
    labels = (units >= 40).astype(np.int64)
    with pytest.raises(InputError, match="class nodule has 3; 8 of every class are needed"):
        assign(units, labels, SHARES, ("normal", "nodule"), np.random.default_rng(0))


def test_patients_with_a_common_image_are_tied() -> None:
    clusters = np.array([-1, 0, 0, 1, -1, 1, -1])
    units = tie(["a", "a", "b", "b", "c", "d", "e"], clusters)
    np.testing.assert_array_equal(units, [0, 0, 0, 0, 1, 0, 2])
    np.testing.assert_array_equal(tie(["x", "y", "x"], np.array([-1, -1, -1])), [0, 1, 0])


def test_rows_are_kept_together_by_patient_and_by_near_duplicate_where_those_are_told() -> None:
    rows = pd.DataFrame({"patient": ["a", "b", "b", "c"], "duplicate_group": [0, -1, 0, -1]})
    assert kept_together(rows).tolist() == [0, 0, 0, 1]
    assert kept_together(rows[["patient"]]).tolist() == [0, 1, 1, 2]


def test_patients_with_images_of_both_classes_count_for_both() -> None:
    """Before and after a treatment, or a side each: no class is missing because all its patients have the other one too."""
    units, labels = np.repeat(np.arange(20), 2), np.tile([0, 1], 20)
    shares = {"train": 0.4, "audit": 0.3, "val": 0.15, "test": 0.15}
    splits = assign(units, labels, shares, ("normal", "effusion"), np.random.default_rng(0))
    for label in (0, 1):
        assert all((splits[labels == label] == name).sum() >= MIN_PATIENTS for name in shares)
    assert (splits[::2] == splits[1::2]).all()


def test_several_findings_are_spread_as_iterative_stratification_spreads_them() -> None:
    """Every finding, to a unit or two of its share, where drawing by the rarest one alone leaves the common ones to chance."""
    rng = np.random.default_rng(3)
    findings = rng.random((1200, 6)) < [0.4, 0.3, 0.2, 0.1, 0.05, 0.02]
    findings[:, 1] |= findings[:, 0] & (rng.random(1200) < 0.5)
    shares = {"train": 0.4, "audit": 0.3, "val": 0.15, "test": 0.15}
    splits = assign(np.arange(1200), findings, shares, tuple("abcdef"), np.random.default_rng(0))
    for name, share in shares.items():
        assert abs((splits == name).sum() - share * 1200) <= 3
        off = findings[splits == name].sum(axis=0) - share * findings.sum(axis=0)
        assert np.abs(off).max() <= 2, (name, off)
    again = assign(np.arange(1200), findings, shares, tuple("abcdef"), np.random.default_rng(0))
    other = assign(np.arange(1200), findings, shares, tuple("abcdef"), np.random.default_rng(1))
    assert (again == splits).all()
    assert (other != splits).mean() > 0.3


def test_several_findings_go_by_patient_and_earlier_ones_stay() -> None:
    rng = np.random.default_rng(4)
    units = np.repeat(np.arange(150), rng.integers(1, 4, 150))
    findings = rng.random((len(units), 3)) < [0.4, 0.2, 0.1]
    shares = {"train": 0.4, "audit": 0.3, "val": 0.15, "test": 0.15}
    fixed = np.where(units < 30, "train", "")
    splits = assign(units, findings, shares, ("a", "b", "c"), rng, fixed=fixed)
    assert (splits[units < 30] == "train").all()
    for unit in range(150):
        assert len(set(splits[units == unit])) == 1
    for place, name in enumerate("abc"):
        assert all(len(set(units[(splits == split) & findings[:, place]])) >= MIN_PATIENTS for split in shares), name
    people = {name: len(set(units[splits == name])) for name in shares}
    assert abs(people["train"] - 60) <= 3
    findings[np.isin(units, np.flatnonzero(np.bincount(units, findings[:, 2]) > 0)[5:]), 2] = False
    with pytest.raises(InputError, match="class c has 5"):
        assign(units, findings, shares, ("a", "b", "c"), rng)


def test_many_findings_that_few_patients_share_are_split_by_a_further_draw():
    """A first draw leaves most of these without a finding that a quarter of the patients have; another does not."""
    shares = {"train": 0.37, "audit": 0.28, "val": 0.15, "test": 0.2}
    for seed in range(8):
        labels = np.random.default_rng(seed).random((100, 40)) < 0.25
        splits = assign(np.arange(100), labels, shares, [f"f{k}" for k in range(40)], np.random.default_rng(seed))
        for name in shares:
            assert (labels[splits == name].sum(axis=0) >= 2).all()


def test_earlier_patients_are_told_of_only_where_there_are_some():
    labels = np.zeros((40, 2), bool)
    labels[:8, 1] = labels[8:, 0] = True
    shares = {"train": 0.97, "audit": 0.01, "val": 0.01, "test": 0.01}
    fixed = np.array(["train"] * 7 + [""] * 33)
    with pytest.raises(InputError, match=r"too few new patients to split: class b lacks .* and earlier patients stay where they are"):
        assign(np.arange(40), labels, shares, ["a", "b"], np.random.default_rng(0), fixed=fixed)
