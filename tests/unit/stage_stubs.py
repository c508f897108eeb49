"""Stages that take no time, for the tests of what decides which of them run: each writes what it was given, and counts its calls."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline import runner, stages
from pipeline.config import Config
from pipeline.context import Context
from pipeline.errors import InputError
from pipeline.progress import Reporter
from pipeline.release.stage import seal


def stub(ctx: Context) -> dict[str, Any]:
    """Two files made of the stage's inputs and settings; ``release.contact: broken`` makes the last stage fail."""
    name = ctx.out.name
    with (ctx.run / "calls.txt").open("a") as file:
        file.write(f"{name}\n")
    needed = {stage: (ctx.folder(stage) / "result.json").read_text() for stage in ctx.records}
    section = getattr(ctx.config, name).model_dump(mode="json", exclude={"path", "start_from", "autoguidance", "sign"})
    (ctx.out / "parts").mkdir(exist_ok=True)
    (ctx.out / "parts" / "one.bin").write_bytes(os.urandom(8) if ctx.config.name == "random" else name.encode())
    if name == "release" and ctx.config.release.contact == "broken":
        raise InputError("a typo in a setting")
    (ctx.out / "result.json").write_text(json.dumps({"section": section, "needed": sorted(needed.values())}, sort_keys=True))
    if name == "release":
        (ctx.out / "gate.json").write_text(json.dumps({"verdict": "pass", "images": {"verdict": "pass"}}))
        seal(ctx.out, ctx.config.release.sign)
    return {"files": 2}


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipeline with :func:`stub` for every stage."""
    replaced = tuple(dataclasses.replace(stage, function="stage_stubs:stub") for stage in stages.STAGES)
    monkeypatch.setattr(stages, "STAGES", replaced)


def config(**sections: dict[str, Any]) -> Config:
    base: dict[str, Any] = {"ingest": {"source": "phantom"}, "train": {"images": 100}, "generate": {"per_class": 5}}
    given = {name: base.get(name, {}) | sections.pop(name) for name in list(sections) if isinstance(sections[name], dict)}
    return Config.model_validate({"name": "stubs"} | base | given | sections)


def run(settings: Config, folder: Path, **options: Any) -> list[str]:
    """Run; the names of the stages that ran."""
    calls = folder / "calls.txt"
    before = calls.read_text().split() if calls.exists() else []
    runner.run_stages(settings, folder, Reporter(folder / "log.jsonl", Console(quiet=True)), **options)
    return (calls.read_text().split() if calls.exists() else [])[len(before) :]


def tree(folder: Path) -> dict[str, bytes | str | None]:
    """Everything below a folder, with its content; links are not followed."""
    found: dict[str, bytes | str | None] = {}
    for above, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(above, name)
            content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
            found[str(path.relative_to(folder))] = content
    return found
