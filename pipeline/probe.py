"""What a run costs on this machine: each stage does its own work for a moment, on made-up images of the run's own shape, and is scaled.

Nothing of anybody's is learned or kept: files are read to time the reading alone, and the images that are trained on are noise.
"""

from __future__ import annotations

import functools
import math
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from evaluation.arms import DEFAULT, FULL
from evaluation.data import Labelled
from evaluation.panel import FOLDS
from evaluation.training import Task
from evaluation.training import train as train_classifiers
from pipeline import fit_recipe, probe_search, runtime
from pipeline.conditions import KNOTS, TEXT, Attribute, Conditions
from pipeline.denoiser import build_denoiser
from pipeline.diffusion.training import BatchTooLarge, Training
from pipeline.errors import InputError
from pipeline.generate import Sampling
from pipeline.images import ImageSet, finding_columns
from pipeline.ingest import source
from pipeline.ingest.cohort import reader, target
from pipeline.ingest.isolate import isolated
from pipeline.ingest.labels import OneClass
from pipeline.ingest.tasks import Task as Files
from pipeline.ingest.work import Settings, work
from pipeline.train import describe, recipe
from privacy.copy_report import searched
from privacy.density import BLOCK
from privacy.power import REGENERATED

if TYPE_CHECKING:
    from pipeline.config import Config, IngestConfig

SECONDS = 2.0
"""For how long each kind of work is done, or once where that takes longer."""
FILES = 64
"""Files that are read, at the most."""
STARTED = 8
"""Files after which the workers are taken to have started."""
WORDS = 24
"""Words of a report, of those that are read."""
ROW = 1024
"""Bytes of a row, of a record or of a small report, roughly."""


@dataclass(frozen=True)
class Size:
    """What a cohort will be.

    Attributes:
        images: in each split.
        channels: of an image.
        classes: their number.
    """

    images: Mapping[str, int]
    channels: int
    classes: int


@dataclass(frozen=True)
class Cost:
    """What a stage takes.

    Attributes:
        stage: its name.
        seconds: wall time.
        memory: bytes, at the peak of the process; of the GPU where the stage computes there.
        disk: bytes that it leaves in the run folder.
        at_most: whether it may end sooner, as trainings do at their plateau.
    """

    stage: str
    seconds: float
    memory: int
    disk: int
    at_most: bool = False


def expected(config: Config, facts: Mapping[str, Any] | None, images: int | None, classes: int | None) -> Size:
    """The size of a run's cohort.

    Args:
        config: the run.
        facts: those of ``cohort.json``, where its ingest is finished.
        images: how many there are, where it is not.
        classes: their number.

    Raises:
        InputError: neither says how many images there are.
    """
    ingest = config.ingest
    if facts is not None:
        counts = {name: sum(row.values()) for name, row in facts["counts"].items()}
        return Size(counts, int(facts["channels"]), len(facts["classes"]))
    channels = 3 if ingest.colour else 1
    if ingest.source == "medmnist":
        from pipeline.ingest.readers.medmnist import information

        entry = information(str(ingest.dataset))
        channels, classes = int(entry["n_channels"]), len(entry["label"])
        images = sum(entry["n_samples"].values()) if images is None else images
    if images is None or classes is None:
        raise InputError("how many images there are is not known before ingest: run it with --until ingest, then plan --probe")
    pooled = images * (1 - ingest.val_share - ingest.test_share)
    shares = {"train": pooled * (1 - ingest.audit_share), "audit": pooled * ingest.audit_share}
    shares |= {"val": images * ingest.val_share, "test": images * ingest.test_share}
    return Size({name: max(1, round(share)) for name, share in shares.items()}, channels, classes)


def probe(config: Config, size: Size, done: Callable[[int], None] = lambda _: None) -> list[Cost]:
    """The costs of a run's stages, in their order; ``shadows``, where it is asked for, by what ``train`` and ``generate`` take.

    Args:
        config: a run that trains its own model, on 2-D images.
        size: of its cohort.
        done: told how many stages have been tried.
    """
    runtime.limit_threads()
    runtime.reuse_memory()
    each = size.channels * config.ingest.size**2
    total = sum(size.images.values())
    costs: list[Cost] = []
    parts: list[Callable[[], Sequence[Cost]]] = [
        lambda: [_ingest(config, total, each)],
        lambda: _train_and_generate(config, size, each),
        lambda: [_audit(config, size, next(cost for cost in costs if cost.stage == "generate"))],
        lambda: _evaluate_and_stress(config, size, costs[-1].memory),
    ]
    for number, part in enumerate(parts, 1):
        costs += part()
        done(number)
    made = _made(config, size)
    shown = 2 * (24 + size.classes * config.review.images)
    costs.append(Cost("review", 2, costs[-1].memory, shown * (each + ROW)))
    # A release holds each image three times: as PNG, as DICOM and in the archive, none of them compressed.
    costs.append(Cost("release", 4 + made / 250, costs[-1].memory, 3 * made * (each + ROW)))
    return costs


