"""What the audit says of counts and sides besides the search: images that certify nothing, sides that differ, kinds by their names."""

import numpy as np
import pytest

from evaluation.data import Labelled
from privacy import audit, copies, gate
from privacy.copy_report import CopyReport
from privacy.judgements import DRAWN
from privacy.repeats import find_repeats
from privacy.tail import LeadingRun


def noise(n, seed, low=0):
    return np.random.default_rng(seed).integers(low, 256, (n, 1, 12, 12), dtype=np.uint8)


def side(images, first=0):
    n = len(images)
    return Labelled.of_classes(images, np.zeros(n, np.int64), first + np.arange(n), 1)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (noise(20, 0), (0, 0)),
        (np.repeat(noise(1, 0), 20, axis=0), (19, 0)),
        (np.concatenate([noise(10, 0), noise(10, 0)]), (10, 0)),
        (np.full((20, 1, 12, 12), 7, np.uint8), (0, 20)),
        (np.arange(20, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 12, 12), np.uint8), (0, 20)),
        (np.concatenate([noise(10, 0), noise(10, 0)[:, :, ::-1]]), (10, 0)),
    ],
    ids=["all different", "one image", "each twice", "one constant", "constants", "mirrored"],
)
def test_repeats_and_constants_are_counted_once(images, expected):
    found = report(images)["copies"]
    assert (found["repeats"], found["constants"]) == expected


def test_two_samples_of_one_source_are_not_told_apart_and_others_are():
    rng = np.random.default_rng(0)
    found = [audit.split_bias(side(noise(90, seed)), side(noise(60, 100 + seed), 90), rng) for seed in range(12)]
    assert sum(one.low < 0.5 < one.high for one in found) >= 10
    other = audit.split_bias(side(noise(300, 1)), side(noise(200, 2, low=60), 300), rng)
    assert other.low > 0.8


def report(images, undecided=0):
    n = len(images)
    found = CopyReport(
        matches=copies.Matches(np.zeros(n, np.int64), np.full(n, 0.4)),
        audit_distance=np.full(n, 0.4),
        p_values=np.full(n, 0.5),
        flagged=np.zeros(n, bool),
        undecided=np.arange(n) < undecided,
        twins=np.array([-1, 3, -1]),
        threshold=0.03,
        run=LeadingRun(1, 0.5),
        power=[
            {"kind": "identity", "strength": None, "planted": 100, "found": 99},
            {"kind": "blur", "strength": 1.5, "planted": 9, "found": 9},
        ],
        ratio_threshold=0.0,
        score_threshold=None,
        repeats=find_repeats(images, noise(40, 99), "cpu"),
        audit_repeats=0,
        hits={"audit": 0, "others": 0},
    )
    sizes = {"n_train": 900, "n_audit": 700, "holdout_units": 400}
    return audit.summarise(
        found, None, pixels=12, unit="patient", drawn=DRAWN[0], **sizes, further={"shadows": None, "one_run": {"images": {}}}
    )


def test_one_image_again_and_again_does_not_pass_however_often_it_is_given():
    for images in (np.repeat(noise(1, 0), 800, axis=0), np.full((800, 1, 12, 12), 9, np.uint8)):
        verdict = {check["name"]: check for check in gate.checks(report(images)) if check["subject"] == "images"}
        assert verdict["copies"]["n"] == 1
        assert verdict["copies"]["verdict"] == verdict["repeats"]["verdict"] == "inconclusive"


def test_undecided_images_and_twins_are_counted_apart_from_flagged_ones():
    found = report(noise(30, 0), undecided=2)["copies"]
    assert (found["flagged"], found["undecided"], found["twins"]) == (0, 2, 1)


def test_kinds_are_named_whatever_made_them_and_what_was_not_measured_is_left_out():
    made = report(noise(30, 0))
    assert [(row["kind"], row["strength"]) for row in made["power"]] == [("identity", None), ("blur", 1.5)]
    assert made["pixels"] == 12
    assert "shadows" not in made
    assert "split_bias" not in made
