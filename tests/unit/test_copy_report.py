"""The search for copies as a whole: what is flagged, what is counted once, and what nothing calibrates."""

import numpy as np
import pytest

from evaluation.data import Labelled
from pipeline.phantom.image import phantom_arrays
from privacy import copy_report, limits, power


@pytest.fixture(scope="module")
def phantoms():
    return phantom_arrays(220, 5, 32)


@pytest.fixture(scope="module")
def sides(phantoms):
    """Train, audit, learn and others, and images of further patients."""
    images, labels, patients = phantoms

    def side(low, high):
        mask = (patients >= low) & (patients < high)
        return Labelled.of_classes(images[mask], labels[mask], patients[mask], 5)

    return side(0, 60), side(60, 120), side(120, 160), side(160, 180), side(180, 220)


def find(sides, synthetic, **options):
    train, audit, learn, others, _ = sides
    arguments = {"planted": 10, "rng": np.random.default_rng(0), "device": "cpu", "learn": learn, "others": others}
    return copy_report.find_copies(train, audit, synthetic, **(arguments | options))


@pytest.fixture(scope="module")
def clean(sides):
    noise = lambda side, sigma: np.clip(side.images + np.random.default_rng(0).normal(0, 127.5 * sigma, side.images.shape), 0, 255)  # noqa: E731
    return find(sides, sides[4].images, regenerate=lambda side, sigma: noise(side, sigma).astype(np.uint8))


def test_honest_images_are_not_flagged(clean):
    assert not clean.flagged.any()
    assert clean.run.p_value > 0.01
    assert clean.hits == {"audit": 0, "others": 0}
    assert clean.repeats.count == 0


def test_power_is_measured_for_every_kind_and_falls_with_the_strength_of_regeneration(clean):
    rows = {(row["kind"], row["strength"]): row for row in clean.power}
    assert {kind for kind, _ in rows} == {f.__name__ for f in copy_report.KINDS} | {"regenerated", "same_patient"}
    assert all(rows[kind.__name__, None]["found"] == 30 for kind in (power.identity, power.flip, power.intensity))
    weak, strong = rows["regenerated", 0.1], rows["regenerated", 1.0]
    assert weak["own_source"] > strong["own_source"]
    assert weak["found"] >= strong["found"]
    assert rows["identity", None]["own_source"] == 1.0