def _made(config: Config, size: Size) -> int:
    """How many images are generated, at the most."""
    each = config.generate.per_class or 0
    return config.generate.images(size.classes, config.ingest.multi_label) or each * (size.classes + 1)


def _noise(count: int, size: Size, side: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, size.channels, side, side), np.uint8)


def _peak() -> int:
    """Bytes that the GPU, or this process where there is none, has held at the most so far."""
    return int(torch.cuda.max_memory_allocated()) if runtime.device() == "cuda" else _held()


def _held() -> int:
    """Bytes that this process has held at the most so far; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _ingest(config: Config, total: int, each: int) -> Cost:
    ingest = config.ingest
    disk = total * (each * ingest.bits // 8 + ROW)
    if ingest.source in ("medmnist", "dicomweb"):
        return Cost("ingest", 5 + total / 5000, _held(), disk)
    if ingest.source != "phantom":
        names = list(source.listed(ingest))
        return Cost("ingest", 2 + total * _reading(ingest, source.folder(ingest), names), _held(), disk)
    from pipeline.ingest.cohort import PHANTOM_SIDE
    from pipeline.phantom import anatomy
    from pipeline.phantom.dicom import write_cohort

    side = max(PHANTOM_SIDE, ingest.size)
    with tempfile.TemporaryDirectory() as folder:
        root, started = Path(folder) / "phantom", time.perf_counter()
        count = write_cohort(root, anatomy.draw_patients(FILES // 2, config.seed), config.seed, side)
        drawing = (time.perf_counter() - started) / count / source.workers()
        reading = _reading(ingest, root, [name for name, _ in source.regular_files(root) if name.endswith(".dcm")])
    return Cost("ingest", 2 + total * (drawing + reading), _held(), disk + total * (2 * side**2 + ROW))


def _reading(ingest: IngestConfig, root: Path, names: Sequence[str]) -> float:
    """Seconds that a file takes, with all workers at work."""
    some = [names[place] for place in np.unique(np.linspace(0, len(names) - 1, min(FILES, len(names))).astype(int))]
    settings = Settings(
        root,
        reader(ingest.model_copy(update={"path": root})),
        OneClass(),
        b"to time the reading",
        target(ingest),
        patients=False,
        dicom=ingest.source not in ("nifti", "pictures"),
        burned_in=ingest.burned_in,
        mask=ingest.mask,
    )
    first = min(STARTED, len(some) // 2)
    started, ended = time.perf_counter(), 0.0
    for number, _ in enumerate(isolated(functools.partial(work, settings=settings), [Files((name,)) for name in some], workers=1)):
        if number < first:
            started = time.perf_counter()
        ended = time.perf_counter()
    return (ended - started) / max(1, len(some) - first) / source.workers()


def _train_and_generate(config: Config, size: Size, each: int) -> list[Cost]:
    asked, device = config.train, runtime.device()
    assert asked is not None
    n, made = size.images["train"], _made(config, size)
    images = _noise(min(n, max(asked.batch, 1024)), size, config.ingest.size)
    labels = np.arange(n) % size.classes
    cohort = ImageSet(
        np.broadcast_to(images[:1], (n, *images.shape[1:])),
        pd.DataFrame(finding_columns(labels, [str(number) for number in range(size.classes)])),
    )
    # A length that is chosen in training costs its ceiling at the most.
    section = fit_recipe.settled(asked, fit_recipe.fit(asked, cohort, device))
    noise, labels = ImageSet(images, cohort.rows.iloc[: len(images)]), labels[: len(images)]
    conditions = _conditions(config, size.classes)
    model = describe(section, noise, 0.5, conditions)
    denoiser = build_denoiser(model).to(device)
    words = np.array([" ".join(conditions.vocabulary)] * len(images))
    condition = conditions.condition(np.eye(size.classes, dtype=np.int8)[labels], {TEXT: words})
    # What is compiled takes longer to begin, and less for each step: an upper bound is told in seconds.
    training = Training(denoiser, torch.from_numpy(images).to(device), condition, recipe(section.model_copy(update={"compile": False})), 0)
    try:
        training.run(until=1)
    except BatchTooLarge as error:
        raise InputError(f"train.batch={section.batch} does not fit into memory: the largest that does is {error.fits}") from None
    if asked.minutes is None:
        seconds = training.recipe.steps * _repeated(lambda: training.run(until=training.step + 1))
    else:
        seconds = 60 * asked.minutes + fit_recipe.TIMED
    state = sum(value.numel() * value.element_size() for value in training.state().values())
    weights = sum(value.numel() * 4 for value in denoiser.parameters())
    train = Cost(
        "train",
        3 + seconds,
        _peak() + n * each,
        2 * weights + (weights * section.ema_snapshots * 2) + state,
        at_most=asked.minutes is None and (section.compile or bool(asked.unfitted)),
    )
    denoiser.eval()
    sampling = Sampling(denoiser, model, config.generate.model_copy(update={"compile": False}), device)
    batch = min(config.generate.batch, made, 64, len(images))
    first = condition.take(slice(0, batch))
    once = _repeated(lambda: sampling(first, list(range(batch)))) / batch
    guided = 2 if config.generate.autoguidance is not None else 1
    generate = Cost("generate", 2 + guided * once * made, _peak(), made * (each + ROW), at_most=config.generate.compile)
    if not config.shadows.trainings:
        return [train, generate]
    repeated = config.shadows.trainings * (train.seconds + generate.seconds)
    return [train, generate, Cost("shadows", repeated, train.memory, ROW * n, at_most=train.at_most)]


def _conditions(config: Config, classes: int) -> Conditions:
    """What the model will be asked for, by number: of values of attributes and words of texts it is not known how many before ingest."""
    asked, listed = config.train, config.ingest.attributes
    assert asked is not None
    values = [listed.get(name) for name in asked.attributes]
    attributes = tuple(
        Attribute(name, knots=tuple(map(float, range(KNOTS)))) if one == "number" else Attribute(name, tuple(one or ("F", "M")))
        for name, one in zip(asked.attributes, values)
    )
    names = tuple(map(str, range(classes)))
    read = tuple(map(str, range(WORDS))) if asked.text else ()
    return Conditions(names, config.ingest.multi_label, attributes, vocabulary=read, longest=len(read))


def _repeated(once: Callable[[], Any]) -> float:
    """Seconds that it takes, over as many times as fit into :data:`SECONDS`."""
    once()
    count, started = 0, time.perf_counter()
    while count == 0 or time.perf_counter() - started < SECONDS:
        once()
        count += 1
    if runtime.device() == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / count


def _audit(config: Config, size: Size, generate: Cost) -> Cost:
    """The search for copies, and those that the run's own model makes anew, each of which costs at most what a new image does."""
    made, side, planted = _made(config, size), config.ingest.size, config.audit.planted
    real, sealed = size.images["train"] + size.images["audit"], size.images["audit"]
    taken = probe_search.seconds(real, sealed, size.channels, side, searched(made, sealed, planted, regenerated=True))
    anew = planted * len(REGENERATED) * generate.seconds / made
    # Both sides, and both together; and distances of whole blocks of images from each other, some of which are there at once.
    held = 2 * size.channels * side**2 * max(0, real - probe_search.REFERENCES)
    held += 16 * max(0, min(real, BLOCK) ** 2 - probe_search.REFERENCES**2)
    return Cost("audit", 5 + taken + anew, _peak() + (held if runtime.device() == "cpu" else 0), 2_000_000)


