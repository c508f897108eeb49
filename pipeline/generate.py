"""The generate stage: the same number of images of every class, one seed an image."""

from __future__ import annotations

import functools
import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import ranks, resume, runtime, tensors
from pipeline.artifacts import damage, read_object
from pipeline.compilation import compiled
from pipeline.conditions import Conditions
from pipeline.config import GenerateConfig
from pipeline.context import Context
from pipeline.denoiser import greys, load_denoiser
from pipeline.diffusion import ema
from pipeline.diffusion.conditioning import PRESENT, Condition
from pipeline.diffusion.guidance import guided
from pipeline.diffusion.mixture import Mixture
from pipeline.diffusion.noise import StepNoise
from pipeline.diffusion.objectives import Denoiser
from pipeline.diffusion.samplers import SAMPLERS, Sampler, ddim
from pipeline.diffusion.schedules import RANGE, sampling_levels
from pipeline.errors import InputError
from pipeline.images import FINDING, ImageSet
from pipeline.ranks import Report, Share
from pipeline.train import MIXTURE
from pipeline.wanted import Wanted, check_names, wanted
from pipeline.warm_start import TAKE, began_from, trained_on, weights_file

Replay = Callable[[Condition, Tensor, Condition | None], Tensor]
WORTH = 4e8
"""Pixels times steps from which sampling is compiled. An estimate that nobody measured: some twenty seconds without it on one H100, of
which it may save half, for about ten that compiling takes. What is asked for decides, never a clock or the ranks: the last bits of an image
hang on it."""


def run(ctx: Context) -> dict[str, Any]:
    """Generate ``per_class`` images of each class from ``train``'s weights; resumable by batches, of which every rank makes a share."""
    import pandas as pd

    section, conditions = ctx.config.generate, Conditions.of_model(read_object(ctx.folder("train") / "model.json"))
    asked = wanted(ctx.config, conditions)
    parts = ctx.out / "partial"
    parts.mkdir(exist_ok=True)
    if section.autoguidance is not None:
        _check_guide(section.autoguidance, ctx.folder("train"), ctx.records.get("train", {}))
    with ctx.reporter.progress("generating images", len(asked)) as advance:
        ranks.together(make_parts, section, ctx.folder("train"), parts, asked, report=advance)
    images = collected(parts, section, len(asked))
    rows = pd.DataFrame(
        {
            "id": [f"synthetic-{number:06d}" for number in range(len(asked))],
            **{FINDING + name: asked.findings[:, place] for place, name in enumerate(conditions.classes)},
            **asked.columns,
            "seed": np.array(asked.seeds, dtype=np.int64),
            "guidance": np.float32(section.guidance_scale),
        }
    )
    ImageSet(images, rows).save(ctx.out)
    shutil.rmtree(parts)
    return {"images": len(asked), "per_class": section.per_class or "as planned", "sampler": section.sampler, "steps": section.steps}


def make_parts(share: Share, section: GenerateConfig, trained: Path, parts: Path, asked: Wanted, *, report: Report) -> None:
    """Make a rank's share of the batches, and keep each in ``parts`` (:mod:`pipeline.resume`); those that are there and whole stand.

    Args:
        share: which batches.
        section: how images are sampled.
        trained: the train stage's folder.
        parts: an existing folder.
        asked: the images of all batches.
        report: told how many images all ranks have made, taking the others to be as fast as this one.

    Raises:
        InputError: as :class:`Sampling`, :func:`average` and :func:`load_guide`.
    """
    runtime.limit_threads()
    device = runtime.device()
    denoiser, model = load_denoiser(trained, device)
    if section.ema is not None:
        average(denoiser, trained, model, section.ema)
    guide = None if section.autoguidance is None else load_guide(section.autoguidance, denoiser, model, device)
    mixture = load_mixture(trained) if starts_on_mixture(section) else None
    sampling = Sampling(denoiser, model, section, device, guide, mixture, len(asked))
    starts = range(0, len(asked), section.batch)
    for done, number in enumerate(share.places(len(starts)), start=1):
        if _part(parts, starts[number]) is None:
            made = sampling.make(asked.take(slice(starts[number], starts[number] + section.batch)))
            unfinished = parts / f"unfinished-{starts[number]:07d}.npy"
            np.save(unfinished, made, allow_pickle=False)
            resume.keep(unfinished, f"{starts[number]:07d}")
        report(min(len(asked), share.of * done * section.batch))


def collected(parts: Path, section: GenerateConfig, count: int) -> NDArray[np.uint8]:
    """The images ``[count, C, ...]`` of all batches. Raises InputError where one is not there, or not whole."""
    paths = [_part(parts, start) for start in range(0, count, section.batch)]
    if not all(paths):
        raise InputError("generate: images of a batch were changed while others were made: the same command makes them again")
    return np.concatenate([np.load(path, allow_pickle=False) for path in paths if path])


def _part(parts: Path, start: int) -> Path | None:
    """The images from number ``start`` on, where they are made and whole."""
    return resume.kept(parts, f"{start:07d}", ".npy")