def test_of_images_in_colour_copies_in_other_colours_are_planted_too(sides, monkeypatch):
    monkeypatch.setattr(copy_report, "KINDS", (power.identity,))
    coloured = [
        Labelled(np.concatenate([side.images, side.images // 2, side.images // 4], axis=1), side.findings, side.groups) for side in sides
    ]
    for some, further in ((sides, set()), (coloured, {"recoloured"})):
        found = find([side.take(slice(30)) for side in some], some[4].images[:30], planted=4, learn=None, others=None)
        assert {row["kind"] for row in found.power} == {"identity", "same_patient", *further}


def test_more_copies_are_planted_of_the_kinds_that_a_verdict_rests_on(sides):
    seen = []
    found = find(sides, sides[3].images[:30], planted=3, report=seen.append)
    planted = {row["kind"]: row["planted"] for row in found.power if row["kind"] not in ("regenerated", "same_patient")}
    required = limits.required_kinds(sides[0].images.shape[-1])
    assert planted == {kind: 3 * (3 if kind in required else 1) for kind in planted}
    assert set(required) < set(planted)
    assert seen == sorted(seen)
    assert seen[-1] <= copy_report.searched(30, len(sides[1]), 3, regenerated=False)


def test_planted_copies_are_flagged_and_honest_images_are_not(sides):
    train, rng = sides[0], np.random.default_rng(0)
    guilty = sides[4].images.copy()
    kinds = [power.identity] + 3 * [power.flip] + 3 * [power.shift] + 3 * [power.intensity]
    for place, kind in enumerate(kinds):
        guilty[place] = kind(train.images[5 * place], rng)
    found = find(sides, guilty, planted=1)
    assert found.flagged[:10].sum() >= 8
    assert not found.flagged[10:].any()
    assert found.p_values[:10].max() < found.p_values[10:].min()


def test_one_copy_of_an_audit_image_is_reported_and_hides_no_copy_of_train(sides):
    train, audit = sides[0], sides[1]
    made = sides[4].images.copy()
    made[0], made[1], made[2] = audit.images[0], train.images[0], sides[3].images[0]
    found = find(sides, made, planted=1)
    assert found.hits == {"audit": 1, "others": 1}
    assert found.flagged.tolist() == [number == 1 for number in range(len(made))]


def test_one_image_many_times_and_constants_are_counted_once_and_calibrate_nothing(sides):
    many = np.repeat(sides[4].images[:1], 200, axis=0)
    many[-30:] = 7
    found = find(sides, many)
    assert found.repeats.new.sum() == 2
    assert found.repeats.constant.sum() == 30
    assert found.power == []


def test_without_images_to_learn_from_the_distance_judges_alone(sides):
    found = find(sides, sides[4].images, learn=None, others=None)
    assert found.score_threshold is None
    assert not found.flagged.any()
    assert {row["kind"]: row["found"] for row in found.power}["flip"] == 30


def test_without_a_holdout_identical_images_are_flagged_and_nothing_is_measured(sides):
    train = sides[0]
    made = np.concatenate([train.images[3:4, :, :, ::-1], sides[4].images[:30]])
    found = copy_report.find_copies(train, train.take(slice(0)), made, planted=10, rng=np.random.default_rng(0), device="cpu")
    assert found.flagged.tolist() == [True] + 30 * [False]
    assert found.matches.index[0] == 3
    assert (found.power, found.run.length) == ([], 0)


@pytest.fixture(scope="module")
def twice(sides):
    """The same cohort in which one patient was counted as two: a sealed image shows a train image a moment later."""
    train, audit = sides[:2]
    later = audit.images.copy()
    later[0] = np.clip(train.images[3] + np.random.default_rng(0).normal(0, 6, train.images.shape[1:]), 0, 255)
    return train, Labelled(later, audit.findings, audit.groups), *sides[2:]


def test_one_patient_on_both_sides_costs_the_search_none_of_its_power(sides, twice):
    """A single twin says little of how near others lie, so that nothing but identical images is nearer than all of them would be."""
    options = {"planted": 40, "learn": None, "others": None}
    without, found = (find(some, sides[4].images, **options) for some in (sides, twice))
    assert found.twins[0] == 3
    assert not (found.flagged | found.undecided).any()
    recalls = [{row["kind"]: row["found"] for row in one.power} for one in (without, found)]
    for kind in (kind.__name__ for kind in (*power.CORE, power.jpeg_50, power.gamma)):
        assert recalls[1][kind] >= recalls[0][kind] - 4, kind


def test_more_near_images_than_a_cohorts_twins_explain_are_called_copies(sides, twice):
    made, rng = sides[4].images.copy(), np.random.default_rng(1)
    options = {"planted": 1, "learn": None, "others": None}
    for count, called in ((2, False), (40, True)):
        made[:count] = np.clip(twice[0].images[:count] + rng.normal(0, 6, made[:count].shape), 0, 255)
        found = find(twice, made, **options)
        near = found.flagged | found.undecided
        assert near[:count].mean() > 0.9
        assert not near[count:].any()
        assert found.flagged.any() == called
        assert found.undecided.any() != called


def test_a_cohort_with_twins_calls_none_of_them_a_copy(sides):
    """Two sealed images that train holds too, hardly altered: an honest image may come as near to a train image as they do."""
    train, audit = sides[0], sides[1]
    twins, rng = audit.images.copy(), np.random.default_rng(0)
    for place in (0, 1):
        twins[place] = np.clip(train.images[7 * place + 3] + rng.normal(0, 6, train.images.shape[1:]), 0, 255)
    made = sides[4].images[:40].copy()
    made[0] = np.clip(train.images[30] + rng.normal(0, 6, train.images.shape[1:]), 0, 255)
    doubled = Labelled(twins, audit.findings, audit.groups)
    alone = {"planted": 10, "learn": None, "others": None}
    without = find(sides, made, **alone)
    assert without.flagged[0]
    assert not without.undecided.any()
    assert (without.twins == -1).all()
    found = find((train, doubled, *sides[2:]), made, **alone)
    assert not found.flagged.any()
    assert np.flatnonzero(found.undecided).tolist() == [0]
    assert np.flatnonzero(found.twins >= 0).tolist() == [0, 1]
    assert found.twins[:2].tolist() == [3, 10]
