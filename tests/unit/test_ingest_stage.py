"""The ingest stage from a folder to rows: what a user, a data steward and an interrupted run see."""

from __future__ import annotations

import pickle
import shutil
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import dicom_folder
import numpy as np
import pandas as pd
import pytest
from dicom_folder import dataset, ramp, write
from rich.console import Console

from pipeline import artifacts, ranks
from pipeline.config import Config
from pipeline.context import Context
from pipeline.errors import InputError
from pipeline.images import ImageSet
from pipeline.ingest import cohort, collect, stage
from pipeline.ingest.isolate import isolated
from pipeline.ingest.source import CACHE, source_digest
from pipeline.progress import Reporter

COLUMNS = [
    *(
        "id",
        "patient",
        "split",
        "finding_normal",
        "finding_effusion",
        "modality",
        "view",
        "laterality",
        "site",
        "sex",
        "age_band",
        "acquisition",
        "turned",
    ),
    *("spacing_mm", "intensity_low", "intensity_high", "duplicate_group", "values"),
]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTHCOHORT_KEY", "a key of the tests, long enough")


def config(root: Path | None, **ingest: Any) -> Config:
    section = {"source": "dicom", "path": root, "classes": ("normal", "effusion"), **ingest}
    return Config.model_validate({"name": "t", "ingest": section, "train": {"images": 1}, "generate": {"per_class": 1}})


def context(settings: Config, run: Path) -> Context:
    out = run / "ingest"
    out.mkdir(parents=True, exist_ok=True)
    return Context(settings, run, out, Reporter(run / "log.jsonl", Console(quiet=True)), {})


def ingest(settings: Config, run: Path) -> tuple[dict[str, Any], ImageSet]:
    found = context(settings, run)
    return stage.run(found), ImageSet.load(found.out)


def test_what_ranks_read_in_blocks_is_what_one_process_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = dicom_folder.cohort(tmp_path / "in", 20)
    (root / "p001" / "i0.dcm").write_bytes(b"damaged")
    shutil.copy(root / "p000" / "i0.dcm", root / "p019" / "copy.dcm")  # in a block far behind that of its original
    with (root / "labels.csv").open("a") as file:
        file.write("\np019/copy.dcm,normal\n")
    ingest(config(root), tmp_path / "one")

    def in_turn(function: Any, *args: Any, report: Any) -> None:
        assert b"a key of the tests" not in pickle.dumps(args)
        for rank in (2, 0, 1):
            function(ranks.Share(rank, 3), *args, report=report)

    monkeypatch.setattr(collect, "BLOCK", 7)
    monkeypatch.setattr(ranks, "count", lambda: 3)
    monkeypatch.setattr(ranks, "on_this_machine", lambda: 3)
    monkeypatch.setattr(ranks, "together", in_turn)
    ingest(config(root), tmp_path / "three")
    assert artifacts.folder_digests(tmp_path / "one" / "ingest") == artifacts.folder_digests(tmp_path / "three" / "ingest")
    assert not list((tmp_path / "three" / "ingest").glob("partial*"))


def test_a_folder_becomes_a_cohort(tmp_path: Path) -> None:
    root = dicom_folder.cohort(tmp_path / "in", 40)
    summary, cohort = ingest(config(root), tmp_path / "run")
    assert (summary["images"], summary["patients"], summary["quarantined"]) == (80, 40, 0)
    assert list(cohort.rows.columns) == COLUMNS
    assert cohort.images.shape == (80, 1, 32, 32)
    assert cohort.rows.groupby("patient")["split"].nunique().max() == 1
    assert dict(Counter(cohort.labels.tolist())) == {0: 40, 1: 40}
    assert (cohort.rows["duplicate_group"] == -1).all()
    facts = artifacts.read_json(tmp_path / "run" / "ingest" / "cohort.json")
    assert facts["unit"] == "patient"
    assert sum(sum(part.values()) for part in facts["counts"].values()) == 80
    assert not list((tmp_path / "run" / "ingest").glob("partial-*"))


