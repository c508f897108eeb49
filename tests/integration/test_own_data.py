"""Somebody with a folder of too few pictures, who wants to see what comes out: to a verdict in two commands (README's own: test_readme)."""

import json

import numpy as np
import pytest
from PIL import Image

from pipeline.phantom.image import phantom_arrays
from tests.unit.command import run_main

TINY = (
    "train.images=640",
    "train.batch=32",
    "train.widths=[16, 32]",
    "generate.per_class=24",
    "generate.steps=4",
    "audit.planted=20",
    "audit.membership_draws=1",
    "evaluate.seeds=2",
    "evaluate.classifier_images=1280",
    "stress.images=60",
)


def class_folders(root, patients, side=32):
    """Phantoms as PNG files in class folders, with a table that says whose they are."""
    images, labels, of = phantom_arrays(patients, 5, side)
    lines = ["file,patient_id"]
    for number, (image, label) in enumerate(zip(images[:, 0], np.minimum(labels, 1))):
        file = root / ("normal", "abnormal")[label] / f"{number:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
        lines.append(f"{file.parent.name}/{file.name},P{of[number]}")
    (root / "labels.csv").write_text("\n".join(lines))
    return root


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNTHCOHORT_WORKERS", "1")
    return lambda *arguments: run_main(monkeypatch, capfd, *arguments)


def settings(*given):
    return [word for setting in given for word in ("--set", setting)]


@pytest.mark.slow
def test_a_small_cohort_goes_on_anyway_to_its_verdict(command, tmp_path):
    class_folders(tmp_path / "scans", 120)
    assert command("init", "scans", "--write", "mine.yaml").returncode == 0
    ran = command("run", "mine.yaml", "--anyway", *settings(*TINY))
    assert ran.returncode == 4, ran.stderr
    assert "inconclusive" in ran.stdout
    assert json.loads((tmp_path / "runs" / "scans" / "release" / "gate.json").read_text())["verdict"] == "inconclusive"
