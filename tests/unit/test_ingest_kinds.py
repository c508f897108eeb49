"""Cohorts of every kind through the ingest stage: volumes, 16 bits, several findings, NIfTI and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
from dicom_folder import dataset, write
from PIL import Image
from rich.console import Console
from test_ingest_stage import ingest
from test_series import header

from pipeline import artifacts
from pipeline.config import Config, load_config
from pipeline.errors import InputError
from pipeline.images import ImageSet
from pipeline.progress import Reporter
from pipeline.runner import run_stages


def config(root: Path | None, source: str, **section: Any) -> Config:
    section = {"source": source, "path": root, "classes": ("normal", "effusion"), **section}
    return Config.model_validate({"name": "t", "ingest": section, "train": {"images": 1}, "generate": {"per_class": 1}})


def reasons(run: Path) -> dict[str, str]:
    table = pd.read_parquet(run / "ingest" / "quarantine.parquet")
    return dict(zip(table["file"], table["reason"]))


def test_dicom_series_become_a_cohort_of_volumes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["series_instance_uid,label"]
    for patient in range(20):
        uid = f"1.2.{patient}"
        for number in range(5):
            place = {"PatientID": f"P{patient}", "SeriesInstanceUID": uid, "WindowCenter": 2000, "WindowWidth": 2001}
            one = header([-10, 5, 4.0 * number], **place)
            noise = rng.integers(-4000, 4000, 24 * 20)
            one.PixelData = (np.frombuffer(one.PixelData, "<u2") + noise).astype("<u2").tobytes()
            write(tmp_path / "in" / f"{patient}" / f"{number}", one)
        lines.append(f"{uid},{('normal', 'effusion')[patient % 2]}")
    (tmp_path / "in" / "3" / "2").unlink()
    (tmp_path / "in" / "labels.csv").write_text("\n".join(lines))
    settings = config(tmp_path / "in", "dicom", dimensions=3, bits=16, scaling={"CT": (1000, 3000)}, size=24)
    summary, cohort = ingest(settings, tmp_path / "run")
    assert (summary["images"], summary["patients"]) == (19, 19)
    assert cohort.images.shape == (19, 1, 24, 24, 24)
    assert cohort.images.dtype == np.uint16
    assert set(cohort.rows["spacing_mm"].round(4)) == {round(40 / 24, 4)}
    assert set(zip(cohort.rows["intensity_low"], cohort.rows["intensity_high"])) == {(1000.0, 3000.0)}
    assert all("missing" in reason for name, reason in reasons(tmp_path / "run").items() if name.startswith("3/"))
    assert len(reasons(tmp_path / "run")) == 4


def test_sixteen_bits_lead_back_to_the_modalitys_units(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines, values = ["file,label,patient_id"], {}
    for patient in range(20):
        values[f"p{patient}"] = rng.integers(0, 4096, (32, 32)).astype(np.uint16)
        window = {"WindowCenter": 1024, "WindowWidth": 4096, "RescaleSlope": 1, "RescaleIntercept": -1024}
        write(tmp_path / "in" / f"p{patient}", dataset(values[f"p{patient}"], PatientID=f"P{patient}", **window))
        lines.append(f"p{patient},{('normal', 'effusion')[patient % 2]},P{patient}")
    (tmp_path / "in" / "labels.csv").write_text("\n".join(lines))
    _, cohort = ingest(config(tmp_path / "in", "dicom", bits=16, burned_in="declared"), tmp_path / "run")
    low, high = (cohort.rows[f"intensity_{end}"].to_numpy()[:, None, None] for end in ("low", "high"))
    back = low + np.asarray(cohort.images)[:, 0] / 65535 * (high - low)
    for image in back:
        nearest = min(np.abs(image - (stored.astype(int) - 1024)).max() for stored in values.values())
        assert nearest <= (4095 / 65535) / 2 + 1e-3


def nifti_folder(root: Path, patients: int, per_patient: int = 2) -> None:
    rng = np.random.default_rng(1)
    root.mkdir()
    lines = ["file,label,patient_id"]
    for patient in range(patients):
        for number in range(per_patient):
            name = f"sub-{patient}_{number}.nii.gz"
            volume = rng.integers(0, 1000, (20, 18, 16)).astype(np.int16)
            nibabel.save(nibabel.Nifti1Image(volume, np.diag([-2.0, 2.0, 2.0, 1])), root / name)
            lines.append(f"{name},{('normal', 'effusion')[patient % 2]},MRN-{patient}")
    (root / "labels.csv").write_text("\n".join(lines))


def test_nifti_volumes_by_patient(tmp_path: Path) -> None:
    nifti_folder(tmp_path / "in", 16)
    summary, cohort = ingest(config(tmp_path / "in", "nifti", spacing=2.5, modality="MR", burned_in="declared"), tmp_path / "run")
    assert (summary["images"], summary["patients"], summary["quarantined"]) == (32, 16, 0)
    assert cohort.images.shape == (32, 1, 32, 32, 32)
    assert (cohort.rows["spacing_mm"] == 2.5).all()
    assert set(cohort.rows["modality"]) == {"MR"}
    assert cohort.rows.groupby("patient")["split"].nunique().max() == 1
    text = cohort.rows.to_csv() + "".join(path.read_text() for path in (tmp_path / "run" / "ingest").glob("*.json"))
    assert "MRN" not in text
    assert "sub-" not in text


def picture_folder(root: Path, count: int = 24) -> None:
    rng = np.random.default_rng(2)
    for number in range(count):
        folder = root / ("normal", "effusion")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 32, 3), dtype=np.uint8)).save(folder / f"{number}.png")


def test_pictures_in_class_folders_are_split_by_image(tmp_path: Path) -> None:
    picture_folder(tmp_path / "in")
    (tmp_path / "in" / "other.txt").write_text("x")
    summary, cohort = ingest(config(tmp_path / "in", "pictures", colour=True, burned_in="declared"), tmp_path / "run")
    assert cohort.images.shape == (24, 3, 32, 32)
    assert summary["patients"] == "unknown (split by image)"
    assert artifacts.read_json(tmp_path / "run" / "ingest" / "cohort.json")["unit"] == "image"
    assert cohort.labels.tolist().count(1) == 12
    assert "not a PNG" in reasons(tmp_path / "run")["other.txt"] or "no label" in reasons(tmp_path / "run")["other.txt"]


def test_pictures_with_a_table_of_patients_and_several_findings(tmp_path: Path) -> None:
    picture_folder(tmp_path / "in", 40)
    lines = ["file,patient_id,normal,effusion"]
    for number in range(40):
        name = f"{('normal', 'effusion')[number % 2]}/{number}.png"
        findings = ("1,0", "0,1", "1,1", "0,0")[number // 2 % 4]
        lines.append(f"{name},P{number // 2},{findings}")
    (tmp_path / "in" / "labels.csv").write_text("\n".join(lines))
    settings = config(tmp_path / "in", "pictures", several_findings=True, burned_in="declared", val_share=0.2, test_share=0.2)
    rare = "\n".join(line.replace(",1", ",0") if number > 16 else line for number, line in enumerate(lines))
    (tmp_path / "in" / "labels.csv").write_text(rare)
    with pytest.raises(InputError, match=r"class normal has \d, class effusion has \d; 8 of every class") as caught:
        ingest(settings, tmp_path / "few")
    assert "\n" not in str(caught.value)
    (tmp_path / "in" / "labels.csv").write_text("\n".join(lines).replace("P19,0,0", "P19,-1,0"))
    summary, cohort = ingest(settings, tmp_path / "run")
    assert (summary["images"], summary["patients"]) == (40, 20)
    assert cohort.rows.groupby("patient")["split"].nunique().max() == 1
    assert sorted(set(map(tuple, cohort.findings.tolist()))) == [(-1, 0), (0, 0), (0, 1), (1, 0), (1, 1)]


def test_several_findings_in_one_column_and_attributes_beside_them(tmp_path: Path) -> None:
    """As ChestX-ray14 names them; what an attribute may say is a closed list, so that nobody's name comes in by it."""
    picture_folder(tmp_path / "in", 40)
    lines = ["Image Index,Finding Labels,Patient ID,severity,side"]
    for number in range(40):
        label = ("Effusion", "No Finding", "Normal|Effusion", "Normal")[number // 2 % 4]
        side = "Jane Roe" if number == 3 else ("left", "RIGHT", "")[number % 3]
        lines.append(f"{('normal', 'effusion')[number % 2]}/{number}.png,{label},P{number // 2},{number / 40 if number else 'mild'},{side}")
    (tmp_path / "in" / "labels.csv").write_text("\n".join(lines))
    attributes = {"severity": "number", "side": ["left", "right"]}
    settings = config(
        tmp_path / "in", "pictures", several_findings=True, attributes=attributes, burned_in="declared", val_share=0.2, test_share=0.2
    )
    _, cohort = ingest(settings, tmp_path / "run")
    assert sorted(set(map(tuple, cohort.findings.tolist()))) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert cohort.asked["severity"].dtype == np.float32
    assert int(np.isnan(cohort.asked["severity"]).sum()) == 1
    assert set(cohort.asked["side"]) == {"left", "right", ""}
    notes = " ".join(artifacts.read_json(tmp_path / "run" / "ingest" / "cohort.json")["notes"])
    assert "1 values of its column 'severity'" in notes
    assert "1 values of its column 'side'" in notes
    assert "Roe" not in notes
    (tmp_path / "in" / "labels.csv").write_text("\n".join(lines).replace(",side", ",other"))
    with pytest.raises(InputError, match=r"has no column 'side', which ingest\.attributes names"):
        ingest(settings, tmp_path / "missing")


def test_chestmnist_keeps_all_its_findings(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    arrays: dict[str, Any] = {}
    for name, count in (("train", 400), ("val", 40), ("test", 40)):
        arrays[f"{name}_images"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{name}_labels"] = (rng.random((count, 14)) < 0.15).astype(np.uint8)
    np.savez(tmp_path / "chestmnist.npz", **arrays)
    _, cohort = ingest(config(tmp_path, "medmnist", dataset="chestmnist", classes=None), tmp_path / "run")
    assert len(cohort.classes) == 14
    test = cohort.split("test")
    assert sorted(map(tuple, test.findings.tolist())) == sorted(map(tuple, arrays["test_labels"].astype(int).tolist()))
    with pytest.raises(InputError, match="one class an image"):
        _ = cohort.labels


def test_real_adrenal_volumes(tmp_path: Path, real_data: Path) -> None:
    settings = config(real_data / "adrenalmnist3d", "medmnist", dataset="adrenalmnist3d", classes=None, size=28)
    summary, cohort = ingest(settings, tmp_path / "run")
    assert cohort.images.shape[1:] == (1, 28, 28, 28)
    assert summary["test"] == 298
    with np.load(real_data / "adrenalmnist3d" / "adrenalmnist3d.npz") as arrays:
        np.testing.assert_array_equal(cohort.split("test").images[:, 0], arrays["test_images"])


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"source": "medmnist", "dataset": "adrenalmnist3d"}, "3-D volumes"),
        ({"source": "dicom", "path": "x", "classes": ["a", "b"], "bits": 16}, "16-bit images"),
        ({"source": "nifti", "path": "x", "classes": ["a", "b"], "bits": 16}, "3-D volumes and 16-bit images"),
    ],
)
def test_what_later_stages_do_not_take_is_said_before_anything_runs(tmp_path: Path, section: dict[str, Any], expected: str) -> None:
    settings = Config.model_validate({"name": "t", "ingest": section, "train": {"images": 1}, "generate": {"per_class": 1}})
    with pytest.raises(InputError, match=expected) as caught:
        run_stages(settings, tmp_path, Reporter(tmp_path / "log.jsonl", Console(quiet=True)), until="train")
    assert "--until ingest" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"source": "nifti", "path": "x"}, r"ingest\.classes is needed"),
        ({"source": "pictures", "classes": ["a"]}, r"ingest\.path is needed"),
        ({"source": "dicomweb", "classes": ["a"], "label_field": "BodyPartExamined"}, r"ingest\.query is needed"),
        ({"source": "pictures", "path": "x", "classes": ["a"], "dimensions": 3}, r"ingest\.dimensions 3 does not go"),
        ({"source": "dicom", "path": "x", "classes": ["a"], "scaling": {"CT": [5, 5]}}, "low under high"),
        ({"source": "medmnist", "dataset": "breastmnist", "bits": 16}, "do not go with MedMNIST"),
        ({"source": "nifti", "path": "x", "classes": ["a"], "label_field": "PatientSex"}, "label_field goes with"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(section: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        Config.model_validate({"name": "t", "ingest": section, "train": {"images": 1}, "generate": {"per_class": 1}})


def test_the_shipped_configurations_for_volumes() -> None:
    assert load_config("adrenalmnist3d").ingest.volumes
    assert load_config("nifti_folder", ["ingest.path=somewhere"]).ingest.scaling == {"CT": (-1000, 1000)}


def test_shards_are_read_like_one_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.images.SHARD", 4)
    images = np.random.default_rng(0).integers(0, 256, (10, 1, 5, 5), dtype=np.uint8)
    ImageSet(images, pd.DataFrame({"id": list("abcdefghij")})).save(tmp_path)
    found = ImageSet.load(tmp_path)
    assert len(list(tmp_path.glob("images-*.npy"))) == 3
    assert found.images.shape == images.shape
    for index in (3, -1, slice(2, 9, 3), np.array([7, 0, 9]), images[:, 0, 0, 0] > 99, (slice(1, 6), 0), (5, 0)):
        np.testing.assert_array_equal(found.images[index], images[index])
    np.testing.assert_array_equal(np.asarray(found.images), images)
    np.testing.assert_array_equal(list(found.images), images)
    np.testing.assert_array_equal(found.take([9, 1]).images, images[[9, 1]])


def test_the_store_names_no_file_beside_a_pseudonym(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    lines = ["file,label"]
    for number in range(20):
        frames = rng.integers(0, 4096, (2, 32, 32)).astype("<u2")
        frames[1] = 7  # no contrast: one frame is kept, one is left out
        what = {"PatientID": f"JANE-{number}", "NumberOfFrames": 2, "WindowCenter": 2048, "WindowWidth": 4096}
        write(tmp_path / "in" / f"jane-{number}.dcm", dataset(frames[0], PixelData=frames.tobytes(), **what))
        lines.append(f"jane-{number}.dcm,{('normal', 'effusion')[number % 2]}")
    (tmp_path / "in" / "labels.csv").write_text("\n".join(lines))
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    summary, _ = ingest(config(tmp_path / "in", "dicom", burned_in="declared"), tmp_path / "run")
    assert (summary["images"], summary["quarantined"]) == (20, 20)
    [journal] = (tmp_path / "run" / "ingest").glob("partial-*/journal.jsonl")
    assert "jane" not in journal.read_text().lower()
    assert set(reasons(tmp_path / "run").values()) == {"the image is blank, or nearly so: it has no contrast"}


def test_any_file_of_a_series_may_carry_its_label(tmp_path: Path) -> None:
    from pipeline.ingest.labels import Labels
    from pipeline.ingest.readers.series import read_series
    from pipeline.ingest.standardize import Target
    from pipeline.ingest.tasks import Task
    from pipeline.ingest.work import Settings, work

    for number in range(4):
        write(tmp_path / str(number), header([-10, 5, 3.0 * number]))
    task = Task(("0", "1", "2", "3"))
    for table, expected in (("2,a", (1, 0)), ("0,a\n3,a", (1, 0)), ("0,a\n3,b", "contradictory"), ("9,a", "no label")):
        (tmp_path / "labels.csv").write_text(f"file,label\n{table}\n")
        labels = Labels.load(tmp_path / "labels.csv", ("a", "b"))
        settings = Settings(tmp_path, read_series, labels, b"k" * 16, Target(16), dimensions=3, table=labels, burned_in="declared")
        value, images = work(task, settings)
        if isinstance(expected, str):
            assert images == []
            assert expected in value["left_out"][0]
        else:
            assert value["rows"][0]["findings"] == expected
