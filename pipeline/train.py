"""The train stage: from the ``train`` split to a denoiser's averaged weights, resumable at its checkpoints."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from pipeline import runtime
from pipeline.artifacts import read_json, write_json
from pipeline.config import TrainConfig
from pipeline.diffusion.objectives import Denoiser
from pipeline.diffusion.training import Recipe, Training
from pipeline.diffusion.unet import UNet
from pipeline.errors import InputError
from pipeline.images import ImageSet, to_unit
from pipeline.stages import Context

CHECKPOINT = "checkpoint/state.safetensors"


def run(ctx: Context) -> dict[str, Any]:
    """Train on ``ingest``'s train split; writes ``model.safetensors``, ``model.json`` and ``metrics.jsonl``."""
    runtime.limit_threads()
    cohort = ImageSet.load(ctx.folder("ingest")).split("train")
    section, device = ctx.config.train, runtime.device()
    mean = to_unit(cohort.images).mean(axis=0, dtype=np.float64).astype(np.float32)
    model = {
        "channels": cohort.images.shape[1],
        "size": cohort.images.shape[2],
        "classes": list(cohort.classes),
        "sigma_data": round(float((to_unit(cohort.images) - mean).std(dtype=np.float64)), 4),
        "network": {key: getattr(section, key) for key in ("widths", "blocks", "patch", "attention", "dropout")},
        "images": section.images,
    }
    torch.manual_seed(runtime.derive_seed(ctx.config.seed, "weights"))
    denoiser = build_denoiser(model, mean).to(device)
    training = Training(
        denoiser,
        torch.from_numpy(np.array(cohort.images)).to(device),
        torch.from_numpy(cohort.labels).to(device),
        recipe(section),
        runtime.derive_seed(ctx.config.seed, "training"),
    )
    state = ctx.out / CHECKPOINT
    if state.exists():
        training.load(load_file(state, device=device))
    metrics = ctx.out / "metrics.jsonl"
    _forget_after(metrics, training.step)
    every = max(1, section.checkpoint_images // section.batch)
    steps = training.recipe.steps
    with ctx.reporter.progress("training images", steps * section.batch) as advance:

        def report(step: int, loss: float) -> None:
            advance(step * section.batch)
            with metrics.open("a") as file:
                file.write(json.dumps({"step": step, "images": step * section.batch, "loss": round(loss, 6)}) + "\n")

        while training.step < steps:
            try:
                training.run(until=(training.step // every + 1) * every, report=report)
            except FloatingPointError as error:
                raise InputError(f"{error}: lower train.learning_rate (now {section.learning_rate})") from None
            _replace(training.state(), state)
    _replace(training.averaged(), ctx.out / "model.safetensors")
    model["parameters"] = sum(p.numel() for p in denoiser.parameters())
    write_json(ctx.out / "model.json", model)
    state.unlink()
    state.parent.rmdir()
    last = json.loads(metrics.read_text().splitlines()[-1])["loss"]
    return {"images_seen": steps * section.batch, "parameters": model["parameters"], "loss": last, "device": device}


def build_denoiser(model: dict[str, Any], mean: np.ndarray | None = None) -> Denoiser:
    """The untrained denoiser that a ``model.json`` describes, around the mean image ``[C, H, W]`` (zero where it will be loaded)."""
    network = UNet(channels=model["channels"], classes=len(model["classes"]), size=model["size"], **model["network"])
    shape = (model["channels"], model["size"], model["size"])
    centre = torch.zeros(shape) if mean is None else torch.from_numpy(mean)
    return Denoiser(network, centre, model["sigma_data"]).to(memory_format=torch.channels_last)


def recipe(section: TrainConfig) -> Recipe:
    """The training recipe of a configuration section."""
    names = ("images", "batch", "learning_rate", "label_dropout", "augment", "balance", "ema", "compile")
    return Recipe(**{name: getattr(section, name) for name in names})


def load_denoiser(folder: Path, device: str) -> tuple[Denoiser, dict[str, Any]]:
    """The trained denoiser of a train stage, in evaluation mode, and its ``model.json``."""
    model = read_json(folder / "model.json")
    denoiser = build_denoiser(model)
    denoiser.load_state_dict(load_file(folder / "model.safetensors"))
    return denoiser.to(device).eval().requires_grad_(False), model


def _replace(tensors: dict[str, torch.Tensor], path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp")
    save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def _forget_after(metrics: Path, step: int) -> None:
    """Drop the lines that a killed attempt wrote after its last checkpoint; they are about to be written again."""
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    kept = []
    for line in lines:
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except json.JSONDecodeError:
            break
    metrics.write_text("".join(line + "\n" for line in kept))
