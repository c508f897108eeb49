"""Trainings of seconds: a cohort of noise, and runs whose ingest or train stage is finished."""

import dataclasses
import functools
import signal
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline import artifacts, train
from pipeline.config import Config
from pipeline.context import Context
from pipeline.diffusion.training import Training
from pipeline.errors import Stopped
from pipeline.images import ImageSet, finding_columns
from pipeline.progress import Reporter

SMALL = {
    "images": 320,
    "batch": 16,
    "widths": [16, 32],
    "blocks": 1,
    "attention": [],
    "augment": 0.0,
    "dropout": 0.0,
    "checkpoint_images": 64,
}


def cohort(classes: tuple[str, ...] = ("healthy", "ill"), side: int = 16, seed: int = 0) -> ImageSet:
    rng = np.random.default_rng(seed)
    labels = np.arange(60) % len(classes)
    images = np.clip(60 * labels[:, None, None, None] + rng.integers(0, 60, (60, 1, side, side)), 0, 255).astype(np.uint8)
    split = np.repeat(["train", "audit", "val", "test"], 15)
    rows = {"id": [f"i{n}" for n in range(60)], "patient": [f"p{n}" for n in range(60)], "split": split}
    return ImageSet(images, pd.DataFrame(rows | finding_columns(labels, classes)))


def context(run: Path, images: ImageSet | None = None, stage: str = "train", **settings: object) -> Context:
    config = Config.model_validate(
        {
            "name": "small",
            "ingest": {"source": "phantom"},
            "train": SMALL | (settings if stage == "train" else {}),
            "generate": {"per_class": 3, "steps": 4} | (settings if stage == "generate" else {}),
        }
    )
    if images is not None:
        images.save(run / "ingest")
    (run / stage).mkdir(parents=True, exist_ok=True)
    return Context(config, run, run / stage, Reporter(run / "log.jsonl"), {})


def finished(run: Path, key: str = "one", unit: str = "patient", dataset: str = "", seed: int = 0, widths: tuple[int, ...] = (16,)) -> Path:
    """A run whose ingest and train are finished, with their records, from patients under a project key."""
    ctx = later(run, cohort(seed=seed), key, unit, dataset)
    put_trained(ctx, seed, widths)
    artifacts.publish(ctx.out, {"stage": "train", "inputs": {"ingest": ctx.records["ingest"]["digest"]}})
    return run


def put_trained(ctx: Context, seed: int = 0, widths: tuple[int, ...] = (16,)) -> None:
    """Write what the train stage makes of :func:`cohort`: the same whatever is said of its patients."""
    for name, content in _trained(seed, widths).items():
        (ctx.out / name).write_bytes(content)


@functools.cache
def _trained(seed: int, widths: tuple[int, ...]) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        ctx = context(Path(folder), cohort(seed=seed), widths=list(widths))
        train.run(ctx)
        return {path.name: path.read_bytes() for path in ctx.out.iterdir()}


def later(run: Path, images: ImageSet, key: str = "one", unit: str = "patient", dataset: str = "", **settings: object) -> Context:
    """The train stage of a run whose ingest is finished."""
    ctx = context(run, images, **settings)
    facts = {"classes": [], "unit": unit, "key_mark": artifacts.key_mark(key.encode()), "source": {"dataset": dataset}}
    artifacts.write_json(run / "ingest" / "cohort.json", facts)
    return dataclasses.replace(ctx, records={"ingest": artifacts.publish(run / "ingest", {"stage": "ingest"})})


def renamed(images: ImageSet, **columns: object) -> ImageSet:
    return ImageSet(images.images, images.rows.assign(**columns))


def stopped_in_the_middle(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> str:
    """Train until somebody asks to stop, before the seventh step of twenty; what is said then."""
    right = Training._take_step

    def step(self: Training) -> torch.Tensor:
        if self.step == 6:
            signal.raise_signal(signal.SIGTERM)
        return right(self)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_take_step", step)
        with pytest.raises(Stopped) as stopped:
            train.run(ctx)
    return str(stopped.value)


def spoiled(path: Path, place: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 4
    path.write_bytes(data)
