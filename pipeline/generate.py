"""The generate stage: the same number of images of every class, one seed an image."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pipeline import runtime
from pipeline.config import GenerateConfig
from pipeline.diffusion.guidance import guided
from pipeline.diffusion.objectives import Denoiser
from pipeline.diffusion.samplers import dpmpp_2m, starting_noise
from pipeline.diffusion.schedules import RANGE, karras_sigmas
from pipeline.images import ImageSet, finding_columns, from_unit
from pipeline.stages import Context
from pipeline.train import load_denoiser


def run(ctx: Context) -> dict[str, Any]:
    """Generate ``per_class`` images of each class from ``train``'s weights; resumable by batches."""
    import pandas as pd

    runtime.limit_threads()
    section, device = ctx.config.generate, runtime.device()
    denoiser, model = load_denoiser(ctx.folder("train"), device)
    classes = model["classes"]
    # Classes take turns, so that any leading part of the set is balanced too.
    labels = np.tile(np.arange(len(classes)), section.per_class)
    seeds = [runtime.derive_seed(ctx.config.seed, "image", number) for number in range(len(labels))]
    parts = ctx.out / "partial"
    parts.mkdir(exist_ok=True)
    images = []
    with ctx.reporter.progress("generating images", len(labels)) as advance:
        for start in range(0, len(labels), section.batch):
            part = parts / f"{start:07d}.npy"
            if not part.exists():
                chosen = slice(start, start + section.batch)
                made = sample(denoiser, model, labels[chosen], seeds[chosen], section, device)
                temporary = part.with_suffix(".tmp")
                with temporary.open("wb") as file:
                    np.save(file, made, allow_pickle=False)
                temporary.replace(part)
            images.append(np.load(part, allow_pickle=False))
            advance(min(start + section.batch, len(labels)))
    rows = pd.DataFrame(
        {
            "id": [f"synthetic-{number:06d}" for number in range(len(labels))],
            **finding_columns(labels, classes),
            "seed": np.array(seeds, dtype=np.int64),
            "guidance": np.float32(section.guidance_scale),
        }
    )
    ImageSet(np.concatenate(images), rows).save(ctx.out)
    for part in parts.iterdir():
        part.unlink()
    parts.rmdir()
    return {"images": len(labels), "per_class": section.per_class, "steps": section.steps}


@torch.inference_mode()
def sample(
    denoiser: Denoiser, model: dict[str, Any], labels: np.ndarray, seeds: list[int], section: GenerateConfig, device: str
) -> np.ndarray:
    """Images of the given classes from the given seeds: ``uint8 [n, C, H, W]``; image i depends on labels[i] and seeds[i] alone."""
    condition = torch.from_numpy(np.asarray(labels, dtype=np.int64)).to(device)
    noise = starting_noise(seeds, (model["channels"], model["size"], model["size"]), device)
    interval = (section.guidance_interval[0] * denoiser.sigma_data, section.guidance_interval[1] * denoiser.sigma_data)
    with runtime.autocast(device):
        denoise = guided(denoiser, condition, null=len(model["classes"]), scale=section.guidance_scale, interval=interval)
        levels = karras_sigmas(section.steps, *(bound * denoiser.sigma_data for bound in RANGE)).tolist()
        images = dpmpp_2m(denoise, denoiser.mean + levels[0] * noise, levels)
    return from_unit(images.float().cpu().numpy())
