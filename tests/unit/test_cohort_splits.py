"""Splits belong to the cohort: an image stays in its split wherever the run folder is and whatever is asked for."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dicom_folder
import numpy as np
import pandas as pd
import pydicom
import pytest
from cohort_runs import files, ingest, message, pictures, settings
from PIL import Image
from rich.console import Console

from pipeline.cohorts import ledger
from pipeline.cohorts.cohort import TORN, Cohort
from pipeline.errors import InputError
from pipeline.images import ImageSet
from pipeline.ingest.ledger import ELSEWHERE, SETTLED_TWICE, TIES, place
from pipeline.progress import Reporter
from pipeline.runner import run_stages


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.Series]:
    """Pictures, and the splits that a first run drew."""
    folder = tmp_path_factory.mktemp("ingested")
    return pictures(folder / "in"), ingest(folder / "in", folder / "run")["split"]


@pytest.fixture
def earlier(ingested: tuple[Path, pd.Series], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cohorts_of_the_module: Path) -> Any:
    """A copy of the pictures, the splits of the first run, and what it settled."""
    shutil.copytree(ingested[0], tmp_path / "in")
    shutil.copytree(cohorts_of_the_module, tmp_path / "settled")
    monkeypatch.setenv("SYNTHCOHORT_COHORTS", str(tmp_path / "settled"))
    return tmp_path / "in", ingested[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 7},
        {"size": 16},
        {"size": 48},
        {"classes": ("b", "a")},
        {"classes": ("b", "a", "c")},
        {"audit_share": 0.6},
        {"val_share": 0.3},
        {"bits": 16},
        {"colour": True},
        {"scaling": {"DX": "percentile"}},
        {"modality": "CR"},
        {"burned_in": "search"},
        {"mask": ((0, 0, 1, 0.1),)},
    ],
    ids=str,
)
def test_an_image_stays_in_its_split_whatever_is_asked_for(earlier: Any, tmp_path: Path, changes: dict[str, Any]) -> None:
    root, first = earlier
    if "c" in changes.get("classes", ()):
        pictures(root, 16, 100, "c/{number}.png")
    again = ingest(root, tmp_path / "other", **changes)["split"]
    assert set(first.index) & set(again.index)
    pd.testing.assert_series_equal(again[again.index.isin(first.index)].sort_index(), first[first.index.isin(again.index)].sort_index())


def test_shares_that_earlier_runs_leave_no_room_for_are_told(earlier: Any, tmp_path: Path) -> None:
    for run, shares in (("same", {}), ("more", {"audit_share": 0.6})):
        console = Console(file=io.StringIO(), width=300)
        run_stages(settings(earlier[0], **shares), tmp_path / run, Reporter(tmp_path / "log.jsonl", console), until="ingest")
        assert ("earlier runs settled this cohort's splits" in console.file.getvalue()) == (run == "more")  # type: ignore[attr-defined]
    assert "train 0.35 (0.26), audit 0.30 (0.39), val 0.15 (0.15), test 0.20 (0.20)" in console.file.getvalue()  # type: ignore[attr-defined]


def renamed(root: Path) -> None:
    for path in sorted(root.rglob("*.png")):
        path.rename(path.with_name(f"moved-{path.name}"))


def resaved(root: Path) -> None:
    for path in sorted(root.rglob("*.png")):
        Image.open(path).save(path, compress_level=1, dpi=(300, 300))


def as_tiff(root: Path) -> None:
    for path in sorted(root.rglob("*.png")):
        Image.open(path).save(path.with_suffix(".tiff"))
        path.unlink()


def swapped_labels(root: Path) -> None:
    (root / "a").rename(root / "x")
    (root / "b").rename(root / "a")
    (root / "x").rename(root / "b")


def half_gone(root: Path) -> None:
    for path in sorted(root.rglob("*.png"))[::2]:
        path.unlink()
    pictures(root, 20, 500)


@pytest.mark.parametrize("change", [renamed, resaved, as_tiff, swapped_labels, half_gone])
def test_an_image_is_known_by_what_it_shows(earlier: Any, tmp_path: Path, change: Callable[[Path], None]) -> None:
    root, first = earlier
    change(root)
    shutil.move(root, tmp_path / "elsewhere")
    again = ingest(tmp_path / "elsewhere", tmp_path / "other", seed=3)["split"]
    both = first.index.intersection(again.index)
    assert len(both) >= 18
    pd.testing.assert_series_equal(again[both], first[both])


def test_a_cohort_that_is_another_is_drawn_by_its_own_seed(tmp_path: Path, cohorts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = pictures(tmp_path / "one"), pictures(tmp_path / "two", first=1000)
    ingest(one, tmp_path / "a")
    ingest(two, tmp_path / "b", seed=5)
    assert len(files(cohorts)) == 2
    fresh = ingest(two, tmp_path / "c", seed=6)["split"]
    monkeypatch.setenv("SYNTHCOHORT_COHORTS", str(tmp_path / "empty"))
    assert not fresh.equals(ingest(two, tmp_path / "d", seed=6)["split"])


def table(root: Path, patients: Callable[[int], str] | None) -> None:
    """A label table of the pictures, with patients where they are known."""
    lines = ["file,label" + (",patient_id" if patients else "")]
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        lines.append(f"{path.relative_to(root).as_posix()},{path.parent.name}" + (f",{patients(number)}" if patients else ""))
    (root / "labels.csv").write_text("\n".join(lines))


def test_patients_that_are_forgotten_leave_every_image_where_it_is(tmp_path: Path) -> None:
    root = pictures(tmp_path / "in", 80)
    table(root, lambda number: f"patient {number // 2}")
    first = ingest(root, tmp_path / "run").set_index("id")["split"]
    table(root, None)
    again = ingest(root, tmp_path / "other", seed=9).set_index("id")["split"]
    pd.testing.assert_series_equal(again[first.index], first)


def test_patients_that_become_known_stay_where_their_images_are_or_out(tmp_path: Path) -> None:
    root = pictures(tmp_path / "in", 120)
    first = ingest(root, tmp_path / "run").set_index("id")["split"]
    table(root, lambda number: f"patient {number if number < 100 else 100 + number // 10}")
    again = ingest(root, tmp_path / "other").set_index("id")["split"]
    pd.testing.assert_series_equal(again, first[again.index])
    reasons = pd.read_parquet(tmp_path / "other" / "ingest" / "quarantine.parquet")["reason"]
    assert set(reasons) <= {SETTLED_TWICE}
    assert 0 < len(reasons) <= 20
    assert len(again) == 120 - len(reasons)
    told = json.loads((tmp_path / "other" / "ingest" / "cohort.json").read_text())["notes"][-1]
    assert told.startswith(f"{len(reasons)} of 120 images are left out")
    for patient, said in (
        (lambda n: f"patient {n if n < 5 else 100 + n % 9}", "too few patients"),
        (lambda n: f"patient {n // 12}", "no patients"),
    ):
        table(root, patient)
        with pytest.raises(InputError, match="SYNTHCOHORT_COHORTS=NEW_FOLDER") as error:
            ingest(root, tmp_path / said)
        assert message(error).startswith(said)


def test_patients_of_dicom_files_stay_under_another_size_seed_and_class_list(tmp_path: Path) -> None:
    root = dicom_folder.cohort(tmp_path / "in", 32, images=2)
    changes = {"source": "dicom", "modality": None, "classes": ("normal", "effusion")}
    first = ingest(root, tmp_path / "run", **changes)["split"].groupby(level=0).first()
    for run, further in (("b", {"seed": 4}), ("c", {"size": 16}), ("d", {"classes": ("effusion", "normal")})):
        again = ingest(root, tmp_path / run, **{**changes, **further})["split"].groupby(level=0).first()
        pd.testing.assert_series_equal(again, first)


@pytest.mark.parametrize("lost", [False, True])
def test_pictures_with_the_values_of_dicom_files_are_their_cohort(tmp_path: Path, cohorts: Path, lost: bool) -> None:
    """Exported to PNG as they are, without patients, at another size and under another seed: every image stays in its split."""
    root, classes = dicom_folder.cohort(tmp_path / "in", 32, images=2), ("normal", "effusion")
    changes = {"source": "dicom", "modality": None, "classes": classes}
    first = ingest(root, tmp_path / "run", **changes)
    if lost:
        files(cohorts)[0].unlink()
        ledger.restore(tmp_path / "run", stands=True)
    for number, line in enumerate((root / "labels.csv").read_text().splitlines()[1:]):
        name, label = line.split(",")
        (tmp_path / "png" / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pydicom.dcmread(root / name).pixel_array).save(tmp_path / "png" / label / f"{number}.png")
    exported = ingest(tmp_path / "png", tmp_path / "other", classes=classes, size=16, seed=5)
    splits = [rows.set_index("values")["split"].sort_index() for rows in (first, exported)]
    pd.testing.assert_series_equal(*splits)
    assert len(files(cohorts)) == 1


def test_values_that_two_cohorts_had_in_different_splits_are_left_out_when_they_meet() -> None:
    settled = Cohort(images={"dicom 1": "train", "values 1": "audit", "dicom 2": "val", "values 2": "val", "values 3": "test"})
    met = settled.called({"dicom 1": "values 1", "dicom 2": "values 2", "dicom 3": "values 3", "dicom 4": "values 4"})
    assert met.images == {**settled.images, "dicom 1": TORN, "dicom 3": "test"}


def test_new_images_that_are_all_near_duplicates_of_several_splits_are_told() -> None:
    """As after an export in another way of a collection whose pictures all look alike."""
    settled = Cohort(patients={f"p{number}": ("train", "val")[number % 2] for number in range(6)})
    people, shares = list(settled.patients), {"train": 0.5, "val": 0.5}
    images, clusters, labels = [f"new {name}" for name in people], np.zeros(6, np.int64), np.arange(6) % 2
    with pytest.raises(InputError, match=f"no patients are left to split: each image is {TIES}; .*SYNTHCOHORT_COHORTS=NEW_FOLDER"):
        place(settled, images, people, clusters, labels, ("a", "b"), shares, np.random.default_rng(0))


def test_a_split_that_near_duplicates_make_too_small_says_so(tmp_path: Path, cohorts: Path) -> None:
    one = np.random.default_rng(0).integers(10, 240, (40, 40))
    for number in range(40):
        path = tmp_path / "in" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((one + number % 7).astype(np.uint8) if number < 30 else np.roll(one, number, 1).astype(np.uint8)).save(path)
    with pytest.raises(InputError) as caught:
        ingest(tmp_path / "in", tmp_path / "run")
    assert "too few images to split: class a has" in message(caught)
    assert "images share near-duplicates with others and count as" in message(caught)
    assert "as masks and drawings are, more will not do (unfinished/ingest/near_duplicates.csv lists them)" in message(caught)


PUBLISHED = {"train": 160, "val": 60, "test": 80}


def exported(folder: Path) -> dict[str, Any]:
    """A set of MedMNIST, and its images as pictures in class folders, named by their official split; how the set is ingested."""
    rng, arrays = np.random.default_rng(0), {}
    for split, count in PUBLISHED.items():
        images, labels = rng.integers(0, 256, (count, 28, 28), np.uint8), np.arange(count) % 2
        arrays |= {f"{split}_images": images, f"{split}_labels": labels.astype(np.uint8)[:, None]}
        for number, (image, label) in enumerate(zip(images, labels)):
            path = folder / "pictures" / "ab"[label] / f"{split}-{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    np.savez(folder / "breastmnist.npz", **arrays)
    return {"source": "medmnist", "dataset": "breastmnist", "classes": None, "modality": None}


def test_of_a_published_set_what_pictures_put_elsewhere_before_is_left_out(tmp_path: Path, cohorts: Path) -> None:
    """Official splits hold where earlier runs had the same; the run agrees with its cohort, and says what it lacks."""
    section = exported(tmp_path)
    first = ingest(tmp_path / "pictures", tmp_path / "first", val_share=0.3, test_share=0.3).reset_index().set_index("values")["split"]
    console = Console(file=io.StringIO(), width=400)
    run_stages(settings(tmp_path, **section), tmp_path / "run", Reporter(tmp_path / "log.jsonl", console), until="ingest")
    rows = ImageSet.load(tmp_path / "run" / "ingest").rows
    left_out = pd.read_parquet(tmp_path / "run" / "ingest" / "quarantine.parquet")
    assert rows["split"].tolist() == first[rows["values"]].tolist(), "every image is where it was"
    assert len(rows) + len(left_out) == sum(PUBLISHED.values())
    assert set(left_out["reason"]) == {ELSEWHERE}
    assert 0 < len(rows) < 200
    of_test = left_out["file"].str.startswith("test/").sum()
    assert f"earlier runs put {len(left_out)} of 300 images, {of_test} of them of the official test" in console.file.getvalue()  # type: ignore[attr-defined]
    before = files(cohorts)[0].read_bytes()
    ledger.restore(tmp_path / "run", stands=True)  # refuses a run that contradicts its cohort, as the first judgement does
    assert files(cohorts)[0].read_bytes() == before
    again = ingest(tmp_path, tmp_path / "again", replication=True, **section)
    assert again["split"].replace("audit", "train").value_counts().to_dict() == PUBLISHED


def test_a_published_set_that_loses_a_class_to_earlier_runs_says_what_to_do(tmp_path: Path) -> None:
    section = exported(tmp_path)
    rows = ingest(tmp_path, tmp_path / "drawn", replication=True, **section)
    with ledger.find(tmp_path / "drawn", (), ()) as found:
        found.save(Cohort(images=dict.fromkeys(rows.loc[rows["split"] == "val", "values"], "train")))
    with pytest.raises(InputError, match=r"which leaves the official val without malignant: read them as those runs did") as error:
        ingest(tmp_path, tmp_path / "run", **section)
    message(error)


def test_a_cohort_file_that_is_lost_is_made_again_from_a_run_that_is_redone(tmp_path: Path, cohorts: Path) -> None:
    root = pictures(tmp_path / "in")
    first = ingest(root, tmp_path / "run")["split"].sort_index()
    shutil.rmtree(cohorts)
    again = ingest(root, tmp_path / "run", redo=True, seed=11, size=16)["split"].sort_index()
    pd.testing.assert_series_equal(again, first)
    assert len(files(cohorts)) == 1


def test_a_run_that_contradicts_its_cohort_goes_no_further(tmp_path: Path, cohorts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = pictures(tmp_path / "in")
    ingest(root, tmp_path / "run")
    monkeypatch.setenv("SYNTHCOHORT_COHORTS", str(tmp_path / "others"))
    ingest(root, tmp_path / "other", seed=2)
    before = files(tmp_path / "others")[0].read_bytes()
    with pytest.raises(InputError, match=r"splits are not those of its cohort in .*others") as error:
        run_stages(settings(root), tmp_path / "run", Reporter(tmp_path / "log", Console(quiet=True)), until="train")
    message(error)
    assert files(tmp_path / "others")[0].read_bytes() == before
    ingest(root, tmp_path / "run", redo=True, seed=2)
    monkeypatch.setenv("SYNTHCOHORT_COHORTS", str(cohorts))
    with pytest.raises(InputError, match="splits are not those"):
        run_stages(settings(root, seed=2), tmp_path / "run", Reporter(tmp_path / "log", Console(quiet=True)), until="train")
