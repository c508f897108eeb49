"""Prompts aimed at one patient: a model that knows patients by heart is told from one that draws what their reports say."""

import numpy as np
import pytest

from evaluation.data import Labelled
from privacy import prompts


def side(n, seed, texts=None):
    """Smooth images with a bright half as the finding says, whose bright spot is where the report says, and patients with two images."""
    rng = np.random.default_rng(seed)
    patients = np.arange(n) // 2
    findings = rng.integers(0, 2, (n, 1)).astype(np.int8)
    spot = rng.integers(0, 12, (n, 2))
    images = render(findings, spot, rng)
    told = np.array([f"at {a} {b} of {patient}" for (a, b), patient in zip(spot, patients + 10_000 * seed)])
    return Labelled(images, findings, patients, asked={"text": told if texts is None else np.array(texts)}), spot


def render(findings, spot, rng):
    images = np.kron(rng.normal(100, 25, (len(findings), 1, 4, 4)), np.ones((4, 4)))
    images[:, :, :8] += 40 * findings[:, :, None, None]
    for image, (row, column) in zip(images, spot):
        image[0, row : row + 4, column : column + 4] += 60
    return np.clip(images, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def sides():
    return side(240, 0), side(240, 1)


def test_a_model_that_knows_its_patients_is_told_from_one_that_draws_what_reports_say(sides):
    (train, train_spots), (audit, audit_spots) = sides
    rng = np.random.default_rng(0)
    pairs = prompts.aimed(train, audit, rng)
    drawn = zip((train, audit), (train_spots, audit_spots), pairs.T)
    honest = tuple(render(one.findings[rows], spots[rows], rng) for one, spots, rows in drawn)
    found = prompts.judge(train, audit, pairs, honest, rng)
    assert found["pairs"] == len(pairs)
    assert min(found[name]["low"] for name in ("train", "audit")) > 0.5, "a report tells of its image, whoever saw it"
    assert found["difference"]["low"] < 0 < found["difference"]["high"]
    assert found["p"] > 0.05
    by_heart = prompts.judge(train, audit, pairs, (train.images[pairs[:, 0]], honest[1]), rng)
    assert by_heart["train"]["value"] == 1
    assert by_heart["difference"]["low"] > 0
    assert by_heart["p"] == 1 / (1 + prompts.FLIPS)


def test_test_and_interval_err_as_often_as_they_say():
    rng, small, missed = np.random.default_rng(3), 0, 0
    for seed in range(40):
        (train, _), (audit, _) = side(90, 2 * seed), side(90, 2 * seed + 1)
        pairs = prompts.aimed(train, audit, rng)
        noise = tuple(rng.integers(0, 256, (len(pairs), 1, 16, 16), np.uint8) for _ in range(2))
        found = prompts.judge(train, audit, pairs, noise, rng)
        small += found["p"] <= 0.1
        missed += not found["difference"]["low"] <= 0 <= found["difference"]["high"]
    assert small <= 10, "4 of 40 on average, more than 10 in 1 of 600"
    assert missed <= 7, "2 of 40 on average, more than 7 in 1 of 1 000"


def test_the_ranks_are_a_count_over_other_patients_of_the_same_findings(sides):
    (train, _), _ = sides
    rows, made = np.array([3, 10]), train.images[[4, 11]]
    flat = train.images.reshape(len(train), -1).astype(np.float64)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    expected = []
    for row, other in zip(rows, (4, 11)):
        near = flat @ flat[other]
        among = [k for k in range(len(train)) if train.groups[k] != train.groups[row] and train.findings[k] == train.findings[row]]
        expected.append(np.mean([near[row] > near[k] for k in among]))
    np.testing.assert_allclose(prompts._rank(train, rows, made), expected, atol=0.01)


def test_reports_that_fewest_patients_have_come_first_and_every_patient_once(sides, monkeypatch):
    (train, _), (audit, _) = sides
    rng = np.random.default_rng(1)
    pairs = prompts.aimed(train, audit, rng)
    assert (train.findings[pairs[:, 0]] == audit.findings[pairs[:, 1]]).all()
    for one, rows in zip((train, audit), pairs.T):
        assert len(set(one.groups[rows])) == len(rows)
    common, _ = side(240, 0, ["clear lungs"] * 120 + [""] * 60 + [f"own {k}" for k in range(60)])
    texts = common.asked["text"][prompts.aimed(common, audit, rng)[:, 0]].tolist()
    assert set(texts[:20]) <= {f"own {k}" for k in range(60)}
    assert set(texts[-20:]) == {"clear lungs"}, "of whom nothing else is left"
    monkeypatch.setattr(prompts, "MOST", 22)
    assert "clear lungs" not in common.asked["text"][prompts.aimed(common, audit, rng)[:, 0]]
    assert len(prompts.aimed(common.take(np.arange(120, 180)), audit, rng)) == 0, "no report at all"