def test_an_interrupted_attempt_goes_on_and_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = dicom_folder.cohort(tmp_path / "in", 40)
    (root / "readme.txt").write_text("x")
    ingest(config(root), tmp_path / "whole")
    with monkeypatch.context() as patch:
        real = cohort.collect

        def dies(*arguments: Any) -> Any:
            def done(number: int) -> None:
                if number == 37:
                    raise KeyboardInterrupt

            return real(*arguments[:-1], done)

        patch.setattr(cohort, "collect", dies)
        with pytest.raises(KeyboardInterrupt):
            ingest(config(root), tmp_path / "cut")
    [partial] = (tmp_path / "cut" / "ingest").glob("partial-*")
    for name in ("pixels.bin", "journal.jsonl"):  # what a kill leaves of an image and of a line that were being written
        with (partial / name).open("ab") as file:
            file.write(b'{"rows": [{"id"')
    read: list[int] = []
    monkeypatch.setattr(collect, "isolated", lambda work, items, **_: read.append(len(items)) or isolated(work, items))
    ingest(config(root), tmp_path / "cut")
    assert read == [81 - 37]
    assert artifacts.folder_digests(tmp_path / "cut" / "ingest") == artifacts.folder_digests(tmp_path / "whole" / "ingest")


def test_the_number_of_workers_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = dicom_folder.cohort(tmp_path / "in", 40)
    for workers in ("1", "3"):
        monkeypatch.setenv("SYNTHCOHORT_WORKERS", workers)
        ingest(config(root), tmp_path / workers)
    assert artifacts.folder_digests(tmp_path / "1" / "ingest") == artifacts.folder_digests(tmp_path / "3" / "ingest")


def test_quarantine_names_every_file_left_out_and_why(tmp_path: Path) -> None:
    root = dicom_folder.cohort(tmp_path / "in", 20)
    (root / "readme.txt").write_text("x")
    write(root / "extra.dcm", dataset(ramp()))
    shutil.copy(root / "p000" / "i0.dcm", root / "p000" / "j0.dcm")
    outside = write(tmp_path / "outside.dcm", dataset(ramp()))
    (root / "link.dcm").symlink_to(outside)
    with (root / "labels.csv").open("a") as file:
        file.write("\np000/j0.dcm,normal\nlink.dcm,normal\ngone.dcm,normal\n")
    summary, _ = ingest(config(root), tmp_path / "run")
    table = pd.read_parquet(tmp_path / "run" / "ingest" / "quarantine.parquet")
    reasons = table.groupby("file")["reason"].agg(" ".join).to_dict()
    assert summary["images"] == 40
    assert "not a DICOM file" in reasons["readme.txt"]
    assert "no label" in reasons["extra.dcm"]
    assert "same SOP Instance UID" in reasons["p000/j0.dcm"]
    assert "symbolic link" in reasons["link.dcm"]
    assert "not in the folder" in reasons["gone.dcm"]


def test_patients_who_share_a_picture_share_a_split(tmp_path: Path) -> None:
    root = dicom_folder.cohort(tmp_path / "in", 40, images=1)
    for target, origin in ((10, 1), (21, 1)):
        pixels = dicom_folder.pydicom_pixels(root / f"p{origin:03d}" / "i0.dcm")
        pixels = pixels if target == 21 else np.minimum(pixels + 40, 4095).astype(np.uint16)  # another class: not the same pixels
        write(root / f"p{target:03d}" / "i0.dcm", dataset(pixels, PatientID=f"MRN-{target}", WindowCenter=2048, WindowWidth=4096))
    _, cohort = ingest(config(root), tmp_path / "run")
    tied = cohort.rows[cohort.rows["duplicate_group"] == 0]
    assert tied["patient"].nunique() == 3
    assert tied["split"].nunique() == 1
    facts = artifacts.read_json(tmp_path / "run" / "ingest" / "cohort.json")
    assert facts["near_duplicates"] == {"groups": 1, "images": 3, "groups_across_patients": 1, "groups_with_different_classes": 1}
    assert sum(facts["units"].values()) == 38  # the gate tosses one coin for the three, and what can pass is told from these


