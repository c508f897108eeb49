"""The train stage: from the ``train`` split to a denoiser's averaged weights, resumable at its checkpoints."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.data import to_unit
from evaluation.intervals import to_json
from pipeline import resume, runtime, tensors, warm_start
from pipeline.artifacts import damage, read_object, write_json
from pipeline.config import TrainConfig
from pipeline.context import Context
from pipeline.diffusion import mixture
from pipeline.diffusion.conditioning import Condition
from pipeline.diffusion.objectives import Denoiser, precondition
from pipeline.diffusion.schedules import training_levels
from pipeline.diffusion.training import SNAPSHOT_WIDTHS, BatchTooLarge, Recipe, Training
from pipeline.diffusion.validation import Losses, Validation
from pipeline.errors import InputError, Stopped
from pipeline.images import ImageSet
from pipeline.release.figures import summary, train_figures

CHECKPOINT, STATE, SUFFIX = "checkpoint", "state", ".safetensors"
MIXTURE = "mixture.safetensors"
NETWORK = ("widths", "blocks", "patch", "attention", "dropout")
CHUNK = 1024
LEARNS_IN = 200
"""Steps after which a training has learned something, or never will."""
LEARNED = 0.05
"""Share of its target that a network must explain by then; the shipped configurations come to .6 and more."""


def run(ctx: Context) -> dict[str, Any]:
    """Train on ``ingest``'s train split; writes ``model.safetensors``, ``model.json``, ``mixture.safetensors``, ``metrics.jsonl`` and
    ``ema/``.

    The set lives on the device where it takes at most half of the free memory, and streams from the host otherwise. On SIGTERM a checkpoint
    is written before the process ends.

    Raises:
        InputError: a batch that does not fit, a training that diverges, or a warm start from weights that do not fit.
        Stopped: the process was asked to end.
    """
    runtime.limit_threads()
    runtime.reuse_memory()
    everyone = ImageSet.load(ctx.folder("ingest"))
    cohort = everyone.split("train")
    section, device = ctx.config.train, runtime.device()
    assert section is not None
    mean, spread = mean_and_spread(cohort.images)
    model = describe(section, cohort, spread)
    torch.manual_seed(runtime.derive_seed(ctx.config.seed, "weights"))
    denoiser = build_denoiser(model, mean).to(device)
    if section.start_from is not None:
        patients = warm_start.check_patients(section, ctx.run, ctx.folder("ingest"), ctx.records.get("ingest", {}))
        taken = warm_start.start(denoiser, section.start_from, cohort.classes, section.start_classes, section.frozen)
        model["warm_start"] = {"patients": patients, "tensors": f"{taken.tensors} of {taken.of}", "new_classes": list(taken.new_classes)}
    images = np.array(cohort.images) if runtime.fits(cohort.images.nbytes, device) else cohort.images
    training = Training(
        denoiser,
        torch.from_numpy(images).to(device) if images is not cohort.images else images,
        Condition.of_classes(cohort.labels, len(cohort.classes)),
        recipe(section),
        runtime.derive_seed(ctx.config.seed, "training"),
        cohort.duplicates,
    )
    validation = _validation(everyone, cohort, ctx.config.seed)
    _resume(ctx, training)
    loss, losses = _train(ctx, training, validation)
    averaged = training.averaged()
    denoiser.load_state_dict(averaged)
    learned = explained(denoiser, training, runtime.derive_seed(ctx.config.seed, "explained"))
    tensors.write(mixture_of(cohort, runtime.derive_seed(ctx.config.seed, "mixture") % 2**32).state(), ctx.out / MIXTURE)
    tensors.write(averaged, ctx.out / "model.safetensors")
    model["parameters"] = sum(p.numel() for p in denoiser.parameters())
    if validation is not None:
        model["validation"] = to_json((losses or validation(training)).facts())
    write_json(ctx.out / "model.json", model)
    for moment in snapshot_steps(section):
        path = resume.kept(ctx.out / "ema", f"{moment:08d}", SUFFIX)
        assert path is not None
        path.rename(ctx.out / "ema" / f"{moment:08d}{SUFFIX}")
    shutil.rmtree(ctx.out / CHECKPOINT)
    seen, skipped = training.recipe.steps * section.batch, int(training.skipped)
    return {
        "images_seen": seen,
        "parameters": model["parameters"],
        "loss": loss if math.isfinite(loss) else "undefined",
        "explained": round(learned, 3),
        **summary(train_figures(model)),
        "steps_skipped": skipped,
        "device": device,
    }


def _resume(ctx: Context, training: Training) -> None:
    """Go on from the checkpoint of an interrupted attempt; start over where it, or an average stored before it, is damaged."""
    folder = ctx.out / CHECKPOINT
    if not folder.is_dir():
        return
    path, section = resume.kept(folder, STATE, SUFFIX), ctx.config.train
    assert section is not None
    if path is not None:
        state = tensors.read(path, training.device)
        earlier = [moment for moment in snapshot_steps(section) if moment <= int(state["step"])]
        if all(resume.kept(ctx.out / "ema", f"{moment:08d}", SUFFIX) is not None for moment in earlier):
            training.load(state)
            return
    if any(folder.iterdir()):
        ctx.reporter.console.print("  the checkpoint is damaged: training starts over")


def _validation(everyone: ImageSet, cohort: ImageSet, seed: int) -> Validation | None:
    """What is looked at beside training: the half of ``val`` on which lengths may be chosen; None where no two patients make two halves."""
    from pipeline.evaluate import halves, labelled

    val = everyone.split("val")
    if not len(val) or ("patient" in val.rows and val.rows["patient"].nunique() < 2):
        return None
    _, choose = halves(labelled(val), seed)
    return Validation(labelled(cohort), choose, runtime.derive_seed(seed, "validation"))


def _train(ctx: Context, training: Training, validation: Validation | None) -> tuple[float, Losses | None]:
    """From where ``training`` stands to its end, with checkpoints and snapshots; the last loss, and the losses that were looked at last."""
    section, steps = ctx.config.train, training.recipe.steps
    assert section is not None
    every = max(1, section.checkpoint_images // section.batch)
    moments = snapshot_steps(section)
    metrics, seen = ctx.out / "metrics.jsonl", None
    _forget_after(metrics, training.step)
    with ctx.reporter.progress("training images", steps * section.batch) as advance, _sigterm() as stopped:

        def log(step: int, **facts: Any) -> None:
            with metrics.open("a") as file:
                file.write(json.dumps({"step": step, "images": step * section.batch, **facts}) + "\n")

        def report(step: int, loss: float) -> None:
            advance(step * section.batch)
            log(step, loss=round(loss, 6))

        while training.step < steps:
            checkpoint = (training.step // every + 1) * every
            until = min([checkpoint, steps, *(moment for moment in moments if moment > training.step)])
            try:
                training.run(until=until, report=report, stop=stopped)
            except FloatingPointError as error:
                raise InputError(f"{error}: lower train.learning_rate (now {section.learning_rate})") from None
            except BatchTooLarge as error:
                raise InputError(_too_large(error, section)) from None
            if training.step in moments:
                _keep(training.snapshot(), ctx.out / "ema", f"{training.step:08d}")
            if validation is not None and (training.step % every == 0 or training.step == steps):
                seen = validation(training)
                log(training.step, **seen.line())
            _keep(training.state(), ctx.out / CHECKPOINT, STATE)
            if stopped():
                raise Stopped(f"training stopped at image {training.step * section.batch}; its checkpoint is written")
    losses = [line["loss"] for line in map(json.loads, metrics.read_text().splitlines()) if "loss" in line]
    return float(losses[-1]) if losses else math.nan, seen


def _keep(state: Mapping[str, torch.Tensor], folder: Path, stem: str) -> None:
    path = folder / f"unfinished{SUFFIX}"
    tensors.write(state, path)
    resume.keep(path, stem)


@torch.inference_mode()
def explained(denoiser: Denoiser, training: Training, seed: int) -> float:
    """How much of the network's target F it explains, on a batch of training images at the levels trained on.

    1 − error / error of F = 0, which is what a network starts as: 0 for one that has learned nothing, below 0 for one that has gone astray.

    Raises:
        InputError: no more than :data:`LEARNED` after :data:`LEARNS_IN` steps.
    """
    device = training.device
    stored, condition = training.batches.at(training.step)
    few = slice(training.recipe.batch // training.recipe.accumulate)
    images, condition = training.batches.to_unit(stored[few]), condition.take(few)
    generator = torch.Generator(device=device).manual_seed(seed)
    sigma = training_levels(training.recipe.noise_schedule, len(images), denoiser.sigma_data, generator, device)
    level = sigma.reshape(-1, *[1] * (images.ndim - 1))
    noisy = images + level * torch.randn(images.shape, generator=generator, device=device)
    k = precondition(denoiser.objective, level, denoiser.sigma_data)
    denoiser.eval()
    with runtime.autocast(device):
        answers = denoiser(noisy, sigma, condition), denoiser.mean + k.c_skip * (noisy - denoiser.mean)
    error, nothing = (float(((answer - images) / k.c_out).square().mean(dtype=torch.float64)) for answer in answers)
    share = 1 - error / nothing
    if training.step >= LEARNS_IN and not share > LEARNED:
        raise InputError(
            f"after {training.step} steps the network predicts no better than one that never learned (it explains {share:.0%} of its "
            "target): try another train.batch or a lower train.learning_rate, and on a GPU train.compile=false"
        )
    return share


def snapshot_steps(section: TrainConfig) -> list[int]:
    """The steps after which ``ema_snapshots`` are stored, the last of them the end."""
    steps, count = recipe(section).steps, section.ema_snapshots
    return sorted({-(-steps * number // count) for number in range(1, count + 1)})


def describe(section: TrainConfig, cohort: ImageSet, spread: float) -> dict[str, Any]:
    """``model.json``: what :func:`build_denoiser` needs, and what a user of the weights must know."""
    return {
        "shape": list(cohort.images.shape[1:]),
        "classes": list(cohort.classes),
        "sigma_data": round(spread, 4),
        "backbone": section.backbone,
        "objective": section.objective,
        "noise_schedule": section.noise_schedule,
        "network": {key: getattr(section, key) for key in NETWORK},
        "checkpointing": section.checkpointing,
        "upsample": section.upsample,
        "images": section.images,
        "steps": recipe(section).steps,
        "ema": {"widths": list(SNAPSHOT_WIDTHS), "steps": snapshot_steps(section)},
    }


def build_denoiser(model: dict[str, Any], mean: np.ndarray | None = None) -> Denoiser:
    """The untrained denoiser that a ``model.json`` describes, around the mean image ``[C, ...]`` (zero where it will be loaded)."""
    channels, *sides = model["shape"]
    layout: dict[str, Any] = {"channels": channels, "classes": len(model["classes"]), "size": max(sides), "dims": len(sides)}
    if model["backbone"] == "monai":
        from pipeline.diffusion.monai_unet import MonaiUNet

        network: torch.nn.Module = MonaiUNet(**layout, **model["network"], noise_schedule=model["noise_schedule"])
    else:
        from pipeline.diffusion.unet import UNet

        more = {"checkpointing": model["checkpointing"], "upsample": model.get("upsample", "convolve")}
        network = UNet(**layout, **model["network"], **more)
    centre = torch.zeros(model["shape"]) if mean is None else torch.from_numpy(mean)
    denoiser = Denoiser(network, centre, model["sigma_data"], model["objective"])
    return denoiser.to(memory_format=torch.channels_last if len(sides) == 2 else torch.channels_last_3d)


def recipe(section: TrainConfig) -> Recipe:
    """The training recipe of a configuration section."""
    names = (
        "images",
        "batch",
        "accumulate",
        "learning_rate",
        "plateau",
        "decay",
        "label_dropout",
        "augment",
        "balance",
        "noise_schedule",
        "ema",
    )
    return Recipe(**{name: getattr(section, name) for name in names}, snapshots=section.ema_snapshots, compile=section.compile)


def load_denoiser(folder: Path, device: str) -> tuple[Denoiser, dict[str, Any]]:
    """The trained denoiser of a train stage, in evaluation mode, and its ``model.json``.

    Raises:
        InputError: a file is missing or damaged, or the weights are not of the network that ``model.json`` describes.
    """
    model, weights = read_object(folder / "model.json"), tensors.read(folder / "model.safetensors")
    try:
        if not _describes(model, weights):
            raise ValueError("not the network of these weights")
        denoiser = build_denoiser(model)
        denoiser.load_state_dict(weights)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, AssertionError, ArithmeticError) as error:
        raise InputError(damage(folder.name, "model.json")) from error
    return denoiser.to(device).eval().requires_grad_(False), model


def _describes(model: dict[str, Any], weights: Mapping[str, torch.Tensor]) -> bool:
    """Whether a ``model.json`` may describe the network of these weights: no larger one is built only to find that it does not."""
    network, classes, widths = model["network"], model["classes"], model["network"]["widths"]
    # Each level has as many convolutions of 3 x 3 as blocks, at the least.
    smallest = 9 * network["blocks"] * sum(width**2 for width in widths)
    return (
        smallest <= sum(value.numel() for value in weights.values())
        and len(widths) * network["blocks"] <= len(weights)
        and len(classes) < max(len(value) for value in weights.values() if value.ndim)
        and all(isinstance(name, str) for name in classes)
        and network["patch"] in (1, 2, 4)
        and model["shape"] == list(weights["mean"].shape)
        and 0 < float(model["sigma_data"]) < math.inf
    )


def mean_and_spread(images: NDArray[Any]) -> tuple[NDArray[np.float32], float]:
    """Mean image ``float32 [C, ...]`` in −1..1, and the standard deviation of the images about it, in two passes by chunks."""
    chunks = [slice(start, start + CHUNK) for start in range(0, len(images), CHUNK)]
    total = sum(to_unit(images[chunk]).sum(axis=0, dtype=np.float64) for chunk in chunks)
    mean = np.asarray(total / len(images), np.float32)
    squares = sum(float(np.square(to_unit(images[chunk]) - mean).sum(dtype=np.float64)) for chunk in chunks)
    return mean, float(np.sqrt(squares / images.size))


def mixture_of(cohort: ImageSet, seed: int) -> mixture.Mixture:
    """The Gaussians of a set's images, on which sampling may start."""
    chosen = mixture.few(len(cohort), math.prod(cohort.images.shape[1:]), seed)
    return mixture.fit(to_unit(cohort.images[chosen]), cohort.labels[chosen], len(cohort.classes), seed)


def _too_large(error: BatchTooLarge, section: TrainConfig) -> str:
    if error.fits == 0:
        return "not even one image fits into memory: set train.checkpointing=true, a smaller train.widths, or train.patch=4"
    parts = next(count for count in range(1, section.batch + 1) if section.batch % count == 0 and section.batch // count <= error.fits)
    return (
        f"train.batch={section.batch} does not fit into memory: the largest that does is {error.fits * section.accumulate} with "
        f"train.accumulate={section.accumulate}; or keep it and set train.accumulate={parts}, or train.checkpointing=true"
    )


@contextlib.contextmanager
def _sigterm() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM has come since; what it would have done is done again afterwards."""
    came = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield lambda: came
    finally:
        signal.signal(signal.SIGTERM, before)


def _forget_after(metrics: Path, step: int) -> None:
    """Drop the lines that a killed attempt wrote after its last checkpoint, and what is damaged; they are about to be written again."""
    lines = metrics.read_text(errors="replace").splitlines() if metrics.is_file() else []
    kept = []
    for line in lines:
        try:
            if json.loads(line)["step"] > step or not math.isfinite(json.loads(line).get("loss", 0)):
                continue
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            break
        kept.append(line)
    metrics.write_text("".join(line + "\n" for line in kept))
