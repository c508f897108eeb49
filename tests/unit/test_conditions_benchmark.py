"""The benchmark of conditions: its judges on phantoms whose truth is known, and the set of fourteen findings."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.config import IngestConfig
from pipeline.ingest.readers import medmnist
from tests.benchmarks import chestmnist_phantoms, conditions


@pytest.fixture(scope="module")
def bank():
    return conditions.Rendered.draw(60, 0, 32)


def test_the_fitted_renderer_tells_what_an_image_of_its_own_shows(bank, monkeypatch):
    monkeypatch.setattr(conditions, "NEAREST", 1)
    fit = conditions.Fit(bank)
    known = bank.marks >= 0
    np.testing.assert_array_equal(fit.marks(bank.images)[known], bank.marks[known] == 1)
    rows = bank.marks[:, 1] == 1
    np.testing.assert_allclose(fit.severity(bank.images[rows], "effusion"), bank.severity[rows])


def test_errors_and_shares_are_those_of_the_truth_for_a_judge_that_knows_it(bank, monkeypatch):
    monkeypatch.setattr(conditions, "NEAREST", 1)
    fit = conditions.Fit(bank)
    its = conditions.errors(fit, bank)
    assert all(one["sensitivity"] == one["specificity"] == 1 for one in its.values())
    present = conditions.share(fit, its, bank.images, "effusion", True)["corrected"]
    absent = conditions.share(fit, its, bank.images, "effusion", False)["corrected"]
    assert present["value"] == pytest.approx((bank.marks[:, 1] == 1).mean())
    assert absent["value"] == pytest.approx(1 - present["value"])
    assert absent["low"] < absent["value"] < absent["high"]


def test_the_threshold_parts_what_can_be_parted():
    p, marks = np.array([0.1, 0.2, 0.3, 0.8, 0.9]), np.array([0, 0, -1, 1, 1], np.int8)
    assert 0.2 <= conditions._youden(p, marks) < 0.8


def test_fourteen_findings_are_read_as_chestmnist_is(tmp_path: Path):
    path = chestmnist_phantoms.write(tmp_path, 40)
    found = medmnist.read(IngestConfig(source="medmnist", dataset="chestmnist", path=tmp_path), path)
    assert found.findings.shape[1] == len(chestmnist_phantoms.FOURTEEN) == 14
    assert set(np.unique(found.findings)) == {0, 1}
    assert set(found.split) == {"train", "val", "test"}
