"""Further images of a run's model: what they are follows from the verdict on its weights, and they from seed, class and number."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
import stage_stubs
import trainings
from command import refused, run_main
from PIL import Image
from release_run import audit, measure
from stage_stubs import stubbed  # noqa: F401 (a fixture)

from pipeline import api, artifacts, further
from pipeline.conditions import Conditions
from pipeline.errors import InputError
from pipeline.further import find_model
from pipeline.release import contents
from pipeline.wanted import wanted
from privacy import gate

CLASSES = ("healthy", "ill")
SAMPLING = {"per_class": 3, "steps": 4, "batch": 4}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of which train and generate are finished, without its patients' data."""
    run = trainings.finished(tmp_path_factory.mktemp("further") / "run")
    (run / "generate").mkdir()
    section = trainings.context(run, stage="generate", **SAMPLING).config.generate.model_dump(mode="json", exclude={"import_from"})
    artifacts.publish(run / "generate", {"stage": "generate", "config": section, "inputs": {}})
    for path in (run / "ingest").iterdir():
        path.unlink()
    return run


def judged(run: Path, folder: Path, auc: float = 0.512, images: str = "pass") -> Path:
    """The run beside a verdict on its weights, and on its images."""
    copy = folder / "run"
    copy.mkdir()
    (copy / "train").symlink_to(run / "train")
    (copy / "generate").symlink_to(run / "generate")
    part = {"auc": measure(auc, n=1200), "tpr_at_1pct_fpr": measure(0.011, 0.008), "worst": {"name": "ill", "auc": measure(0.53)}}
    shadows = {"trainings": 8, "members": 1100, "non_members": 550, "weights": part, "images": part, "control": {"auc": measure(0.5)}}
    checks = gate.checks(audit(images, 2000) | {"shadows": shadows})
    files = json.loads((run / "train" / "record.json").read_text())["files"]
    digests = {name: "0" * 64 for name in contents.DIGEST_KEYS} | {"weights": contents.judged_digest("00c0ffee", "weights", files)}
    facts = {"checks": checks, "replication": False, "release": "00c0ffee", "software": "1.0", "digests": digests, "attempt": 1}
    value = gate.decide(checks, attempt=1) | facts
    (copy / "release").mkdir()
    (copy / "release" / "gate.json").write_bytes(contents.json_bytes({name: value[name] for name in contents.GATE_KEYS}))
    return copy


def pixels(folder: Path) -> Any:
    with np.load(folder / "cohort.npz", allow_pickle=False) as found:
        return found["train_images"]


def texts(folder: Path) -> set[str]:
    found = set()
    for path in folder.rglob("*.png"):
        with Image.open(path) as picture:
            found.add(picture.info["Disclaimer"])
    return found


def test_images_of_weights_that_are_not_cleared_are_patient_data(run: Path, tmp_path: Path) -> None:
    made = api.generate(run, {"ill": 3}, out=tmp_path / "more")
    assert (made.images, made.cleared) == (3, False)
    assert stat.S_IMODE((tmp_path / "more").stat().st_mode) == 0o700
    assert not list(tmp_path.rglob("*.dcm"))
    assert [path.name for path in (tmp_path / "more" / "images").iterdir()] == ["ill"]
    assert not (tmp_path / "more" / "dicom").exists()
    assert "patient data" in (tmp_path / "more" / "UNAUDITED-PATIENT-DATA.txt").read_text()
    assert texts(tmp_path / "more") == {"unaudited synthetic image: patient data until it is judged, not for diagnosis"}
    facts = json.loads((tmp_path / "more" / "generated.json").read_text())
    assert facts["contains_patient_data"] is True
    assert facts["weights"] == "not judged"
    assert json.loads((tmp_path / "more" / "record.json").read_text())["contains_patient_data"] is True


