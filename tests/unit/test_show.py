"""What a person reads in the terminal about a run, finished or not."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from release_run import decide, make_context
from rich.console import Console

from pipeline import artifacts
from pipeline.errors import InputError
from pipeline.show import show


def text(run: Path) -> str:
    stream = io.StringIO()
    show(run, Console(file=stream, width=150))
    return stream.getvalue()


@pytest.mark.parametrize("verdict", ["pass", "fail", "inconclusive"])
def test_finished_run_shows_verdict_reasons_figures_and_where_to_look(tmp_path: Path, verdict: str) -> None:
    ctx = make_context(tmp_path / "run")
    artifacts.write_json(ctx.out / "gate.json", decide(verdict) | {"attempt": 2})
    (ctx.out / "report.html").write_text("report")
    artifacts.publish(ctx.out, {"stage": "release"}, summary={"verdict": verdict}, seconds=1.0)
    shown = text(ctx.run)
    assert f"images: {verdict}" in shown
    assert "attempt 2 of this cohort" in shown
    assert "report.html" in shown
    assert "JPEG of quality 15" in shown
    assert "0.941 (0.921 to 0.961)" in shown
    assert "bias field, severity 5" in shown
    assert "not judged" in shown
    assert ("300 sealed patients are needed" in shown) == (verdict == "inconclusive")


def test_partial_run_shows_what_is_there(tmp_path: Path) -> None:
    ctx = make_context(tmp_path / "run")
    shutil.rmtree(ctx.out)
    shutil.rmtree(ctx.run / "stress")
    (ctx.run / "evaluate" / "record.json").unlink()
    shown = text(ctx.run)
    assert "not finished" in shown
    assert "to do" in shown
    assert "unfinished" in shown
    assert "share of images flagged" in shown
    assert "Fréchet" not in shown, "figures of an unfinished stage are not shown"


def test_volumes_are_not_sent_to_stages_that_refuse_them(tmp_path: Path) -> None:
    ctx = make_context(tmp_path / "run")
    cohort = artifacts.read_object(ctx.run / "ingest" / "cohort.json")
    for name in ("train", "generate", "audit", "evaluate", "stress", "release"):
        shutil.rmtree(ctx.run / name, ignore_errors=True)
    assert "without --until" in text(ctx.run)
    artifacts.write_json(ctx.run / "ingest" / "cohort.json", cohort | {"dimensions": 3})
    artifacts.publish(ctx.run / "ingest", {"stage": "ingest"}, summary={}, seconds=1.0)
    shown = text(ctx.run)
    assert "take 2-D, 8-bit images" in shown
    assert "without --until" not in shown


def test_folder_that_is_no_run_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run folder"):
        text(tmp_path)


def test_no_bound_of_another_confidence_is_called_a_95_percent_interval(tmp_path: Path) -> None:
    """The checks' bounds of copies and recall hold at the confidence of their attempt, and are told apart from the figures' intervals."""
    ctx = make_context(tmp_path / "run")
    artifacts.write_json(ctx.out / "gate.json", decide("pass"))
    (ctx.out / "report.html").write_text("report")
    artifacts.publish(ctx.out, {"stage": "release"}, summary={}, seconds=1.0)
    heads = [line for line in text(ctx.run).splitlines() if "threshold" in line and "verdict" in line]
    assert heads
    assert all("95%" not in head for head in heads)
