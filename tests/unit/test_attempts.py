"""Attempts belong to the cohort: counted wherever the run folder is; a replication is none."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from cohort_runs import files, ingest, pictures, read
from release_run import LENIENT, make_context

from pipeline import artifacts
from pipeline.cohorts import ledger
from pipeline.release import stage
from privacy import bounds, gate, limits


def test_attempts_are_the_cohorts_whatever_the_run_folder_and_what_was_asked_for(tmp_path: Path, cohorts: Path) -> None:
    ctx = make_context(tmp_path / "run")
    assert ledger.count_attempt(ctx).attempt == 1
    other = make_context(tmp_path / "other")
    assert ledger.count_attempt(other, "fail").attempt == 1, "the same set"
    other.records["generate"]["digest"] = "1" * 64
    other.records["ingest"]["digest"] = "2" * 64
    assert ledger.count_attempt(other, "pass", 0.91) == ledger.Standing(2), "none passed before"
    assert ledger.count_attempt(other).attempt == 2
    assert ledger.count_attempt(ctx).attempt == 1
    other.records["generate"]["digest"] = "3" * 64
    assert ledger.count_attempt(other) == ledger.Standing(3, 0.91, 2)
    assert ledger.count_attempt(ctx) == ledger.Standing(1, 0.91, 2), "what is out is out, whichever was judged first"
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


def test_a_foreign_set_is_tried_again_under_another_seed_and_with_other_real_images(tmp_path: Path, cohorts: Path) -> None:
    """Its images follow from neither, so that their digest tells of no second draw of the planted copies, or of who calibrates."""
    ctx = make_context(tmp_path / "run")
    facts = artifacts.read_object(tmp_path / "run" / "ingest" / "cohort.json")
    artifacts.write_json(tmp_path / "run" / "ingest" / "cohort.json", facts | {"foreign": True})
    ctx.config.__dict__["generate"] = ctx.config.generate.model_copy(update={"import_from": tmp_path})
    ctx.config.__dict__["train"] = None
    assert [ledger.count_attempt(ctx).attempt for _ in range(2)] == [1, 1]
    ctx.config.__dict__["seed"] = 1
    assert [ledger.count_attempt(ctx).attempt for _ in range(2)] == [2, 2]
    ctx.records["ingest"]["files"]["rows.parquet"] = "2" * 64
    assert ledger.count_attempt(ctx).attempt == 3, "another holdout, or other shares of it"
    ctx.records["ingest"]["files"]["cohort.json"] = "2" * 64
    ctx.config.__dict__["audit"] = ctx.config.audit.model_copy(update={"holdout_random": True})
    assert ledger.count_attempt(ctx).attempt == 3, "what is said of them draws nothing"


def test_the_recall_of_a_set_that_an_earlier_version_passed_is_what_its_gate_asked_for(tmp_path: Path, cohorts: Path) -> None:
    ctx = make_context(tmp_path / "run")
    ledger.count_attempt(ctx, "pass")
    ctx.records["generate"]["digest"] = "1" * 64
    assert ledger.count_attempt(ctx) == ledger.Standing(2, limits.MIN_RECALL, 1)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)])
def test_the_last_release_of_a_cohort_bounds_all_of_them_alike_in_every_order(tmp_path: Path, cohorts: Path, order: list[int]) -> None:
    """The lowest recall of any, with the error of the highest attempt: who comes last is refused, or not, whoever it is."""
    ctx, recalls = make_context(tmp_path / "run"), (0.82, 0.95, 0.9)

    def count(place: int, verdict: str = "") -> ledger.Standing:
        ctx.records["generate"]["digest"] = str(place) * 64
        return ledger.count_attempt(ctx, verdict, recalls[place] if verdict else None)

    assert [count(place).attempt for place in range(3)] == [1, 2, 3]
    for place in order[:-1]:
        count(place, "pass")
    last = count(order[-1])
    error, earlier = 1 - limits.confidence(last.attempt or 1), (last.earlier_recall, last.earlier_attempt)
    found = gate.copy_bounds(0, 1500, 1500, recalls[order[-1]], earlier, error)["exposed"]
    assert found == bounds.exposed_upper(0, 1500, 0.82, 0.05 / 12 / 2) == 3
    assert gate.copy_bounds(0, 1500, 1500, recalls[order[-1]], (None, None), error)["exposed"] < 3


def test_a_set_that_passed_stays_out_whatever_is_found_of_it_later(tmp_path: Path, cohorts: Path) -> None:
    ctx = make_context(tmp_path / "run")
    for verdict, recall in (("pass", 0.9), ("inconclusive", None), ("pass", 0.93)):
        ledger.count_attempt(ctx, verdict, recall)
    ctx.records["generate"]["digest"] = "1" * 64
    assert ledger.count_attempt(ctx) == ledger.Standing(2, 0.9, 1)


def test_a_verdict_that_was_reached_before_another_set_passed_is_not_settled(tmp_path: Path, cohorts: Path) -> None:
    ctx, other = make_context(tmp_path / "run"), make_context(tmp_path / "other")
    other.records["generate"]["digest"] = "1" * 64
    since = ledger.count_attempt(ctx)
    ledger.count_attempt(other, "pass", 0.85)
    assert ledger.count_attempt(ctx, "pass", 0.9, since=since) == ledger.Standing(1, 0.85, 2)
    assert [attempt.verdict for attempt in read(files(cohorts)[0]).attempts] == ["", "pass"]


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
    assert verdict["images"]["reasons"][1:-1] == [gate.REPLICATION]
    assert verdict["weights"]["reasons"][-1] == gate.REPLICATION
    assert verdict["attempt"] is None
    assert {path.name for path in ctx.out.iterdir()} - {artifacts.PARTIAL} == {"gate.json", "report.html"}
    assert files(cohorts) == []