def test_no_planted_identity_outside_the_quarantine(tmp_path: Path) -> None:
    root = dicom_folder.cohort(tmp_path / "in", 20)
    for number, path in enumerate(sorted(root.rglob("*.dcm"))):
        header = dicom_folder.pydicom.dcmread(path)
        header.PatientName, header.PatientBirthDate, header.InstitutionName = "SECRET^JANE", "19480229", "SECRET CLINIC"
        header.PatientID = f"SECRETID{number // 2}"
        header.ViewPosition, header.PatientSex, header.StudyDescription = "SECRET", "SECRET", "SECRET"
        header.save_as(path)
    run = tmp_path / "run"
    _, cohort = ingest(config(root), run)
    text = "".join(path.read_text() for path in (run / "ingest").glob("*.json")) + cohort.rows.to_csv()
    text += (run / "log.jsonl").read_text() if (run / "log.jsonl").exists() else ""
    for secret in ("SECRET", "JANE", "1948", *(str(header.SOPInstanceUID), str(header.PatientID)), "p000"):
        assert secret not in text
    assert cohort.rows["site"].nunique() == 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda root: shutil.rmtree(root), "no such folder"),
        (lambda root: [shutil.rmtree(root), root.mkdir()], "holds no file"),
        (lambda root: (root / "labels.csv").unlink(), "no label table labels.csv"),
        (
            lambda root: (root / "labels.csv").write_text("file,label\na,tumour\n"),
            "1 label(s) of the column 'label' match no class, on line(s) 2;",
        ),
        (lambda root: (root / "labels.csv").write_text("file,label\na,normal\n"), "no usable image among 16 files (16 x no label"),
        (lambda root: None, "class normal has 4, class effusion has 4; 8 of every class are needed"),
    ],
)
def test_unusable_input_gets_one_line(tmp_path: Path, change: Any, expected: str) -> None:
    root = dicom_folder.cohort(tmp_path / "in", 8)
    change(root)
    run = tmp_path / "run"
    run.mkdir()

    def both() -> None:
        source_digest(config(root), run)
        ingest(config(root), run)

    with pytest.raises(InputError) as caught:
        both()
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_source_digest_follows_the_content_and_nothing_else(tmp_path: Path) -> None:
    root = dicom_folder.cohort(tmp_path / "in", 2)
    run = tmp_path / "run"
    run.mkdir()
    first = source_digest(config(root), run)
    shutil.copytree(root, tmp_path / "moved")
    (tmp_path / "other").mkdir()
    assert source_digest(config(tmp_path / "moved"), tmp_path / "other") == first
    with (root / "p000" / "i0.dcm").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x0f")
    assert source_digest(config(root), run) != first


def test_unchanged_files_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    root = dicom_folder.cohort(tmp_path / "in", 2)
    for path in root.rglob("*"):
        os.utime(path, (1_000_000, 1_000_000))
    run = tmp_path / "run"
    run.mkdir()
    first = source_digest(config(root), run)
    assert stat.S_IMODE((run / CACHE).stat().st_mode) == 0o600
    assert "p000" not in (run / CACHE).read_text()
    monkeypatch.setattr("pipeline.ingest.source._content_digest", lambda *_: pytest.fail("read again"))
    assert source_digest(config(root), run) == first


def test_medmnist_keeps_official_splits_and_draws_audit_from_train(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (120, 28, 28), dtype=np.uint8)
    images[5] = images[3]  # within train
    images[7] = images[100]  # train and val
    images[8] = images[111]  # train and test
    images[101] = images[112]  # val and test
    labels = (np.arange(120) % 2).astype(np.uint8)[:, None]
    parts = {"train": slice(0, 100), "val": slice(100, 110), "test": slice(110, 120)}
    arrays = {f"{name}_images": images[part] for name, part in parts.items()}
    arrays |= {f"{name}_labels": labels[part] for name, part in parts.items()}
    np.savez(tmp_path / "breastmnist.npz", **arrays)
    settings = config(tmp_path, source="medmnist", dataset="breastmnist", classes=None)
    summary, cohort = ingest(settings, tmp_path / "run")
    assert {name: summary[name] for name in ("train", "audit", "val", "test", "quarantined")} == {
        **{"train": 55, "audit": 43, "val": 9, "test": 10, "quarantined": 3}
    }
    pair = cohort.rows[cohort.rows["duplicate_group"] == 0]
    assert len(pair) == 2
    assert pair["split"].nunique() == 1
    facts = artifacts.read_json(tmp_path / "run" / "ingest" / "cohort.json")
    assert facts["unit"] == "image"
    assert facts["source"]["licence"] == "CC BY 4.0"
    assert (cohort.rows["id"] == cohort.rows["patient"]).all()


def test_the_phantom_is_ingested_like_any_folder(tmp_path: Path) -> None:
    settings = config(None, source="phantom", phantom_patients=250, classes=None)
    summary, cohort = ingest(settings, tmp_path / "run")
    assert cohort.classes == ("normal", "cardiomegaly", "effusion", "nodule", "pneumothorax")
    assert summary["quarantined"] >= 3
    assert summary["patients"] >= 249
    assert cohort.rows.groupby("patient")["split"].nunique().max() == 1
    assert set(cohort.rows["site"]) - {""}
    assert cohort.rows["spacing_mm"].gt(0).all()
