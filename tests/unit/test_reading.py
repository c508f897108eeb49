"""A blinded reading: nothing on the readers' side tells who is which, and answers are scored by the key."""

import csv
import itertools
import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command import refused, run_main
from PIL import Image

from pipeline import api, artifacts, reading
from pipeline.errors import InputError
from pipeline.images import ImageSet, finding_columns

CLASSES = ("healthy", "ill", "rare")


def run_of(folder: Path) -> Path:
    """Sealed images of 12 patients, two each, of two classes of three; synthetic ones of all three. Real pixels are even, others odd."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(12) % 2, 2)
    real = 2 * rng.integers(0, 128, (24, 1, 8, 8))
    rows = {"id": [f"r{n}" for n in range(24)], "patient": [f"p{n // 2}" for n in range(24)], "split": "audit"}
    ImageSet(real.astype(np.uint8), pd.DataFrame(rows | finding_columns(labels, CLASSES))).save(folder / "ingest")
    made = np.arange(30) % 3
    ids = {"id": [f"synthetic-{n:06d}" for n in range(30)]}
    synthetic = 2 * rng.integers(0, 128, (30, 1, 8, 8)) + 1
    ImageSet(synthetic.astype(np.uint8), pd.DataFrame(ids | finding_columns(made, CLASSES))).save(folder / "generate")
    for stage in ("ingest", "generate"):
        artifacts.publish(folder / stage, {"stage": stage})
    return folder


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    assert api.reading(run_of(tmp_path / "run"), out=tmp_path / "reading", per_class=8) == 2 * (8 + 8)
    return tmp_path / "reading"


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def answered(exported: Path, name: str, ratings, findings=None) -> Path:
    path = exported.parent / name
    rows = itertools.zip_longest(range(1, len(ratings) + 1), ratings, findings or [""] * len(ratings))
    path.write_text("picture,rating,finding\n" + "".join(f"{number},{rating},{finding}\n" for number, rating, finding in rows))
    return path


def test_as_many_real_ones_as_synthetic_ones_of_each_class_patients_apart_as_long_as_it_goes(tmp_path):
    api.reading(run_of(tmp_path / "run"), out=tmp_path / "six", per_class=6)
    key = table(tmp_path / "six" / "key.csv")
    counted = {(row["origin"], row["class"]) for row in key}
    assert counted == {(origin, name) for origin in ("real", "synthetic") for name in CLASSES[:2]}
    assert len(key) == 24
    assert len({row["group"] for row in key}) == 24  # six patients a class
    api.reading(tmp_path / "run", out=tmp_path / "all", per_class=10)
    groups = [row["group"] for row in table(tmp_path / "all" / "key.csv") if row["origin"] == "real"]
    assert (len(groups), len(set(groups))) == (20, 12)


def test_the_sheets_show_the_pictures_of_the_key_in_a_random_order_and_tell_nothing_else(tmp_path):
    api.reading(run_of(tmp_path / "run"), out=tmp_path / "reading", per_class=6)
    folder = tmp_path / "reading"
    key, pages = table(folder / "key.csv"), sorted((folder / "sheets").iterdir())
    assert [page.name for page in pages] == ["sheet-01.png", "sheet-02.png"]
    times = reading.SIDE // 8
    found = []
    for page in map(Image.open, pages):
        assert page.info == {}
        pixels = np.asarray(page.convert("L"))
        for place in range(20):
            x = reading.MARGIN + place % 5 * (reading.SIDE + reading.MARGIN)
            y = reading.MARGIN + reading.CAPTION + place // 5 * (reading.SIDE + reading.CAPTION + reading.MARGIN)
            if len(found) < len(key):
                picture = pixels[y : y + reading.SIDE, x : x + reading.SIDE]
                assert (picture == np.kron(picture[::times, ::times], np.ones((times, times), np.uint8))).all()
                found.append("synthetic" if (picture % 2).all() else "real")
    assert found == [row["origin"] for row in key]
    assert 4 < sum(one != other for one, other in itertools.pairwise(found)) < 20
    assert table(folder / "answers.csv") == [{"picture": str(n + 1), "rating": "", "finding": ""} for n in range(24)]
    api.reading(tmp_path / "run", out=tmp_path / "again", per_class=6)
    assert (tmp_path / "again" / "key.csv").read_bytes() == (folder / "key.csv").read_bytes()
    api.reading(tmp_path / "run", out=tmp_path / "other", per_class=6, seed=1)
    assert (tmp_path / "other" / "key.csv").read_bytes() != (folder / "key.csv").read_bytes()


def test_the_folder_and_all_in_it_are_the_users_alone(exported):
    assert stat.S_IMODE(exported.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in exported.rglob("*"))


def test_one_who_knows_all_scores_one_and_one_who_says_the_same_of_all_a_half(exported):
    key = table(exported / "key.csv")
    truth = [5 if row["origin"] == "synthetic" else 1 for row in key]
    knows = answered(exported, "ann.csv", truth, [row["class"].upper() for row in key])
    same = answered(exported, "bob.csv", [3] * len(key), ["ill"] * len(key))
    ann, bob = api.score_reading(exported, [knows, same])
    assert (ann.reader, ann.rated, ann.auc.value) == ("ann", len(key), 1.0)
    assert 0.7 < ann.auc.low < 1
    assert (bob.auc.value, set(ann.per_class)) == (0.5, {"healthy", "ill"})
    assert bob.auc.low < 0.5 < bob.auc.high
    assert [one.value for one in ann.findings] == [1, 1, 0]
    assert [one.value for one in bob.findings] == [0.5, 0.5, 0]


def test_what_was_left_out_does_not_count(exported):
    key = table(exported / "key.csv")
    ratings = [("5" if row["origin"] == "synthetic" else "1") if row["class"] == "ill" else "" for row in key]
    (one,) = api.score_reading(exported, [answered(exported, "a.csv", ratings)])
    assert (one.rated, one.pictures, list(one.per_class), one.findings) == (
        ratings.count("1") + ratings.count("5"),
        len(key),
        ["ill"],
        None,
    )
    (none,) = api.score_reading(exported, [answered(exported, "b.csv", [""] * len(key))])
    assert none.auc.value != none.auc.value


def test_a_spreadsheet_may_save_answers_its_own_way(exported):
    count = len(table(exported / "key.csv"))
    path = exported.parent / "a.csv"
    path.write_text("\ufeffpicture;rating;finding\r\n" + "".join(f"{n};3;\r\n" for n in range(count, 0, -1)), encoding="utf-8")
    assert api.score_reading(exported, [path])[0].rated == count


def test_wrong_answers_are_told_together(exported):
    path = exported.parent / "a.csv"
    path.write_text("picture,rating\n1,6\n2,3\n2,4\n99,1\nx,\n")
    with pytest.raises(InputError) as caught:
        api.score_reading(exported, [path])
    for part in ("picture 1: rating '6' is none of 1 to 5", "picture '2' is there twice", "picture '99' is none of 1 to", "'x'"):
        assert part in str(caught.value)


@pytest.mark.parametrize("damage", ["gone", "other", "no header"])
def test_a_key_that_was_lost_or_edited_scores_nobody(exported, damage):
    path = answered(exported, "a.csv", [3])
    if damage == "gone":
        (exported / "key.csv").unlink()
    elif damage == "other":
        (exported / "key.csv").write_text((exported / "key.csv").read_text().replace("real", "fake"))
    else:
        (exported / "key.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"key\.csv"):
        api.score_reading(exported, [path])


def test_the_command_exports_scores_and_says_what_is_missing(tmp_path, monkeypatch, capfd):
    run = run_of(tmp_path / "run")
    out = str(tmp_path / "reading")
    made = run_main(monkeypatch, capfd, "reading", run, "--out", out, "--per-class", 2)
    assert (made.returncode, "PATIENT DATA" in made.stdout) == (0, True)
    scored = run_main(monkeypatch, capfd, "score", out, answered(tmp_path / "reading", "ann.csv", [3] * 8))
    assert (scored.returncode, "ann" in scored.stdout, "0.50" in scored.stdout) == (0, True, True)
    refused(run_main(monkeypatch, capfd, "reading", run, "--out", out), "not empty")
    refused(run_main(monkeypatch, capfd, "reading", out, "--out", tmp_path / "other"), "no finished ingest stage")
