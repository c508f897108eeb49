"""The train stage: from the ``train`` split to a denoiser's averaged weights, resumable at its checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.data import Labelled, to_unit
from evaluation.intervals import to_json
from pipeline import fit_recipe, resume, runtime, tensors, warm_start, word_features
from pipeline.artifacts import read_object, write_json
from pipeline.conditions import LEAST_PATIENTS, Conditions
from pipeline.config import TrainConfig
from pipeline.config.section import AUTO
from pipeline.context import Context
from pipeline.denoiser import build_denoiser
from pipeline.diffusion import mixture
from pipeline.diffusion.objectives import Denoiser
from pipeline.diffusion.training import SNAPSHOT_WIDTHS, BatchTooLarge, Recipe, Training
from pipeline.diffusion.validation import Losses, Validation, explained
from pipeline.errors import InputError, Stopped
from pipeline.fit_recipe import Course
from pipeline.images import ImageSet
from pipeline.ingest.split import kept_together
from pipeline.release.figures import summary, train_figures
from pipeline.wanted import wanted

CHECKPOINT, STATE, SUFFIX = "checkpoint", "state", ".safetensors"
MIXTURE, METRICS = "mixture.safetensors", "metrics.jsonl"
NETWORK = ("widths", "blocks", "patch", "attention", "dropout")
CHUNK = 1024


def run(ctx: Context) -> dict[str, Any]:
    """Train on ``ingest``'s train split; writes ``model.safetensors``, ``model.json``, ``recipe.json``, ``mixture.safetensors``,
    ``metrics.jsonl`` and ``ema/``.

    The set lives on the device where it takes at most half of the free memory, and streams from the host otherwise. On SIGTERM a checkpoint
    is written before the process ends.

    Raises:
        InputError: a batch that does not fit, a training that diverges, a warm start from weights that do not fit, too few patients in
            ``val`` to choose a length on, or ``generate`` asks for what the model will not know.
        Stopped: the process was asked to end.
    """
    runtime.limit_threads()
    runtime.reuse_memory()
    everyone = ImageSet.load(ctx.folder("ingest"))
    cohort, asked, device = everyone.split("train"), ctx.config.train, runtime.device()
    assert asked is not None
    conditions = Conditions.learned(
        cohort,
        cohort.classes,
        kept_together(cohort.rows),
        several=ctx.config.ingest.multi_label,
        names=asked.attributes,
        text=asked.text,
        features=word_features.width(ctx.folder("ingest")),
    )
    _tell_what_is_made(ctx, conditions)
    validation = _validation(everyone, cohort, conditions, ctx.config.seed)
    if validation is None and asked.images == AUTO:
        raise InputError(
            "train.images=auto chooses the length on train and half of val, and needs two patients in each: add patients, raise "
            "ingest.val_share, or give a number"
        )
    statistics = mean_and_spread(cohort.images)
    told = word_features.of(ctx.folder("ingest"), conditions.words) if conditions.features else None
    state, found = _resumed(ctx, device) or (None, fit_recipe.fit(asked, cohort, device))
    if state is None and asked.minutes is not None:
        section = fit_recipe.settled(asked, found)
        with _told(section):
            probe = fit_recipe.timed(_begun(ctx, cohort, conditions, section, told, statistics)[0])
        found = fit_recipe.fit(asked, cohort, device, probe)
    section = fit_recipe.settled(asked, found)
    training, model, remembers = _begun(ctx, cohort, conditions, section, told, statistics)
    if state is not None:
        training.load(state)
    course = None
    if validation is not None and asked.images == AUTO:
        first = fit_recipe.first_look(cohort, section)
        course = Course(validation, section.batch, first, training.recipe.steps, remembers=remembers)
        course.load(state or {})
    write_json(ctx.out / fit_recipe.FILE, found)
    ctx = dataclasses.replace(ctx, config=ctx.config.model_copy(update={"train": section}))
    step = training.step
    loss, losses, seconds = _train(ctx, training, validation, course, fit_recipe.mark(found))
    if "probe" in found and (why := fit_recipe.late(found, (training.step - step) * section.batch, seconds)):
        ctx.reporter.note(why)
    return _finish(ctx, training, cohort, model, found, course, loss, losses or (validation(training) if validation else None))


def _tell_what_is_made(ctx: Context, conditions: Conditions) -> None:
    """Raise InputError for what cannot be asked for before the training, not after it; tell which findings nearly nobody has."""
    made = wanted(ctx.config, conditions)
    few = np.array(conditions.classes)[(made.findings[made.unseen] == 1).any(axis=0)].tolist()
    if few and not ctx.config.generate.plan:
        ctx.reporter.note(
            f"fewer than {LEAST_PATIENTS} training patients have {', '.join(few)}: images of it are made all the same, and marked unseen; "
            f"leave it out of ingest.classes, or say in generate.plan what else is made"
        )


def _begun(
    ctx: Context,
    cohort: ImageSet,
    conditions: Conditions,
    section: TrainConfig,
    told: Tensor | None,
    statistics: tuple[NDArray[np.float32], float],
) -> tuple[Training, dict[str, Any], bool]:
    """A training that has taken no step yet, its ``model.json``, and whether its weights have seen images of ``train`` before."""
    mean, spread = statistics
    model = describe(section, cohort, spread, conditions)
    if not model["sigma_data"]:
        raise InputError("train: all images of the train split are one picture, of which nothing can be learned: give other images")
    torch.manual_seed(runtime.derive_seed(ctx.config.seed, "weights"))
    denoiser, remembers = build_denoiser(model, mean, told).to(runtime.device()), False
    if section.start_from is not None:
        record = ctx.records.get("ingest", {})
        patients = warm_start.check_patients(section, ctx.run, ctx.folder("ingest"), record)
        remembers = warm_start.saw_train(section.start_from, patients, record)
        taken = warm_start.start(denoiser, section.start_from, conditions, section.start_classes, section.frozen)
        model["warm_start"] = {"patients": patients, "tensors": f"{taken.tensors} of {taken.of}", "new_classes": list(taken.new_classes)}
    return _training(denoiser, cohort, conditions, section, runtime.derive_seed(ctx.config.seed, "training")), model, remembers


def _training(denoiser: Denoiser, cohort: ImageSet, conditions: Conditions, section: TrainConfig, seed: int) -> Training:
    """The training of a settled section, which has taken no step yet."""
    device = denoiser.mean.device.type
    images = np.array(cohort.images) if runtime.fits(cohort.images.nbytes, device) else cohort.images
    return Training(
        denoiser,
        torch.from_numpy(images).to(device) if images is not cohort.images else images,
        conditions.met.of(cohort),
        recipe(section),
        seed,
        cohort.duplicates,
    )


def _finish(
    ctx: Context,
    training: Training,
    cohort: ImageSet,
    model: dict[str, Any],
    found: dict[str, Any],
    course: Course | None,
    loss: float,
    losses: Losses | None,
) -> dict[str, Any]:
    """Write what a training that has ended leaves, the recipe first; the stage's summary."""
    section, denoiser, device = ctx.config.train, training.denoiser, training.device
    assert section is not None
    step = training.step if course is None else course.steps
    averaged = training.averaged() if course is None else course.kept
    found["curve"] = fit_recipe.curve(ctx.out / METRICS)
    why = found["reasons"].get("images", "as configured") if course is None else course.why(found["reasons"]["images"])
    found["chosen"] = {"images": step * section.batch, "why": why}
    write_json(ctx.out / fit_recipe.FILE, found)
    denoiser.load_state_dict(averaged)
    learned = explained(training, step, runtime.derive_seed(ctx.config.seed, "explained"))
    found_mixture = mixture_of(cohort, Conditions.of_model(model), runtime.derive_seed(ctx.config.seed, "mixture") % 2**32)
    tensors.write(found_mixture.state(), ctx.out / MIXTURE)
    tensors.write(averaged, ctx.out / "model.safetensors")
    model |= {"images": step * section.batch, "steps": step}
    model |= {"ema": {"widths": list(SNAPSHOT_WIDTHS), "steps": snapshot_steps(section)}}
    model["parameters"] = sum(p.numel() for p in denoiser.parameters())
    if losses is not None:
        model["validation"] = to_json(losses.facts())
    write_json(ctx.out / "model.json", model)
    for moment in snapshot_steps(section):
        path = resume.kept(ctx.out / "ema", f"{moment:08d}", SUFFIX)
        assert path is not None
        path.rename(ctx.out / "ema" / f"{moment:08d}{SUFFIX}")
    shutil.rmtree(ctx.out / CHECKPOINT)
    return {
        "images_seen": step * section.batch,
        "parameters": model["parameters"],
        "loss": loss if math.isfinite(loss) else "undefined",
        "explained": round(learned, 3),
        **summary(train_figures(model)),
        "steps_skipped": int(training.skipped),
        "device": device,
    }


