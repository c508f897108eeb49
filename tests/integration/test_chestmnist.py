"""Phantoms in ChestMNIST's layout, fourteen findings an image, from the file to a release that medmnist's own class opens."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from medmnist import INFO
from medmnist.dataset import MedMNIST2D

from pipeline.release.verify import verify
from tests.benchmarks import chestmnist_phantoms

pytestmark = pytest.mark.slow

PATIENTS = 1400
TEXT = """
name: chest
ingest: {{source: medmnist, dataset: chestmnist, path: {data}, size: 28, audit_share: 0.4}}
train: {{images: 6400, batch: 64, widths: [16, 32], blocks: 1, attention: [], upsample: shuffle, augment: 0.0, dropout: 0.0}}
generate: {{per_class: 90, steps: 4, batch: 100}}
audit: {{planted: 48, membership_draws: 1}}
evaluate: {{seeds: 2, classifier_images: 256}}
release: {{title: Fourteen findings, licence: CC0-1.0}}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, command: Any) -> Path:
    folder = tmp_path_factory.mktemp("chest")
    chestmnist_phantoms.write(folder / "data", PATIENTS, seed=3, most=1)
    (folder / "chest.yaml").write_text(TEXT.format(data=folder / "data"))
    process = command("run", folder / "chest.yaml", "--out", folder / "run")
    assert process.returncode == 0, process.stdout + process.stderr
    return folder / "run"


def test_fourteen_findings_pass_and_the_release_is_whole(run: Path) -> None:
    assert json.loads((run / "release" / "gate.json").read_text())["verdict"] == "pass"
    assert verify(run / "release", run) == []
    made, seen = (pd.read_parquet(run / stage / "rows.parquet") for stage in ("release", "ingest"))
    findings = [f"finding_{INFO['chestmnist']['label'][str(place)]}" for place in range(14)]
    assert [name for name in made if name.startswith("finding_")] == findings
    assert (made[findings].eq(1).sum() >= 90).all(), "of each as many as were asked for"
    together = set(map(tuple, seen.loc[seen["split"] == "train", findings].to_numpy()))
    whole = made[findings].ge(0).all(axis=1)
    assert set(map(tuple, made.loc[whole, findings].to_numpy())) <= together, "what was never seen together is not made"


def test_medmnists_own_class_opens_it(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = run / "release"
    entry = json.loads((release / "medmnist.json").read_text())
    monkeypatch.setattr("medmnist.dataset.INFO", {**INFO, **entry})

    class Cohort(MedMNIST2D):
        flag = "cohort"

    opened = Cohort(split="train", root=str(release))
    rows = pd.read_csv(release / "rows.csv")
    assert len(opened) == len(rows) > 900
    assert opened.info["task"] == INFO["chestmnist"]["task"] == "multi-label, binary-class"
    assert opened.info["label"] == INFO["chestmnist"]["label"]
    _, label = opened[17]
    np.testing.assert_array_equal(label, rows.iloc[17].filter(like="finding_").to_numpy(int))
