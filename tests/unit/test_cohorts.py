"""What belongs to a cohort and not to a run: the key, the splits, the count of attempts; wherever the run folder is, whatever is killed."""

from __future__ import annotations

import concurrent.futures
import io
import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dicom_folder
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from release_run import LENIENT, make_context
from rich.console import Console

from pipeline import artifacts
from pipeline.cohorts import ledger
from pipeline.cohorts.cohort import TORN, Attempt, Cohort
from pipeline.cohorts.key import project_key
from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.images import ImageSet
from pipeline.ingest.ledger import SETTLED_TWICE
from pipeline.progress import Reporter
from pipeline.release import stage
from pipeline.stages import run_stages
from privacy import gate, limits


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("cohort-*.json"))


def read(path: Path) -> Cohort:
    """A cohort's file, as a run of it reads it."""
    cohort = Cohort.from_json(path.read_bytes(), project_key(path.parent / "no run"))
    assert cohort is not None
    return cohort


def settle(run: Path, patients: dict[str, str], *attempts: str) -> Cohort:
    with ledger.find(run, patients, ()) as found:
        cohort = found.cohort.with_splits(patients, {})
        for attempt in attempts:
            cohort, _ = cohort.attempted(attempt, "fail")
        found.save(cohort)
    return cohort


def message(error: pytest.ExceptionInfo[InputError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYNTHCOHORT_KEY", raising=False)
    monkeypatch.delenv("SYNTHCOHORT_KEY_FILE", raising=False)


# The key.


@pytest.mark.usefixtures("no_key")
def test_one_key_serves_every_run_folder_and_is_for_its_owner_alone(tmp_path: Path, cohorts: Path) -> None:
    before = os.umask(0)
    try:
        key = project_key(tmp_path / "one")
    finally:
        os.umask(before)
    assert project_key(tmp_path / "two") == key
    assert len(key) >= 32
    assert stat.S_IMODE(cohorts.stat().st_mode) == 0o700
    assert {path.name for path in cohorts.iterdir()} == {"pseudonym.key", ".lock"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in cohorts.iterdir()} == {0o600}
    assert not (tmp_path / "one").exists()


@pytest.mark.usefixtures("no_key")
def test_without_a_word_about_it_the_folder_is_runs_cohorts_of_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYNTHCOHORT_COHORTS")
    monkeypatch.chdir(tmp_path)
    project_key(Path("elsewhere"))
    assert (tmp_path / "runs" / ".cohorts" / "pseudonym.key").is_file()


@pytest.mark.usefixtures("no_key")
def test_a_folder_of_a_team_keeps_its_mode(tmp_path: Path, cohorts: Path) -> None:
    cohorts.mkdir()
    cohorts.chmod(0o770)
    project_key(tmp_path)
    assert stat.S_IMODE(cohorts.stat().st_mode) == 0o770


@pytest.mark.usefixtures("no_key")
def test_a_key_that_is_made_by_many_at_once_is_one(tmp_path: Path) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(project_key, [tmp_path / str(number) for number in range(8)]))) == 1


@pytest.mark.usefixtures("no_key")
@pytest.mark.parametrize("name", ["SYNTHCOHORT_KEY_FILE", "SYNTHCOHORT_COHORTS"])
@pytest.mark.parametrize("content", [b"", b"   \n", b"too short", b"x" * 70_000, None], ids=["empty", "blank", "short", "huge", "a folder"])
def test_a_key_file_that_is_none_is_refused(
    tmp_path: Path, cohorts: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes | None
) -> None:
    path = cohorts / "pseudonym.key"
    cohorts.mkdir()
    path.mkdir() if content is None else path.write_bytes(content)
    if name == "SYNTHCOHORT_KEY_FILE":
        monkeypatch.setenv(name, str(path))
        monkeypatch.setenv("SYNTHCOHORT_COHORTS", str(tmp_path / "others"))
    with pytest.raises(InputError, match=r"the key file pseudonym\.key") as error:
        project_key(tmp_path / "run")
    message(error)


@pytest.mark.usefixtures("no_key")
@pytest.mark.parametrize("where", ["file", "file/below", "link/below", "x" * 300])
def test_a_folder_that_cannot_be_made_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    if where == "link/below":
        (tmp_path / "nowhere").write_text("")
    monkeypatch.setenv("SYNTHCOHORT_COHORTS", str(tmp_path / where))
    with pytest.raises(InputError, match=r"cannot be used .*SYNTHCOHORT_COHORTS") as error:
        project_key(tmp_path / "run")
    message(error)


