"""What the tests of a cohort share: its files, and pictures that are ingested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from pipeline.cohorts import ledger
from pipeline.cohorts.cohort import Cohort
from pipeline.cohorts.key import project_key
from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.images import ImageSet
from pipeline.progress import Reporter
from pipeline.runner import run_stages


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