def test_a_prompt_is_told_by_no_file_of_a_set_that_may_be_shared_but_the_rows(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be a patient's report; :func:`pipeline.release.rows.without_reports` lets those into the rows that many patients have."""
    silent = further.planned  # this model reads no text
    monkeypatch.setattr(
        further, "planned", lambda plan, *rest: silent([entry.model_copy(update={"text": "", "without_text": ""}) for entry in plan], *rest)
    )
    asked = [{"findings": ["ill"], "text": "sternotomy of jane", "without_text": "roe", "count": 2}]
    api.generate(judged(run, tmp_path), plan=asked, out=tmp_path / "free")
    found = b"".join(path.read_bytes() for path in (tmp_path / "free").rglob("*.json"))
    assert b'"findings"' in found
    assert not [word for word in (b"sternotomy", b"jane", b"roe") if word in found]
    api.generate(run, plan=asked, out=tmp_path / "held")
    assert json.loads((tmp_path / "held" / "generated.json").read_text())["plan"][0]["text"] == "sternotomy of jane"


def test_images_of_cleared_weights_are_free_and_dicom_too(run: Path, tmp_path: Path) -> None:
    made = api.generate(judged(run, tmp_path), {"ill": 3, "healthy": 2}, out=tmp_path / "more")
    assert made.cleared
    assert texts(tmp_path / "more") == {"synthetic, not for diagnosis"}
    assert not (tmp_path / "more" / "UNAUDITED-PATIENT-DATA.txt").exists()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "more").rglob("*")}
    assert modes == {0o755, 0o644}
    rows = pd.read_parquet(tmp_path / "more" / "rows.parquet")
    assert rows["label"].tolist() == ["healthy"] * 2 + ["ill"] * 3
    for row, image in zip(rows.itertuples(), pixels(tmp_path / "more")):
        read = pydicom.dcmread(tmp_path / "more" / "dicom" / f"{row.id}.dcm")
        assert np.array_equal(read.pixel_array, image)
        assert read.SyntheticData == "YES"
        with Image.open(tmp_path / "more" / row.file) as picture:
            assert np.array_equal(np.asarray(picture), image)


@pytest.mark.parametrize("change", ["other weights", "a worse attack", "an edited verdict"])
def test_a_verdict_clears_the_weights_that_it_judged_and_no_others(run: Path, tmp_path: Path, change: str) -> None:
    copy = judged(run, tmp_path, auc=0.86 if change == "a worse attack" else 0.512)
    path = copy / "release" / "gate.json"
    value = json.loads(path.read_text())
    if change == "other weights":
        value["digests"]["weights"] = "1" * 64
    if change == "an edited verdict":
        value["weights"]["reasons"] = []
    path.write_bytes(contents.json_bytes(value))
    assert not api.generate(copy, {"ill": 1}, out=tmp_path / "more").cleared


def test_weights_that_made_copies_are_not_cleared_by_an_attack_that_finds_nothing(run: Path, tmp_path: Path) -> None:
    """A mean over all patients hides the three whom the copy search found: more images, and the weights themselves, stay."""
    copy = judged(run, tmp_path, images="fail")
    weights = json.loads((copy / "release" / "gate.json").read_text())["weights"]
    assert weights == {"verdict": "fail", "reasons": [gate.MADE_BY]}
    made = api.generate(copy, {"ill": 1}, out=tmp_path / "more")
    assert not made.cleared
    assert not list((tmp_path / "more").rglob("*.dcm"))
    assert find_model(copy).verdict == "fail", "by which a purge keeps weights or does not"


def test_an_image_follows_from_seed_class_and_number(run: Path, tmp_path: Path, float32: None) -> None:
    """More of a class, or other classes beside it, change none of the first; another seed changes all, and none is of the run's own set."""
    few, many, other = (tmp_path / name for name in ("few", "many", "other"))
    api.generate(run, {"ill": 2}, out=few)
    api.generate(run, {"healthy": 3, "ill": 4}, out=many)
    api.generate(run, {"ill": 2}, out=other, seed=1)
    assert np.abs(pixels(few).astype(int) - pixels(many)[3:5]).max() <= 1
    seeds = [pd.read_csv(folder / "rows.csv")["seed"].tolist() for folder in (few, many, other)]
    assert seeds[0] == seeds[1][3:5]
    assert not set(seeds[0]) & set(seeds[2])
    own = wanted(trainings.context(tmp_path / "x", stage="generate").config, Conditions(("healthy", "ill")))
    assert not set(own.seeds) & set(seeds[1])


