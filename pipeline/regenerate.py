"""Images made anew by a run's own model: real ones with noise up to a level, sampled from there as the run samples, and of reports."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.data import Labelled
from pipeline import runtime
from pipeline.conditions import TEXT, Conditions
from pipeline.context import Context
from pipeline.denoiser import load_denoiser
from pipeline.diffusion.guidance import guided
from pipeline.diffusion.noise import StepNoise
from pipeline.generate import Sampling, average, away_from, levels_of, load_mixture, sampler_of, starts_on_mixture
from pipeline.images import from_unit
from pipeline.wanted import Wanted, check_names
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
            condition = conditions.met.of(part).to(device)
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


def drawn(ctx: Context, device: str, sides: Sequence[Labelled]) -> list[NDArray[np.uint8]]:
    """What the run's model draws of the reports of images, ``uint8 [n, C, ...]`` a side, as the run samples.

    Nothing else is asked for where an image can have several findings; otherwise its class is, which such a model needs. A second model to
    lead away from takes no part.
    """
    section, trained = ctx.config.generate, ctx.folder("train")
    denoiser, model = load_denoiser(trained, device)
    if section.ema is not None:
        average(denoiser, trained, model, section.ema)
    mixture = load_mixture(trained) if starts_on_mixture(section) else None
    sampling = Sampling(denoiser, model, section, device, None, mixture, sum(map(len, sides)))
    sampling.conditions = sampling.conditions.met  # words as training images were told of them
    made = []
    for number, side in enumerate(sides):
        findings = np.full_like(side.findings, -1) if sampling.conditions.several else side.findings
        seeds = [runtime.derive_seed(ctx.config.seed, "report", number, place) for place in range(len(side))]
        asked = dataclasses.replace(Wanted.of_findings(findings, seeds), asked={TEXT: side.asked[TEXT]})
        starts = range(0, len(side), section.batch)
        made.append(np.concatenate([sampling.make(asked.take(slice(start, start + section.batch))) for start in starts]))
    return made