@pytest.mark.usefixtures("no_key")
def test_a_key_that_is_gone_is_not_made_anew_under_cohorts_that_need_it(tmp_path: Path, cohorts: Path) -> None:
    settle(tmp_path / "run", {"p": "train"})
    (cohorts / "pseudonym.key").unlink()
    with pytest.raises(InputError, match="is missing, and pseudonyms were made under it"):
        project_key(tmp_path / "other")
    assert not (cohorts / "pseudonym.key").exists()


def test_a_cohort_of_another_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(tmp_path / "run", {"p": "train"})
    monkeypatch.setenv("SYNTHCOHORT_KEY", "another key, of the same kind")
    with pytest.raises(InputError, match="another key of the pseudonyms"):
        settle(tmp_path / "run", {"q": "train"})


def test_a_run_of_another_key_is_refused_wherever_it_was_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = pictures(tmp_path / "in")
    ingest(root, tmp_path / "run")
    shutil.move(tmp_path / "run", tmp_path / "moved")
    assert ingest(root, tmp_path / "moved") is not None
    monkeypatch.setenv("SYNTHCOHORT_KEY", "another key, of the same kind")
    with pytest.raises(InputError, match="moved was ingested under another key") as error:
        ingest(root, tmp_path / "moved")
    message(error)
    monkeypatch.delenv("SYNTHCOHORT_KEY")
    monkeypatch.setenv("SYNTHCOHORT_COHORTS", str(tmp_path / "empty"))
    with pytest.raises(InputError, match=r"pseudonym\.key is missing"):
        ingest(root, tmp_path / "moved")


# Which cohort it is.


def test_one_patient_in_common_makes_one_cohort_and_none_makes_another(tmp_path: Path, cohorts: Path) -> None:
    settle(tmp_path / "a", {"p1": "train", "p2": "test"})
    assert settle(tmp_path / "b", {"p2": "train", "p3": "audit"}).patients == {"p1": "train", "p2": "test", "p3": "audit"}
    settle(tmp_path / "c", {"q": "val"})
    assert len(files(cohorts)) == 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in files(cohorts)} == {0o600}


def test_images_find_a_cohort_whose_patients_are_called_otherwise(tmp_path: Path, cohorts: Path) -> None:
    with ledger.find(tmp_path, ["p"], ["i"]) as found:
        found.save(found.cohort.with_splits({"p": "audit"}, {"i": "audit"}))
    with ledger.find(tmp_path, ["renamed"], ["i", "another"]) as found:
        assert found.cohort.patients == {"p": "audit"}
    with ledger.find(tmp_path, ["i"], ["p"]) as found:  # a patient is no image
        assert found.cohort == Cohort()


def test_cohorts_that_a_run_joins_add_up_and_who_was_in_two_splits_is_in_none(tmp_path: Path, cohorts: Path) -> None:
    settle(tmp_path / "a", {"p1": "train", "p2": "val"}, "set 1", "set 2")
    first = files(cohorts)[0].read_bytes()
    files(cohorts)[0].rename(tmp_path / "away")
    settle(tmp_path / "b", {"p2": "audit", "p3": "test"}, "set 2", "set 3")
    (cohorts / "cohort-copied.json").write_bytes(first)
    joined = settle(tmp_path / "c", {"p3": "train", "p1": "train"}, "set 4")
    assert joined.patients == {"p1": "train", "p2": TORN, "p3": "test"}
    assert sorted(attempt.generated for attempt in joined.attempts) == ["set 1", "set 2", "set 3", "set 4"]
    assert len(files(cohorts)) == 1


def test_the_same_set_judged_again_keeps_its_number(tmp_path: Path) -> None:
    cohort = settle(tmp_path, {"p": "train"}, "set 1", "set 2", "set 1")
    assert [attempt.generated for attempt in cohort.attempts] == ["set 1", "set 2"]
    assert cohort.attempted("set 1", "pass")[1] == 1
    assert cohort.attempted("set 1")[0].attempts[0].verdict == "fail"
    assert cohort.attempted("set 3")[1] == 3