def test_the_runs_own_sampling_is_used(run: Path, tmp_path: Path) -> None:
    api.generate(run, {"ill": 1}, out=tmp_path / "more")
    sampling = json.loads((tmp_path / "more" / "generated.json").read_text())["sampling"]
    assert (sampling["steps"], sampling["batch"], sampling["sampler"]) == (4, 4, "dpmpp_2m")


def test_an_interrupted_call_goes_on_and_another_folder_is_not_touched(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.further._write", stop)
        with pytest.raises(KeyboardInterrupt):
            api.generate(run, {"ill": 2}, out=tmp_path / "more")
    with pytest.raises(InputError, match="is there and not empty"):
        api.generate(run, {"ill": 3}, out=tmp_path / "more")
    api.generate(run, {"ill": 2}, out=tmp_path / "more")
    assert len(pixels(tmp_path / "more")) == 2
    assert not (tmp_path / "more" / "partial").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="is there and not empty"):
        api.generate(run, {"ill": 2}, out=tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_link_to_an_empty_folder_is_followed(run: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "more").symlink_to(tmp_path / "disk")
    api.generate(run, {"ill": 1}, out=tmp_path / "more")
    assert (tmp_path / "more").is_symlink()
    assert (tmp_path / "disk" / "record.json").is_file()


def test_nothing_is_written_into_the_run_folder_whose_stages_it_would_pass_for(run: Path, tmp_path: Path) -> None:
    (tmp_path / "purged").mkdir()
    (tmp_path / "purged" / "train").symlink_to(run / "train")
    (tmp_path / "again").symlink_to(tmp_path / "purged")
    for out in (tmp_path / "purged" / "generate", tmp_path / "purged" / "more", tmp_path / "again" / "generate"):
        with pytest.raises(InputError, match=rf"the folder {out.name} lies in the run folder purged, .*: give another --out"):
            api.generate(tmp_path / "purged", {"ill": 1}, out=out)
        assert not out.exists()


WRONG = {
    "no such class": (("--class", "nodule=3"), ("nodule", "healthy, ill")),
    "no number": (("--class", "ill"), ("--class ill", "--class effusion=500")),
    "no images": (("--class", "ill=0"), ("--class effusion=500",)),
    "a class twice": (("--class", "ill=1", "--class", "ill=2"), ("given twice",)),
    "a prompt twice": (("--prompt", "small", "--prompt", "large", "--count", "1"), ("--prompt is given 2 times", "give it once")),
    "a count twice": (("--finding", "ill", "--count", "1", "--count", "2"), ("--count is given 2 times",)),
    "an attribute twice": (("--attribute", "sex=F", "--attribute", "sex=M", "--count", "1"), ("--attribute sex is given twice",)),
    "a finding and not": (("--finding", "ill", "--not", "ill", "--count", "1"), ("what to generate: ill is asked for and denied at once",)),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_classes_are_one_line(run: Path, tmp_path: Path, monkeypatch: Any, capfd: Any, name: str) -> None:
    given, words = WRONG[name]
    refused(run_main(monkeypatch, capfd, "generate", run, *given, "--out", tmp_path / "more"), *words)
    assert not (tmp_path / "more").exists()


def test_the_command_says_what_the_images_are(run: Path, tmp_path: Path, monkeypatch: Any, capfd: Any) -> None:
    said = run_main(monkeypatch, capfd, "generate", run, "--class", "ill=1", "--out", tmp_path / "more")
    assert said.returncode == 0
    assert "UNAUDITED PATIENT DATA" in said.stdout
    assert "generate.per_class" in said.stdout
    refused(run_main(monkeypatch, capfd, "generate", tmp_path, "--class", "ill=1", "--out", tmp_path / "x"), "no trained model")


@pytest.mark.usefixtures("stubbed")
def test_more_images_of_a_finished_run_are_judged_without_training_anew(tmp_path: Path) -> None:
    stage_stubs.run(stage_stubs.config(), tmp_path / "run")
    more = stage_stubs.config(generate={"per_class": 9})
    again = stage_stubs.run(more, tmp_path / "run", redo=True)
    assert again == ["generate", "audit", "evaluate", "stress", "review", "release"]