def _resumed(ctx: Context, device: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """The checkpoint of an interrupted attempt and the recipe that it was made under; None where one of them, or an average stored before
    it, is damaged or not there, so that training starts over."""
    folder, asked = ctx.out / CHECKPOINT, ctx.config.train
    if not folder.is_dir():
        return None
    assert asked is not None
    path = resume.kept(folder, STATE, SUFFIX)
    # Its digest is right: what goes wrong in reading it (a Ctrl-C of which the library makes its own error) must not cost the checkpoint.
    state = tensors.read(path, device) if path is not None else {}
    with contextlib.suppress(InputError):  # damaged
        found = read_object(ctx.out / fit_recipe.FILE)
        if "recipe" in state and torch.equal(state["recipe"].cpu(), fit_recipe.mark(found)):
            steps = snapshot_steps(fit_recipe.settled(asked, found))
            earlier = [moment for moment in steps if moment <= int(state["step"])]
            if all(resume.kept(ctx.out / "ema", f"{moment:08d}", SUFFIX) is not None for moment in earlier):
                return state, fit_recipe.begun(found)
    if any(folder.iterdir()):
        ctx.reporter.console.print("  the checkpoint, or recipe.json beside it, is damaged or was changed: training starts over")
    return None


def _validation(everyone: ImageSet, cohort: ImageSet, conditions: Conditions, seed: int) -> Validation | None:
    """What is looked at beside training: the half of ``val`` on which lengths may be chosen; None where too few patients are looked at."""
    from pipeline.evaluate import halves, labelled

    train, val = (dataclasses.replace(labelled(part), attributes={"twins": part.duplicates}) for part in (cohort, everyone.split("val")))
    if len(np.unique(val.groups)) < 2:
        return None
    seen, choose = (_distinct(side) for side in (train, halves(val, seed)[1]))
    validation = Validation(seen, choose, runtime.derive_seed(seed, "validation"), conditions.met.of)
    return validation if validation.patients > 1 else None  # the spread of one is not known


def _distinct(side: Labelled) -> Labelled:
    """One of each group of near-duplicates, which counts as one image as in training, and all that have no twin."""
    twins = side.attributes["twins"]
    named = np.where(twins < 0, -1 - np.arange(len(twins)), twins)
    return side.take(np.sort(np.unique(named, return_index=True)[1]))


def _train(
    ctx: Context, training: Training, validation: Validation | None, course: Course | None, mark: torch.Tensor
) -> tuple[float, Losses | None, float]:
    """From where ``training`` stands to its end, with checkpoints and snapshots; the last loss, the losses of what is kept, and the seconds
    that steps took.

    ``course`` looks at its moments, and may end the training before its recipe does; without it, ``validation`` looks at every checkpoint.
    """
    section, steps = ctx.config.train, training.recipe.steps
    assert section is not None
    every = max(1, section.checkpoint_images // section.batch)
    averages = snapshot_steps(section)
    moments = [*averages, *(course.moments if course is not None else ())]
    metrics, seen, seconds = ctx.out / METRICS, None, 0.0
    resume.forget_after(metrics, training.step)
    with ctx.reporter.progress("training images", steps * section.batch) as advance, resume.asked_to_end() as stopped:

        def log(step: int, **facts: Any) -> None:
            with metrics.open("a") as file:
                file.write(json.dumps({"step": step, "images": step * section.batch, **facts}) + "\n")

        def report(step: int, loss: float) -> None:
            advance(step * section.batch)
            log(step, loss=round(loss, 6))

        while training.step < steps and not (course is not None and course.over):
            checkpoint = (training.step // every + 1) * every
            until = min([checkpoint, steps, *(moment for moment in moments if moment > training.step)])
            began = time.monotonic()
            with _told(section):
                training.run(until=until, report=report, stop=stopped)
            seconds += time.monotonic() - began
            if training.step in averages:
                _keep(training.snapshot(), ctx.out / "ema", f"{training.step:08d}")
            if course is not None and training.step in course.moments:
                log(training.step, **course.look(training))
            elif course is None and validation is not None and (training.step % every == 0 or training.step == steps):
                seen = validation(training)
                log(training.step, **seen.line())
            state = training.state() | {"recipe": mark} | (course.state() if course is not None else {})
            _keep(state, ctx.out / CHECKPOINT, STATE)
            if stopped():
                raise Stopped(f"training stopped at image {training.step * section.batch}; its checkpoint is written")
    losses = [line["loss"] for line in map(json.loads, metrics.read_text().splitlines()) if "loss" in line]
    return float(losses[-1]) if losses else math.nan, seen if course is None else course.looked[course.chosen], seconds


@contextlib.contextmanager
def _told(section: TrainConfig) -> Iterator[None]:
    """What goes wrong in a training as one line that says which setting to change."""
    try:
        yield
    except FloatingPointError as error:
        raise InputError(f"{error}: lower train.learning_rate (now {section.learning_rate})") from None
    except BatchTooLarge as error:
        raise InputError(_too_large(error, section)) from None


def _keep(state: Mapping[str, torch.Tensor], folder: Path, stem: str) -> None:
    path = folder / f"unfinished{SUFFIX}"
    tensors.write(state, path)
    resume.keep(path, stem)


def snapshot_steps(section: TrainConfig) -> list[int]:
    """The steps after which ``ema_snapshots`` are stored, the last of them the end."""
    steps, count = recipe(section).steps, section.ema_snapshots
    return sorted({-(-steps * number // count) for number in range(1, count + 1)})


def describe(section: TrainConfig, cohort: ImageSet, spread: float, conditions: Conditions | None = None) -> dict[str, Any]:
    """``model.json``: what :func:`~pipeline.denoiser.build_denoiser` needs and a user of the weights must know; one class by default."""
    asked = conditions or Conditions(cohort.classes)
    return {
        "shape": list(cohort.images.shape[1:]),
        "classes": list(cohort.classes),
        "conditions": asked.to_model(),
        **({"fields_read": True} if asked.words and section.backbone == "unet" else {}),
        "sigma_data": round(spread, 4),
        "greys": [int(cohort.images.min()), int(cohort.images.max())],
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


def mean_and_spread(images: NDArray[Any]) -> tuple[NDArray[np.float32], float]:
    """Mean image ``float32 [C, ...]`` in −1..1, and the standard deviation of the images about it, in two passes by chunks."""
    chunks = [slice(start, start + CHUNK) for start in range(0, len(images), CHUNK)]
    total = sum(to_unit(images[chunk]).sum(axis=0, dtype=np.float64) for chunk in chunks)
    mean = np.asarray(total / len(images), np.float32)
    squares = sum(float(np.square(to_unit(images[chunk]) - mean).sum(dtype=np.float64)) for chunk in chunks)
    return mean, float(np.sqrt(squares / images.size))


def mixture_of(cohort: ImageSet, conditions: Conditions, seed: int) -> mixture.Mixture:
    """The Gaussians of a set's images, on which sampling may start: of each class, or of all where an image can have several findings."""
    chosen = mixture.few(len(cohort), math.prod(cohort.images.shape[1:]), seed)
    labels = conditions.of(cohort).classes.numpy()[chosen]
    return mixture.fit(to_unit(cohort.images[chosen]), labels, 1 if conditions.several else len(cohort.classes), seed)


def _too_large(error: BatchTooLarge, section: TrainConfig) -> str:
    if error.fits == 0:
        return "not even one image fits into memory: set train.checkpointing=true, a smaller train.widths, or train.patch=4"
    parts = next(count for count in range(1, section.batch + 1) if section.batch % count == 0 and section.batch // count <= error.fits)
    return (
        f"train.batch={section.batch} does not fit into memory: the largest that does is {error.fits * section.accumulate} with "
        f"train.accumulate={section.accumulate}; or keep it and set train.accumulate={parts}, or train.checkpointing=true"
    )
