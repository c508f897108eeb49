"""A blinded reading: nothing on the readers' side tells who is which, and answers are scored by the key."""

import csv
import itertools
import re
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
    path, code = exported.parent / name, table(exported / "answers.csv")[0]["reading"]
    rows = itertools.zip_longest(range(1, len(ratings) + 1), ratings, findings or [""] * len(ratings))
    path.parent.mkdir(exist_ok=True)
    path.write_text("picture,rating,finding,reading\n" + "".join(f"{n},{rating},{finding},{code}\n" for n, rating, finding in rows))
    return path


def filled(exported: Path) -> str:
    """Answers of one who knows all, as text."""
    key = table(exported / "key.csv")
    rows = [(row["picture"], 5 if row["origin"] == "synthetic" else 1, row["class"], row["reading"]) for row in key]
    return "picture,rating,finding,reading\n" + "".join(",".join(map(str, row)) + "\n" for row in rows)


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
    code = key[0]["reading"]
    assert code.isalpha()  # a spreadsheet makes a number of 1e5
    assert len(code) == 6
    assert table(folder / "answers.csv") == [{"picture": str(n + 1), "rating": "", "finding": "", "reading": code} for n in range(24)]
    told = (folder / "instructions.txt").read_text()
    assert all(f"  {name}\n" in told for name in CLASSES[:2])
    assert code in told
    assert "rare" not in told  # no sealed image of it is there to be read
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


@pytest.mark.parametrize(
    "saved",
    [
        pytest.param(lambda text: ("\ufeff" + text.replace(",", ";").replace("\n", "\r\n")).encode(), id="semicolons and mark"),
        pytest.param(lambda text: text.replace(",", "\t").encode("utf-16"), id="Unicode text"),
        pytest.param(lambda text: text.replace(",", "|").replace("\n", "\r").encode(), id="bars, old Mac"),
        pytest.param(lambda text: ("sep=;\n" + text.replace(",", ";")).encode(), id="separator told"),
        pytest.param(lambda text: re.sub(r"(?m)^(\d+),(\d)", r"\1.0,\2.0", text).encode(), id="decimals"),
        pytest.param(lambda text: re.sub(r"(?m)^(\d+);(\d)", r"\1,0;\2,0", text.replace(",", ";")).encode(), id="decimal commas"),
        pytest.param(lambda text: re.sub(r"(?m)^(\d+),(\d)", r'="\1","\2"', text).encode(), id="quoted"),
        pytest.param(lambda text: text.replace("picture,rating", "Picture, Rating ").encode(), id="header in another case"),
        pytest.param(lambda text: (text + ",,,\n,,,\n\n").encode(), id="empty rows at the end"),
        pytest.param(lambda text: text.replace("ill", " ILL\u00a0").replace("healthy", "Healthy.").encode("cp1252"), id="Western, spelled"),
        pytest.param(lambda text: text.replace("\n", ",\n").replace("reading,", "reading,note").encode(), id="one more column"),
        pytest.param(lambda text: "\n".join([*text.splitlines()[:1], *text.splitlines()[:0:-1]]).encode(), id="sorted otherwise"),
    ],
)
def test_a_spreadsheet_may_save_answers_its_own_way(exported, saved):
    path = exported.parent / "a.csv"
    path.write_bytes(saved(filled(exported)))
    (one,) = api.score_reading(exported, [path])
    assert (one.rated, one.auc.value, one.findings[0].value, one.findings[1].value) == (one.pictures, 1, 1, 1)


def test_wrong_answers_are_told_together(exported):
    path, code = exported.parent / "a.csv", table(exported / "key.csv")[0]["reading"]
    rows = ["1,6,", "2,3,", "02,4,", "99,1,", "x,,", ",4,", "7,TRUE,", "8,01.05.2026,", "9" * 5000 + ",1,", "0,3,"]
    path.write_text("picture,rating,finding,reading\n" + "".join(f"{row},{code}\n" for row in rows))
    with pytest.raises(InputError) as caught:
        api.score_reading(exported, [path])
    for part in (
        "a.csv line 2: rating '6' of picture 1 is none of 1 to 5",
        "a.csv line 4: picture 2 is on line 3 too",
        "line 5: picture '99' is none of 1 to",
        "'x'",
        "line 7: picture ''",
        "rating 'TRUE' of picture 7",
        "rating '01.05.2026' of picture 8",
        "and 1 more",
    ):
        assert part in str(caught.value)
    assert "9" * 30 not in str(caught.value)


@pytest.mark.parametrize("column", ["picture", "rating", "finding"])
def test_answers_under_another_name_are_not_taken_for_none(exported, column):
    path = exported.parent / "a.csv"
    path.write_text(filled(exported).replace(column, "other", 1))
    with pytest.raises(InputError, match=f"no column {column}"):
        api.score_reading(exported, [path])


def test_answers_to_other_pictures_score_nobody(exported):
    api.reading(exported.parent / "run", out=exported.parent / "second", per_class=8, seed=1)
    path = exported.parent / "a.csv"
    path.write_text(filled(exported.parent / "second"))
    with pytest.raises(InputError, match=r"a\.csv: its answers are of the reading"):
        api.score_reading(exported, [path])
    path.write_text(filled(exported).replace(table(exported / "key.csv")[0]["reading"], ""))
    with pytest.raises(InputError, match="of no reading"):
        api.score_reading(exported, [path])


def test_half_a_reading_has_a_difference_between_different_patients(exported):
    """As many named pictures on either side or not, of which none is paired with another."""
    key = table(exported / "key.csv")
    names = [row["class"] if row["origin"] == "real" or number % 3 == 0 else "" for number, row in enumerate(key)]
    (one,) = api.score_reading(exported, [answered(exported, "half.csv", [3] * len(key), names)])
    real, synthetic, change = one.findings
    assert real.n > synthetic.n > 0
    assert (change.value, change.n) == (0, real.n + synthetic.n)
    assert change.low == pytest.approx(-(1 - synthetic.low))
    assert change.high == pytest.approx(1 - real.low)


def test_a_name_that_no_finding_has_is_told_and_counts_as_wrong(exported):
    count = len(table(exported / "key.csv"))
    (one,) = api.score_reading(exported, [answered(exported, "a.csv", [3] * count, ["il", "-"] * (count // 2))])
    assert one.notes == (f"counted as wrong, since no finding is called so: il ({count // 2})",)
    assert one.findings[0].n + one.findings[1].n == count // 2


def test_readers_whose_files_are_called_the_same_are_told_apart(exported):
    count = len(table(exported / "key.csv"))
    paths = [answered(exported, f"{name}/answers.csv", [3] * count) for name in ("ann", "bob")]
    assert [one.reader for one in api.score_reading(exported, paths)] == [str(path.with_suffix("")) for path in paths]


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