class Sampling:
    """The configured sampling of a trained denoiser: conditions and seeds to images, ``uint8 [n, C, ...]``, of greys that its training
    images hold.

    Image i is a function of its condition and its seed alone. What else is in the batch, and in which order, changes how a library's
    kernels round sums, and so may move a pixel by one grey level (in 1 of about 10⁴ pixels in float32; in bfloat16 in 1 of 50 on a CPU,
    and on a GPU by a few levels); batches of equal size give the same bits wherever an image stands in them on a CPU.

    Args:
        denoiser: on its device, in evaluation mode.
        model: its ``model.json``.
        section: sampler, levels and guidance.
        device: where it is.
        guide: the model to lead away from (autoguidance).
        mixture: of the training images, where sampling starts on it (:func:`starts_on_mixture`).
        count: how many images will be asked for in all, which may be too few to compile for; enough where None.

    Raises:
        InputError: as :func:`pipeline.wanted.check_names`.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        model: dict[str, Any],
        section: GenerateConfig,
        device: str,
        guide: Denoiser | None = None,
        mixture: Mixture | None = None,
        count: int | None = None,
    ) -> None:
        self.denoiser, self.section, self.device = denoiser, section, device
        self.mixture = None if mixture is None else mixture.to(device)
        self.lowest, self.highest = greys(model)
        self.conditions = Conditions.of_model(model)
        check_names(section, self.conditions)
        work = math.inf if count is None else section.steps * count * math.prod(denoiser.mean.shape[1:])
        self.compiled = section.compile and device == "cuda" and work >= WORTH

        def ready(one: Denoiser) -> Callable[..., Any]:
            return compiled(one, one.network) if self.compiled else one

        self.networks = ready(denoiser), None if guide is None else ready(guide)
        self.graphs: dict[tuple[int, bool], Replay] = {}

    def start_on(self, mixture: Mixture) -> None:
        """Start on other images' mixture from now on: what is compiled serves on, and is captured anew."""
        self.mixture = mixture.to(self.device)
        self.graphs.clear()

    def make(self, asked: Wanted) -> NDArray[np.uint8]:
        """The images that are asked for."""
        return self(self.conditions.of(asked), asked.seeds, asked.away(self.conditions))

    @torch.inference_mode()
    def __call__(self, condition: Condition, seeds: Sequence[int], away: Condition | None = None) -> NDArray[np.uint8]:
        """Images of n conditions from as many seeds, led away from as many others (by default, from ``negative_class`` or nothing)."""
        away = away_from(self.section, self.conditions, condition) if away is None else away
        inputs = condition.to(self.device), torch.tensor(seeds).to(self.device), None if away is None else away.to(self.device)
        if not self.compiled:
            return np.asarray(self._sample(*inputs).cpu().numpy())
        # A last, smaller batch is filled up: nothing is compiled and captured for it alone.
        led = away is not None
        size = next((known for known, other in self.graphs if known > len(seeds) and other == led), len(seeds))
        rows = torch.arange(size, device=self.device) % len(seeds)
        filled = inputs[0].take(rows), inputs[1][rows], None if inputs[2] is None else inputs[2].take(rows)
        if (size, led) not in self.graphs:
            self.graphs[size, led] = self._captured(*filled)
        return np.asarray(self.graphs[size, led](*filled)[: len(seeds)].cpu().numpy())

    def _sample(self, condition: Condition, seeds: Tensor, away: Condition | None) -> Tensor:
        """Work of the device alone, from start to end."""
        section, spread = self.section, self.denoiser.sigma_data
        noise = StepNoise(seeds, self.denoiser.mean.shape, self.device)
        levels = levels_of(section, spread)
        denoise = guided(
            self.networks[0],
            condition,
            scale=section.guidance_scale,
            interval=(section.guidance_interval[0] * spread, section.guidance_interval[1] * spread),
            negative=away,
            alone=[(weight, condition.only(self.conditions.field(name))) for name, weight in section.weights.items()],
            guide=self.networks[1],
        )
        first = noise()
        if self.mixture is None:
            x = self.denoiser.mean + levels[0] * first
        else:
            x = self.mixture.noisy(first, self.mixture.parts(condition.classes, noise.uniform()), levels[0])
        with runtime.autocast(self.device):
            images = sampler_of(section)(denoise, x, levels, noise)
        # As pipeline.images.from_unit, on the device: a quarter of the bytes leave it. A grey that no training image holds is the
        # network's error or guidance's excess, and gives images away (static thresholding, Saharia et al. 2022, arXiv:2205.11487, 2.3).
        return ((images.float() + 1) * 127.5).round().clamp(self.lowest, self.highest).to(torch.uint8)

    def _captured(self, condition: Condition, seeds: Tensor, away: Condition | None) -> Replay:
        """The whole sampling of one batch size as a CUDA graph: no step of it waits to be launched."""
        inputs = condition.clone(), seeds.clone(), None if away is None else away.clone()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._sample(*inputs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            images = self._sample(*inputs)

        def replay(condition: Condition, seeds: Tensor, away: Condition | None) -> Tensor:
            inputs[0].copy_(condition)
            inputs[1].copy_(seeds)
            if inputs[2] is not None and away is not None:
                inputs[2].copy_(away)
            graph.replay()
            return images

        return replay


def levels_of(section: GenerateConfig, spread: float) -> list[float]:
    """The noise levels that a configuration visits, for data of standard deviation ``spread``."""
    lowest, highest = (bound * spread for bound in section.levels)
    return sampling_levels(section.noise_schedule, section.steps, spread, highest, lowest)


def starts_on_mixture(section: GenerateConfig) -> bool:
    """Whether the first level is low enough for the images to be told from noise there."""
    return section.levels[1] < RANGE[1]


def sampler_of(section: GenerateConfig) -> Sampler:
    """The sampler that a configuration names."""
    return functools.partial(ddim, eta=section.eta) if section.sampler == "ddim" else SAMPLERS[section.sampler]


def away_from(section: GenerateConfig, conditions: Conditions, condition: Condition) -> Condition | None:
    """The class to lead away from, as often as there are rows of ``condition``; None where there is none. Names are checked already."""
    if section.negative_class is None:
        return None
    code = PRESENT if conditions.several else conditions.classes.index(section.negative_class)
    return condition.only(conditions.field(section.negative_class), code)


def _check_guide(given: Path, trained: Path, record: Mapping[str, Any]) -> None:
    """Raise InputError where a guide was trained on other images than the model: the audit, and so the gate, would not know of them."""
    path, name = weights_file(given), "generate.autoguidance"
    if trained_on(path.parent, name, path) != record.get("identity", {}).get("inputs", {}).get("ingest"):
        raise InputError(f"{name}: its model was trained on another ingest than this run's, whose patients the audit does not know: {TAKE}")
    if began_from(path.parent) not in (None, began_from(trained)):
        raise InputError(f"{name}: its training began from weights of whose patients this run's audit does not know: {TAKE}")


def load_guide(given: Path, denoiser: Denoiser, model: dict[str, Any], device: str) -> Denoiser:
    """The denoiser of another run's train folder. Raises InputError where there is none, or it makes other images or classes."""
    folder = weights_file(given).parent
    if not (folder / "model.json").is_file() or not (folder / "model.safetensors").is_file():
        raise InputError(f"generate.autoguidance: {folder} holds no trained model: give the train folder of a finished run")
    guide, its = load_denoiser(folder, device)
    if Conditions.of_model(its) != Conditions.of_model(model) or guide.mean.shape != denoiser.mean.shape:
        raise InputError(f"generate.autoguidance: the model in {folder} has other classes or another image size than this run's")
    return guide


def load_mixture(folder: Path) -> Mixture:
    """The Gaussians of the training images, of a train folder. Raises InputError where they are missing or damaged."""
    try:
        return Mixture(**tensors.read(folder / MIXTURE))
    except TypeError as error:
        raise InputError(damage(folder.name, MIXTURE)) from error


def average(denoiser: Denoiser, folder: Path, model: dict[str, Any], width: float) -> None:
    """Give the denoiser the average of ``width`` over all of training, solved from the averages that ``train`` stored.

    ``folder/ema/<step>.safetensors`` hold tensors named ``<width>/<parameter>``; ``model["ema"]`` names the ``steps`` and ``widths``.

    Raises:
        InputError: nothing is stored, or for another network.
    """
    kept = model.get("ema", {"steps": [], "widths": []})
    paths = {step: folder / "ema" / f"{step:08d}.safetensors" for step in kept["steps"]}
    if not paths or not all(path.is_file() for path in paths.values()):
        raise InputError("generate.ema: training stored no averages of its weights to solve this width from: leave it out")
    if unknown := use_average(denoiser, model, width, map(tensors.read, paths.values())):
        raise InputError(f"{folder / 'ema'} holds averages of another network: {unknown} is none of its parameters")


def use_average(denoiser: Denoiser, model: dict[str, Any], width: float, snapshots: Iterable[Mapping[str, Tensor]]) -> str | None:
    """As :func:`average`, from what was stored at each of the model's ``ema`` steps; the name of what is none of its parameters."""
    kept = model["ema"]
    stored = [ema.Profile(step, each) for step in kept["steps"] for each in kept["widths"]]
    weights = ema.solve(stored, ema.Profile(model["steps"], width))
    averages = (by_width[each] for by_width in map(_by_width, snapshots) for each in kept["widths"])
    return next(iter(denoiser.load_state_dict(ema.combine(weights, averages), strict=False).unexpected_keys), None)


def _by_width(snapshot: Mapping[str, Tensor]) -> dict[float, dict[str, Tensor]]:
    found: dict[float, dict[str, Tensor]] = {}
    for name, value in snapshot.items():
        width, _, parameter = name.partition("/")
        found.setdefault(float(width), {})[parameter] = value
    return found