def _evaluate_and_stress(config: Config, size: Size, before: int) -> list[Cost]:
    """The trainings of the judges, each to its ceiling; and their predictions on corrupted images. ``before`` is the audit's memory, of
    which a process keeps what it has had."""
    section, device, side = config.evaluate, runtime.device(), config.ingest.size
    seeds = section.seeds or (5 if device == "cuda" else 3)
    images = _noise(256, size, side)
    labels = np.arange(len(images)) % size.classes
    real = Labelled.of_classes(images, labels, np.arange(len(images)), size.classes)
    lanes = 1 if device == "cuda" else max(1, torch.get_num_threads())

    def rate(kind: Any) -> float:
        """Seconds that an image takes in one training, beside as many others as the machine has lanes."""
        tasks = [Task(real.unit, real.labels, size.classes, seed, real) for seed in range(lanes)]
        ceiling = 512
        started = time.perf_counter()
        train_classifiers(tasks, kind=kind, ceiling=ceiling, device=device)
        return (time.perf_counter() - started) / ceiling / lanes

    arms = len(FULL if section.arms == "full" else DEFAULT)
    small = rate("small")
    of_arms = small if section.classifier == "small" else rate(section.classifier)
    panels = (2 * seeds + 1) * FOLDS["cnn"]  # synthetic and real against real in every halving, planted against real in one
    seconds = section.classifier_images * ((seeds + panels) * small + arms * seeds * of_arms)
    weights = 50_000_000 if section.classifier == "resnet18" else 1_000_000
    # Judges see single precision.
    held = 4 * size.channels * side**2 * (sum(size.images.values()) + _made(config, size))
    memory = max(_peak(), before) + (held if device == "cpu" else 0)
    evaluate = Cost("evaluate", 10 + seconds, memory, seeds * weights + 2_000_000, at_most=True)
    # Eighteen corruptions at five severities; a prediction is a third of a step of training.
    looked = min(config.stress.images, size.images["test"]) * 18 * 5
    return [evaluate, Cost("stress", 10 + looked * seeds * of_arms * lanes / 3, memory, 2_000_000)]


def told(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size_of(size: int) -> str:
    """Bytes as people say it."""
    return f"{math.ceil(size / 1e6)} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"
