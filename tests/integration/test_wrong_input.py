"""What people do wrong gets one line that says what and how to mend it, and exit code 2."""

import csv
import shutil
import subprocess
import sys
import time

import pytest

from pipeline.phantom.anatomy import draw_patients
from pipeline.phantom.dicom import write_cohort
from tests.integration.small import quick
from tests.unit.command import refused, run_main


@pytest.fixture
def command(monkeypatch, capfd):
    return lambda *arguments: run_main(monkeypatch, capfd, *arguments)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("dicom") / "cohort"
    write_cohort(path, draw_patients(12, 0), 0, 32)
    return path


def dicom(folder, *more):
    return ("run", "dicom_folder", "--set", f"ingest.path={folder}", "--set", "ingest.size=32", *more)


def test_no_such_configuration(command):
    refused(command("run", "quikstart"), "quikstart", "quickstart")


def test_unknown_keys_are_reported_together(command, tmp_path):
    refused(
        command("run", "quickstart", "--out", tmp_path, "--set", "train.bach=3", "--set", "generate.stepps=4"),
        "train.bach",
        "generate.stepps",
    )


def test_a_duplicate_key(command, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(quick(tmp_path).read_text() + "seed: 1\n")
    refused(command("run", config, "--out", tmp_path / "run"), "seed", "twice")


def test_a_missing_folder(command, tmp_path):
    refused(command(*dicom(tmp_path / "nowhere", "--out", tmp_path / "run")), "ingest.path")


def test_a_folder_without_a_usable_image(command, tmp_path):
    source = tmp_path / "empty"
    source.mkdir()
    (source / "readme.txt").write_text("nothing")
    (source / "labels.csv").write_text("file,label\nreadme.txt,normal\n")
    refused(command(*dicom(source, "--out", tmp_path / "run")), "no usable image")


def test_a_label_that_is_no_class(command, folder, tmp_path):
    refused(command(*dicom(folder, "--out", tmp_path / "run", "--set", "ingest.classes=[normal, effusion]")), "ingest.classes")


def test_too_few_patients_to_split(command, folder, tmp_path):
    refused(command(*dicom(folder, "--out", tmp_path / "run")), "too few patients", "needed")


def test_labels_without_their_column(command, folder, tmp_path):
    source = tmp_path / "copy"
    shutil.copytree(folder, source)
    with (source / "labels.csv").open() as file:
        rows = list(csv.reader(file))
    rows[0][rows[0].index("label")] = "diagnosis"
    with (source / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    refused(command(*dicom(source, "--out", tmp_path / "run")), "label")


def test_a_run_folder_in_use(command, tmp_path):
    config = quick(tmp_path)
    run = tmp_path / "run"
    first = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "run", str(config), "--out", str(run)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(300):
            if (run / "log.jsonl").exists():
                break
            time.sleep(0.1)
        refused(command("run", config, "--out", run), "another process")
    finally:
        first.kill()
        first.wait()


def test_shares_that_leave_nothing_to_train_on(command, tmp_path):
    refused(command("run", "quickstart", "--out", tmp_path / "run", "--set", "ingest.val_share=0.95"), "ingest.val_share")


def test_a_gate_laxer_than_the_gate(command, tmp_path):
    process = command("run", "quickstart", "--out", tmp_path / "run", "--set", "release.max_copy_rate=0.5")
    refused(process, "release.max_copy_rate", "tighten")


def test_weights_to_start_from_that_are_not_there(command, tmp_path):
    process = command("run", "quickstart", "--out", tmp_path / "run", "--set", f"train.start_from={tmp_path / 'none'}")
    refused(process, "model.safetensors")


def test_show_and_verify_of_something_else(command, tmp_path):
    refused(command("show", tmp_path / "none"), "no run folder")
    refused(command("verify", tmp_path / "none"), "no release folder")
