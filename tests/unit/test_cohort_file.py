"""A cohort's file: which cohort a run is of, cohorts that a run joins, and files that are damaged, written at once or of an old run."""

from __future__ import annotations

import concurrent.futures
import json
import os
import stat
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cohort_runs import files, message, read, settle

from pipeline import artifacts
from pipeline.cohorts import ledger
from pipeline.cohorts.cohort import TORN, Attempt, Cohort
from pipeline.cohorts.key import project_key
from pipeline.errors import InputError


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


def test_a_set_that_passed_by_one_of_two_joined_cohorts_has_passed() -> None:
    tried, passed = Attempt("d", "", "2026-01-01"), Attempt("d", "pass", "2026-01-02", 0.9)
    lower = Attempt("d", "pass", "2026-01-01", 0.85)
    for one, other, recall in ((tried, passed, 0.9), (passed, tried, 0.9), (passed, lower, 0.85), (lower, passed, 0.85)):
        [joined] = Cohort(attempts=(one,)).joined(Cohort(attempts=(other,))).attempts
        assert (joined.verdict, joined.recall) == ("pass", recall)


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
