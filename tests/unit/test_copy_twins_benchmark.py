"""The benchmark of twins among real images: it shows what one patient on both sides cost the search, and that it costs it nothing now."""

import numpy as np
import pandas as pd

from pipeline.images import ImageSet, finding_columns
from pipeline.phantom.anatomy import CLASSES
from pipeline.phantom.image import phantom_arrays
from privacy import copy_report, power
from tests.benchmarks import copy_twins


def test_a_row_shows_the_power_without_and_with_the_threshold_of_chance(monkeypatch):
    monkeypatch.setattr(copy_report, "KINDS", (*power.CORE, power.jpeg_50))
    images, labels, patients = phantom_arrays(200, 3, 28)
    bounds = [60, 110, 170, 200]
    split = np.array(["train", "audit", "val", "test"])[np.searchsorted(bounds, patients, side="right")]
    images[np.flatnonzero(split == "audit")[0]] = np.clip(images[np.flatnonzero(split == "train")[4]].astype(int) + 3, 0, 255)
    rows = pd.DataFrame({"id": [f"i{k}" for k in range(len(images))], "patient": patients.astype(str), "split": split})
    row, _ = copy_twins.measure(ImageSet(images, rows.assign(**finding_columns(labels, CLASSES))), 1, 20)
    assert (row["set"], row["twins"]) == ("test", 1)
    assert row["before"]["low"] < row["after"]["low"]
    assert row["after"]["counts"]["jpeg_50"][0] > row["before"]["counts"]["jpeg_50"][0]
    assert (row["before"]["flagged"], row["after"]["flagged"], row["after"]["undecided"]) == (0, 0, 0)
    assert copy_twins.table([{"seed": 1, **row}]).splitlines()[-1].startswith("| 1 | ")