def test_runs_of_one_cohort_side_by_side_lose_nothing(tmp_path: Path, cohorts: Path) -> None:
    def one(number: int) -> None:
        settle(tmp_path / str(number), {"shared": "train", f"p{number}": "test"}, f"set {number}")

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(24)))
    cohort = read(files(cohorts)[0])
    assert len(files(cohorts)) == 1
    assert len(cohort.patients) == 25
    assert len(cohort.attempts) == 24


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_run_that_dies_while_it_writes_leaves_what_was(tmp_path: Path, cohorts: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    settle(tmp_path, {"p": "train"}, "set 1")
    before = {path.name: path.read_bytes() for path in cohorts.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(os, call, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            settle(tmp_path, {"p": "train"}, "set 2")
    assert {path.name: path.read_bytes() for path in cohorts.iterdir()} == before
    assert len(settle(tmp_path, {"p": "train"}, "set 2").attempts) == 2


def test_a_run_that_dies_while_it_joins_cohorts_joins_them_the_next_time(
    tmp_path: Path, cohorts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(tmp_path, {"p": "train"}, "set 1")
    settle(tmp_path, {"q": "test"}, "set 2")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            settle(tmp_path, {"p": "train", "q": "test"}, "set 3")
    cohort = settle(tmp_path, {"p": "train", "q": "test"}, "set 3")
    assert cohort.patients == {"p": "train", "q": "test"}
    assert len(cohort.attempts) == 3
    assert len(files(cohorts)) == 1


WHOLE = json.loads(Cohort({"p": "train"}, {"i": "val"}, (Attempt("d", "fail", "2026-01-01"),)).to_json(b"k"))
DAMAGES: dict[str, Any] = {
    "empty": b"",
    "half": json.dumps(WHOLE).encode()[:40],
    "binary": bytes(range(256)),
    "not UTF-8": json.dumps(WHOLE).encode().replace(b"train", b"tr\xffin"),
    "deep": b"[" * 100_000,
    "a list": [],
    "a number": 7,
    "null": None,
    "no patients": {name: WHOLE[name] for name in ("key", "images", "attempts")},
    "no attempts": {name: WHOLE[name] for name in ("key", "patients", "images")},
    "no key": {**WHOLE, "key": None},
    "patients in a list": {**WHOLE, "patients": ["p"]},
    "another split": {**WHOLE, "patients": {"p": "training"}},
    "a number as split": {**WHOLE, "images": {"i": 1}},
    "a list as split": {**WHOLE, "images": {"i": ["train"]}},
    "an attempt of text": {**WHOLE, "attempts": ["d"]},
    "an attempt without digest": {**WHOLE, "attempts": [{"verdict": "fail", "date": "2026-01-01"}]},
    "an attempt with more": {**WHOLE, "attempts": [{**WHOLE["attempts"][0], "more": ""}]},
    "attempts in a table": {**WHOLE, "attempts": {"d": "fail"}},
    "a text as recall": {**WHOLE, "attempts": [{**WHOLE["attempts"][0], "recall": "0.9"}]},
    "a number as date": {**WHOLE, "attempts": [{**WHOLE["attempts"][0], "date": 20260101}]},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_in_one_line_and_left_alone(tmp_path: Path, cohorts: Path, damage: str) -> None:
    settle(tmp_path, {"p": "train"})
    value = DAMAGES[damage]
    files(cohorts)[0].write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    before = files(cohorts)[0].read_bytes()
    with pytest.raises(InputError, match=r"cohort-\w+\.json in .* is damaged: restore it from a backup") as error:
        settle(tmp_path, {"q": "train"})
    message(error)
    assert files(cohorts)[0].read_bytes() == before


def test_a_folder_instead_of_a_file_is_refused(tmp_path: Path, cohorts: Path) -> None:
    (cohorts / "cohort-0.json").mkdir(parents=True)
    with pytest.raises(InputError, match="is damaged"):
        settle(tmp_path, {"q": "train"})


# What an earlier version left in a run folder.


def old_run(run: Path, key: bytes) -> None:
    run.mkdir()
    (run / "pseudonym.key").write_bytes(key)
    (run / "pseudonym.key").chmod(0o600)
    mark = artifacts.keyed(key, "ledger")[:16]
    shares = {"train": 0.5, "audit": 0.2, "val": 0.1, "test": 0.2}
    artifacts.write_json(run / "splits.json", {"key": mark, "shares": shares, "patients": {"p": "audit"}, "images": ["i"]})
    artifacts.write_json(run / "attempts.json", {"cohort": [{"digest": "set 1", "verdict": "fail", "date": "2025-03-04"}]})


@pytest.mark.usefixtures("no_key")
def test_what_an_old_run_folder_holds_becomes_the_cohorts(tmp_path: Path, cohorts: Path) -> None:
    old_run(tmp_path / "run", b"a key of a run folder, long enough")
    assert project_key(tmp_path / "run") == b"a key of a run folder, long enough"
    cohort = settle(tmp_path / "run", {"p": "train", "q": "test"}, "set 2")
    assert cohort.patients == {"p": "audit", "q": "test"}
    assert [attempt.generated for attempt in cohort.attempts] == ["set 1", "set 2"]
    assert list((tmp_path / "run").iterdir()) == []
    assert settle(tmp_path / "another", {"p": "train"}) == cohort


@pytest.mark.usefixtures("no_key")
def test_of_two_old_runs_with_keys_of_their_own_the_second_is_told(tmp_path: Path) -> None:
    old_run(tmp_path / "one", b"a key of a run folder, long enough")
    old_run(tmp_path / "two", b"a key of another one, long enough")
    project_key(tmp_path / "one")
    with pytest.raises(InputError, match=r"two has a key of its own \(pseudonym.key\)") as error:
        project_key(tmp_path / "two")
    message(error)
    assert (tmp_path / "two" / "pseudonym.key").exists()


@pytest.mark.usefixtures("no_key")
@pytest.mark.parametrize("name", ["splits.json", "attempts.json"])
@pytest.mark.parametrize("content", ["", "[]", "3", '{"a": 1}', '{"key": "k", "patients": {"p": "train"}}'])
def test_a_damaged_ledger_of_an_old_run_is_refused_and_stays(tmp_path: Path, name: str, content: str) -> None:
    old_run(tmp_path / "run", b"a key of a run folder, long enough")
    (tmp_path / "run" / name).write_text(content)
    with pytest.raises(InputError, match=f"{name} in run is damaged") as error:
        settle(tmp_path / "run", {"p": "train"})
    message(error)
    assert (tmp_path / "run" / name).read_text() == content


# Splits, through the ingest.


def pictures(folder: Path, count: int = 40, first: int = 0, fill: str = "{name}/{number:03d}.png") -> Path:
    """Noise of 40 pixels, half of it in each class; a picture is a function of its number."""
    for number in range(first, first + count):
        path = folder / fill.format(name=("a", "b")[number % 2], number=number)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (40, 40), np.uint8)).save(path)
    return folder


def settings(root: Path, **changes: Any) -> Config:
    section = {"source": "pictures", "path": root, "modality": "DX", "classes": ("a", "b"), "burned_in": "declared", "size": 32}
    section |= {name: value for name, value in changes.items() if name != "seed"}
    return Config.model_validate(
        {"name": "t", "seed": changes.get("seed", 0), "ingest": section, "train": {"images": 1}, "generate": {"per_class": 1}}
    )


def ingest(root: Path, run: Path, *, redo: bool = False, **changes: Any) -> pd.DataFrame:
    run_stages(settings(root, **changes), run, Reporter(run.parent / "log.jsonl", Console(quiet=True)), until="ingest", redo=redo)
    return ImageSet.load(run / "ingest").rows.set_index("patient")


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


@pytest.mark.parametrize(("kind", "unit", "known"), [("medmnist", "image", 2), ("dicom", "patient", 2), ("pictures", "image", 0)])
def test_what_an_earlier_version_ingested_is_known_by_identifiers_alone(
    tmp_path: Path, cohorts: Path, kind: str, unit: str, known: int
) -> None:
    artifacts.write_json(tmp_path / "ingest" / "cohort.json", {"unit": unit, "source": {"kind": kind}})
    rows = pd.DataFrame({"id": ["i", "j"], "patient": ["i", "j"], "split": ["train", "audit"]})
    rows.to_parquet(tmp_path / "ingest" / "rows.parquet")
    ledger.restore(tmp_path, stands=False)
    found = [read(path) for path in files(cohorts)]
    assert [dict(cohort.images) for cohort in found] == ([{"i": "train", "j": "audit"}] if known else [])
    assert not any(cohort.patients for cohort in found)


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


def test_patients_of_dicom_files_stay_under_another_size_seed_and_class_list(tmp_path: Path) -> None:
    root = dicom_folder.cohort(tmp_path / "in", 32, images=2)
    changes = {"source": "dicom", "modality": None, "classes": ("normal", "effusion")}
    first = ingest(root, tmp_path / "run", **changes)["split"].groupby(level=0).first()
    for run, further in (("b", {"seed": 4}), ("c", {"size": 16}), ("d", {"classes": ("effusion", "normal")})):
        again = ingest(root, tmp_path / run, **{**changes, **further})["split"].groupby(level=0).first()
        pd.testing.assert_series_equal(again, first)


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


# Attempts.


def test_attempts_are_the_cohorts_whatever_the_run_folder_and_what_was_asked_for(tmp_path: Path, cohorts: Path) -> None:
    ctx = make_context(tmp_path / "run")
    assert ledger.count_attempt(ctx).attempt == 1
    other = make_context(tmp_path / "other")
    assert ledger.count_attempt(other, "fail").attempt == 1, "the same set"
    other.records["generate"]["digest"] = "1" * 64
    other.records["ingest"]["digest"] = "2" * 64
    assert ledger.count_attempt(other, "pass", 0.91) == ledger.Standing(2, None), "none passed before"
    assert ledger.count_attempt(other).attempt == 2
    assert ledger.count_attempt(ctx).attempt == 1
    other.records["generate"]["digest"] = "3" * 64
    assert ledger.count_attempt(other) == ledger.Standing(3, 0.91)
    assert ledger.count_attempt(ctx).earlier_recall is None, "what passed later is no earlier release"
    cohort = read(files(cohorts)[0])
    assert [attempt.verdict for attempt in cohort.attempts] == ["fail", "pass", ""]


def test_drawing_the_power_again_is_another_attempt_and_declaring_something_is_none(tmp_path: Path, cohorts: Path) -> None:
    ctx = make_context(tmp_path / "run")
    assert ledger.count_attempt(ctx).attempt == 1
    ctx.config.__dict__["audit"] = ctx.config.audit.model_copy(update={"planted": 101})
    assert ledger.count_attempt(ctx).attempt == 2
    ctx.config.__dict__["audit"] = ctx.config.audit.model_copy(update={"holdout_random": True})
    assert ledger.count_attempt(ctx).attempt == 2
    ctx.config.__dict__["release"] = ctx.config.release.model_copy(update={"max_copy_rate": 0.001})
    assert ledger.count_attempt(ctx).attempt == 2


def test_the_recall_of_a_set_that_an_earlier_version_passed_is_what_its_gate_asked_for(tmp_path: Path, cohorts: Path) -> None:
    ctx = make_context(tmp_path / "run")
    ledger.count_attempt(ctx, "pass")
    ctx.records["generate"]["digest"] = "1" * 64
    assert ledger.count_attempt(ctx) == ledger.Standing(2, limits.MIN_RECALL)


def test_a_release_tells_its_number_and_nothing_of_the_cohort(tmp_path: Path, cohorts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_COPY_RATE", LENIENT)
    ctx = make_context(tmp_path / "run")
    stage.run(ctx)
    assert artifacts.read_json(ctx.out / "gate.json")["attempt"] == 1
    content = b"".join(path.read_bytes() for path in ctx.out.rglob("*") if path.is_file())
    name = files(cohorts)[0].stem.removeprefix("cohort-")
    cohort, key = read(files(cohorts)[0]), json.loads(files(cohorts)[0].read_bytes())["key"]
    for trace in (name, key, cohorts.name.join("/."), *cohort.patients, *cohort.images):
        assert trace.encode() not in content


def test_a_replication_splits_on_its_own_and_leaves_the_cohort_as_it_is(tmp_path: Path, cohorts: Path) -> None:
    root = pictures(tmp_path / "in")
    first = ingest(root, tmp_path / "run")["split"].sort_index()
    before = files(cohorts)[0].read_bytes()
    own = ingest(root, tmp_path / "other", seed=1, replication=True)["split"].sort_index()
    assert list(own.index) == list(first.index)
    assert not own.equals(first)
    again = ingest(root, tmp_path / "other", seed=2, replication=True, redo=True)["split"].sort_index()
    assert not again.equals(own)
    assert [path.read_bytes() for path in files(cohorts)] == [before]
    pd.testing.assert_series_equal(ingest(root, tmp_path / "other", redo=True, seed=2)["split"].sort_index(), first)


def test_a_replication_is_no_attempt_and_nothing_of_it_is_released(tmp_path: Path, cohorts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_COPY_RATE", LENIENT)
    ctx = make_context(tmp_path / "run")
    ctx.config.__dict__["ingest"] = ctx.config.ingest.model_copy(update={"replication": True})
    summary = stage.run(ctx)
    verdict = artifacts.read_json(ctx.out / "gate.json")
    assert verdict["verdict"] == verdict["images"]["verdict"] == summary["verdict"] == "inconclusive"
    assert verdict["images"]["reasons"][1:] == [gate.REPLICATION]
    assert verdict["weights"]["reasons"][-1] == gate.REPLICATION
    assert verdict["attempt"] is None
    assert {path.name for path in ctx.out.iterdir()} - {artifacts.PARTIAL} == {"gate.json", "report.html"}
    assert files(cohorts) == []
