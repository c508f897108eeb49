"""Images made anew by a run's own model: real ones with noise up to a level, sampled from there as the run samples."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.data import Labelled
from pipeline import runtime
from pipeline.conditions import Conditions
from pipeline.context import Context
from pipeline.diffusion.guidance import guided
from pipeline.diffusion.noise import StepNoise
from pipeline.generate import average, away_from, check_names, levels_of, sampler_of
from pipeline.images import from_unit
from pipeline.train import load_denoiser
from privacy.copy_report import Regenerate


def regenerator(ctx: Context, device: str) -> Regenerate:
    """How the run's model makes images anew (SDEdit, Meng et al. 2022): x + sigma · noise, then the run's sampler over its levels below.

    Guidance is that of the run, by the images' own condition; a second model to lead away from takes no part.

    Returns:
        A function of real images and a noise level, for images in −1..1, to ``uint8 [n, C, ...]``.
    """
    section = ctx.config.generate
    denoiser, model = load_denoiser(ctx.folder("train"), device)
    if section.ema is not None:
        average(denoiser, ctx.folder("train"), model, section.ema)
    spread, conditions = denoiser.sigma_data, Conditions.of_model(model)
    check_names(section, conditions)

    @torch.inference_mode()
    def regenerate(side: Labelled, sigma: float) -> NDArray[np.uint8]:
        levels = [sigma, *(level for level in levels_of(section, spread) if level < sigma)]
        made = []
        for start in range(0, len(side), section.batch):
            part = side.take(slice(start, start + section.batch))
            seeds = [runtime.derive_seed(ctx.config.seed, "regenerate", start + number) for number in range(len(part))]
            noise = StepNoise(seeds, denoiser.mean.shape, device)
            condition = conditions.of(part).to(device)
            denoise = guided(
                denoiser,
                condition,
                scale=section.guidance_scale,
                interval=(section.guidance_interval[0] * spread, section.guidance_interval[1] * spread),
                negative=away_from(section, conditions, condition),
                alone=[(weight, condition.only(conditions.field(name))) for name, weight in section.weights.items()],
            )
            noisy = torch.from_numpy(part.unit).to(device) + sigma * noise()
            with runtime.autocast(device):
                made.append(sampler_of(section)(denoise, noisy, levels, noise).float().cpu())
        return from_unit(torch.cat(made).numpy())

    return regenerate
