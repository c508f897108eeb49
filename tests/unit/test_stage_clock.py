"""The benchmark that times evaluate and stress."""

import pytest
from release_run import config

from pipeline import evaluate, stress
from tests.benchmarks.stage_clock import clock


def test_both_stages_are_timed_on_the_runs_images_and_leave_the_run_as_it_is(tmp_path, monkeypatch):
    run, out, seen = tmp_path / "run", tmp_path / "out", []

    def stage(ctx):
        seen.append((ctx.out, ctx.folder("ingest"), ctx.folder("generate"), ctx.folder("evaluate")))
        return {}

    for module in (evaluate, stress):
        monkeypatch.setattr(module, "run", stage)
    found = clock(config(), run, out)
    given = (run / "ingest", run / "generate", out / "evaluate")
    assert seen == [(out / "evaluate", *given), (out / "stress", *given)]
    assert not run.exists()
    assert {name: list(seconds) for name, seconds in found.items()} == {key: ["wall", "processor"] for key in ("evaluate", "stress")}
    with pytest.raises(FileExistsError):
        clock(config(), run, out)
