"""Moved pictures: mirrored, turned, cropped, framed ones are one picture with what they are of, and different patients are not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from pipeline import artifacts
from pipeline.config import Config
from pipeline.context import Context
from pipeline.ingest import duplicates, stage
from pipeline.ingest.duplicates import near_duplicates
from pipeline.ingest.notes import chained, repeated
from pipeline.ingest.quarantine import write_groups
from pipeline.ingest.standardize import Target, standardize
from pipeline.phantom.image import phantom_arrays
from pipeline.progress import Reporter

FINE = 128
CLASSES = ("effusion", "normal")
Picture = NDArray[np.uint8]


def patients(count: int, seed: int = 3) -> list[Picture]:
    """A picture of each of some phantom patients, ``[FINE, FINE]``."""
    images, _, who = phantom_arrays(count, seed, FINE)
    return [images[place, 0] for place in np.unique(who, return_index=True)[1]]


def standard(pictures: list[Picture], size: int = 64) -> NDArray[np.uint8]:
    return np.stack([standardize(np.array(one, np.float32)[None], 0, 255, Target(size))[0] for one in pictures])


def turned(picture: Picture, degrees: float) -> Picture:
    return np.asarray(Image.fromarray(picture).rotate(degrees, Image.Resampling.BICUBIC))


def framed(picture: Picture) -> Picture:
    frame = np.full_like(picture, 255)
    frame[4:-4, 4:-4] = picture[4:-4, 4:-4]
    return frame


MOVES: dict[str, Callable[[Picture], Picture]] = {
    "mirrored": lambda one: one[:, ::-1],
    "turned by a quarter": np.rot90,
    "turned by 5 degrees": lambda one: turned(one, 5),
    "mirrored and turned by 10 degrees": lambda one: turned(np.ascontiguousarray(one[:, ::-1]), 10),
    "cropped at a corner": lambda one: one[3:, 3:],
    "cropped all round": lambda one: one[5:-5, 5:-5],
    "squeezed": lambda one: np.asarray(Image.fromarray(one).resize((FINE, int(0.92 * FINE)), Image.Resampling.BICUBIC)),
    "with a white frame": framed,
    "inverted": lambda one: 255 - one,
}


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("size", [32, 64])
def test_a_moved_picture_is_a_near_duplicate_of_what_it_is_of(move: str, size: int) -> None:
    pictures = patients(30)
    copies = [MOVES[move](one) for one in pictures[:20]]
    clusters = near_duplicates(standard(pictures + copies, size))
    found = clusters[len(pictures) :]
    assert ((found == clusters[:20]) & (found >= 0)).mean() >= 0.9
    assert (clusters[20:30] == -1).all()
    assert len(set(found[found >= 0])) == (found >= 0).sum(), "a cluster holds several patients"


def test_a_picture_that_was_moved_twenty_times_is_one_group() -> None:
    """As augmentation by somebody else leaves it: what is joined to any of the group is joined to all."""
    pictures, rng = patients(25), np.random.default_rng(0)
    copies = [turned(np.ascontiguousarray(np.rot90(pictures[0], rng.integers(4))), rng.uniform(-12, 12))[4:-2, 2:-4] for _ in range(20)]
    clusters = near_duplicates(standard(pictures + copies))
    assert (clusters[[0, *range(25, 45)]] == 0).mean() >= 0.9
    assert (clusters[1:25] == -1).all()


def test_different_patients_are_not_joined_whoever_is_mirrored() -> None:
    pictures = patients(120, seed=8)
    assert (near_duplicates(standard(pictures[:60] + [one[:, ::-1] for one in pictures[60:]])) == -1).all()


@pytest.mark.parametrize("alike", ["a white frame", "a white border", "black bars"])
def test_what_all_pictures_are_framed_by_makes_no_two_of_them_one(alike: str) -> None:
    """A frame is brighter than any anatomy, and its edge was most of the fine structure that images were compared by."""
    border = {
        "a white frame": framed,
        "a white border": lambda one: np.pad(one, 4, constant_values=255),
        "black bars": lambda one: one[:, 13:-13],
    }
    bright = [255 - one // 2 for one in patients(60)]
    clusters = near_duplicates(standard([border[alike](one) for one in bright]))
    assert (clusters == -1).all()


def test_where_patients_are_known_images_are_joined_that_are_the_same_in_place_only() -> None:
    """Exposures of a patient who lay otherwise look as moved pictures do, and are images of their own."""
    one, other = patients(2)
    images = standard([one, one[:, ::-1], one, other, other[:, ::-1]])
    np.testing.assert_array_equal(near_duplicates(images), [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(near_duplicates(images, moved=False), [0, -1, 0, -1, -1])


def ingested(tmp_path: Path) -> tuple[dict[str, Any], str, Path]:
    """Summary, log and folder of the ingest of the class folders ``normal`` and ``effusion`` in ``in``."""
    settings = {"source": "pictures", "path": tmp_path / "in", "classes": ("normal", "effusion"), "burned_in": "declared"}
    config = Config.model_validate({"name": "t", "ingest": settings, "train": {"images": 1}, "generate": {"per_class": 1}})
    out = tmp_path / "run" / "ingest"
    out.mkdir(parents=True)
    log = tmp_path / "log.jsonl"
    summary = stage.run(Context(config, tmp_path / "run", out, Reporter(log, Console(quiet=True)), {}))
    return summary, log.read_text(encoding="utf-8") if log.exists() else "", out  # nothing to say makes no log


@pytest.mark.parametrize("most", [20_000, 60])
def test_class_folders_are_searched_for_moved_pictures_unless_they_hold_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setenv("SYNTHCOHORT_KEY", "a key of the tests, long enough")
    monkeypatch.setattr(duplicates, "ALIGNED", most)
    for place, one in enumerate(patients(60)):
        folder = tmp_path / "in" / CLASSES[place % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(one).save(folder / f"{place}.png")
        if place < 10:
            Image.fromarray(one[:, ::-1]).save(folder / f"{place}-again.png")
    summary, told, out = ingested(tmp_path)
    assert summary["near_duplicate_groups"] == (10 if most > 70 else 0)
    assert ("20 images repeat one another in 10 groups" in told) == (most > 70)
    assert ("of more than 60 images only repeats that lie in the same place are joined" in told) == (most < 70)
    assert artifacts.read_object(out / "cohort.json")["near_duplicates"]["images"] == (20 if most > 70 else 0)
    listed = pd.read_csv(out / "near_duplicates.csv", dtype=str)
    assert list(listed.columns) == ["file", "class", "group"]
    together: dict[str, set[str]] = {}
    for file, name, group in listed.itertuples(index=False):
        assert file.startswith(f"{name}/")
        together.setdefault(group, set()).add(file)
    pairs = [{f"{CLASSES[place % 2]}/{place}{more}.png" for more in ("", "-again")} for place in range(10 * (most > 70))]
    assert sorted(map(sorted, together.values())) == sorted(map(sorted, pairs))


@pytest.mark.parametrize(("again", "told"), [(12, True), (7, False)])
def test_a_group_that_holds_a_tenth_of_a_cohort_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: int, told: bool) -> None:
    """As of masks and drawings, which near twins join step by step, and of one picture that came many times."""
    monkeypatch.setenv("SYNTHCOHORT_KEY", "a key of the tests, long enough")
    pictures = patients(60)
    for place, one in enumerate(pictures):
        folder = tmp_path / "in" / ("normal" if place % 2 else "effusion")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(one).save(folder / f"{place}.png")
        if place < again:
            Image.fromarray(pictures[0] // 2 + 5 * np.uint8(place)).save(folder / f"again-{place}.png")
    _, log, out = ingested(tmp_path)
    said = f"ONE GROUP OF NEAR-DUPLICATES holds {again + 1} of {60 + again} images, is in one split"
    assert (said in log) == told
    assert any(said in note for note in artifacts.read_object(out / "cohort.json")["notes"]) == told


@pytest.mark.parametrize("known", [False, True])
def test_a_group_is_of_images_where_nobody_says_whose_they_are_and_of_patients_whom_chains_of_twins_tie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """The very same picture twelve times; or twelve patients, each of whom shares one picture with the next."""
    monkeypatch.setenv("SYNTHCOHORT_KEY", "a key of the tests, long enough")
    pictures = patients(80)
    pairs = [(place, str(place)) for place in range(60)]
    pairs += [(60 + link, str(link + end)) for link in range(11) for end in (0, 1)] if known else [(60, "")] * 12
    rows = ["file,patient_id"]
    for number, (place, who) in enumerate(pairs):
        name = f"{'normal' if number % 2 or number >= 60 else 'effusion'}/{number}.png"
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pictures[place]).save(tmp_path / "in" / name)
        rows.append(f"{name},{who}")
    if known:
        (tmp_path / "in" / "labels.csv").write_text("\n".join(rows), encoding="utf-8")
    _, log, out = ingested(tmp_path)
    assert ("holds 12 of 60 patients, is in one split" if known else "holds 12 of 72 images, is in one split") in log
    assert ("(ingest/near_duplicates.csv)" in log) != known
    assert (out / "near_duplicates.csv").exists() != known, "a name beside a group would say whose a pseudonym is"


def test_no_spreadsheet_computes_a_name_or_a_class_of_the_list_of_near_duplicates(tmp_path: Path) -> None:
    write_groups(tmp_path, ["=1+1.png", "b.png", "c\udcff.png"], ["-1", "-1; +2", "x"], [4, 4, 0])
    rows = (tmp_path / "near_duplicates.csv").read_text(encoding="utf-8-sig").splitlines()
    assert rows == ["file,class,group", "c\\xff.png,x,0", "./=1+1.png,'-1,4", "b.png,'-1; +2,4"]


def test_a_group_that_is_left_out_since_earlier_runs_put_its_patients_apart_is_not_said_to_be_in_one_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNTHCOHORT_KEY", "a key of the tests, long enough")
    pictures = patients(61)
    for again in (False, True):
        rows = ["file,patient_id"]
        for number in range(60 + 12 * again):
            name = f"{'normal' if number % 2 or number >= 60 else 'effusion'}/{number}.png"
            (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pictures[min(number, 60)]).save(tmp_path / "in" / name)
            rows.append(f"{name},{number % 60}")
        (tmp_path / "in" / "labels.csv").write_text("\n".join(rows), encoding="utf-8")
        summary, log, _ = ingested(tmp_path)
        shutil.rmtree(tmp_path / "run")
    assert summary["quarantined"] == 12
    assert "ONE GROUP" not in log


@pytest.mark.parametrize(("largest", "total", "told"), [(9, 20, False), (10, 100, True), (10, 101, False), (127, 200, True), (0, 0, False)])
def test_a_large_group_is_a_tenth_of_the_cohort_and_ten_of_its_people(largest: int, total: int, told: bool) -> None:
    assert [note.partition(",")[0] for note in chained(largest, total, "patient")] == (
        [f"ONE GROUP OF NEAR-DUPLICATES holds {largest} of {total} patients"] if told else []
    )


def test_images_that_show_nothing_and_sets_of_one_or_two_are_joined_to_nothing() -> None:
    shades = np.arange(0, 240, 8, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 32, 32), np.uint8)
    assert (near_duplicates(shades) == -1).all()
    ramps = np.arange(32, dtype=np.uint8)[None, :] * np.arange(1, 7, dtype=np.uint8)[:, None, None]
    assert (near_duplicates(np.repeat(ramps[:, None, None, 0], 32, axis=2)) == -1).all()
    for count in (1, 2):
        assert (near_duplicates(standard(patients(2)[:count])) == -1).all()


def test_colour_and_sixteen_bits_are_aligned_too() -> None:
    pictures = patients(12)
    grey = standard([*pictures, pictures[3][:, ::-1]])
    expected = np.where(np.isin(np.arange(13), (3, 12)), 0, -1)
    tinted = np.concatenate([grey, 255 - grey // 2, grey // 3], axis=1)
    np.testing.assert_array_equal(near_duplicates(tinted), expected)
    np.testing.assert_array_equal(near_duplicates(grey.astype(np.uint16) * 256), expected)


def test_repeats_are_told_where_nobody_says_whose_the_images_are_and_so_are_contradicting_classes() -> None:
    assert repeated(0, 0, 0) == []
    assert repeated(1, 21, 0)[0].startswith("21 images repeat one another in 1 group (")
    told = repeated(90, 1254, 9)
    assert told[0].startswith("1,254 images repeat one another in 90 groups (")
    assert told[1].startswith("9 of the groups of repeated images have images of different classes")
