"""The recipe that a cohort gets: what ``auto`` leaves to it, how long minutes are, and where a training ends.

Starting values follow from the cohort's size and the machine. The length follows from training itself: the denoising loss on training
images falls below that on unseen patients (the half of ``val`` on which lengths may be chosen; never ``audit``, never ``test``) by as much
as is learned by heart, and the last moment before the two part is kept. Everything is recorded in ``recipe.json`` before it is used;
a resumed training and the shadow trainings read it there, and decide nothing anew.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.data import rarest
from evaluation.intervals import Interval
from pipeline.artifacts import damage, fingerprint, read_object
from pipeline.config import Config, TrainConfig
from pipeline.config.section import AUTO, MOST_IMAGES
from pipeline.diffusion import grid
from pipeline.diffusion.batches import class_balanced_cdf
from pipeline.diffusion.training import Training
from pipeline.diffusion.validation import Losses, Validation
from pipeline.errors import InputError
from pipeline.images import ImageSet

FILE = "recipe.json"

REPEATS = 2000
"""Ceiling of length: how often the image that is drawn most often is seen; half of it where the network has much room for each
(:data:`ROOMY`). None of 36 whole runs with less room had a flagged copy; two of 14 with more had, and none of their 27 at half the length.
Twice the visits are not shown to be worth it (BENCHMARKS.md). Seed by seed, images come nearer to real ones by .020 of AUC (standard error
.015) of some 740 distinct images, where one of nine runs then failed by its ten nearest patients, and by .014 (.017) of some 2 200, at 1.7
times the visits; of 2 668 they end farther by .006 (.010), in twice the time, without a flagged copy in nine runs, and the weights tell
more of who was seen. What a cohort can bear less of, its losses show."""
ROOMY = 2000
"""Distinct images below which a network of full width has much room for each; a narrower one has as much with as many fewer, by its width
squared, as its parameters where there are as many blocks. Measured were, as less room, 2 170 and more at full and 693 to 1 286 at half the
width (500), and as more, 1 173 to 1 286 at full and 212 to 237 at half; nothing between. From :data:`SMALL` images on, which get the full
width, the shorter length holds again: of some 1 250 phantoms and 2 000 visits the network of half the width had no copies, and its images
were farther from real ones than those of the full width after 1 000, by .04. After 2 000 visits weights told who of 218 phantoms was seen
with an AUC of .98, of 2 120 and 709 with .95 and .93, but of PneumoniaMNIST's 2 349 with .995: room does not order cohorts of other
images."""
SECONDS = 600
"""Ceiling of length: about ten minutes of training, after which a user wants to see something. ``train.images`` allows any length."""
SPEED = {"cpu": 2.5e5, "cuda": 2e7}
"""Pixels a second in training, roughly: the quickstart's network on two cores, and 64-pixel pictures with 18 M parameters on one H100."""
MEASURED = ((74, 0.0, 0.1), (770, 0.2, 0.4), (3700, 0.3, 0.5))
"""How often each image is seen, and the dropout and augmentation that did best with it on PneumoniaMNIST (trainings of 6, 60 and 300
seconds): what is seen few times is learned slower for them, and what is seen often is learned by heart without them."""
WIDEST = 256
"""Channels beyond which no level grows, as in the measured configurations: deeper levels have few pixels and most of the parameters."""
SMALL = 1000
"""Distinct images below which the network is half as wide, a quarter of the parameters to remember them with."""

FEWEST = 32
"""Steps before the losses are looked at for the first time: what is hard for a network that has learned nothing is no guide to later."""
FIRST = 8
"""How often images are seen, in the mean, before the losses are looked at for the first time: what they differ by then is the two sides'
own. The same phantoms' losses in a training that had seen them and in one that had not (300 patients, 32 pixels, the network of a CPU, no
dropout, no augmentation: ``tests/benchmarks/first_look.py``) were apart by a factor of 1.004 (standard error .003) then; of the class drawn
most often, seen 19 times, by .996 (.015), after 38 times by 1.008 (.020), and after 77 by 1.12 (.03)."""
OFTEN = 32
"""How often the image that is drawn most often is seen by then at the most, where :data:`FEWEST` steps do not take more: balance may draw
one of a rare class many times as often as others."""
GROWTH = 2 ** (1 / 3)
"""From one moment to the next: what is kept is at most a quarter shorter than it could be."""
APART = 1.25
"""How far the losses may part (:class:`Course`): the ratio that its 95 % interval may reach at what is kept."""
TIMED = 2.0
"""Seconds of steps that are timed to turn minutes into images, where they are enough for :data:`READINGS` readings."""
READINGS = 5
"""Readings that are taken at the least, of which the middle one counts: other work on the machine now and then makes a step many times as
long."""
TIMED_AT_MOST = 20.0
"""Seconds after which no further reading begins, where steps are so slow that there are fewer."""
TOGETHER = 9
"""Steps, at the most, of a reading, of which only the last is waited for; as many come before the first, and compile."""
LONGEST = 10_000
"""Steps that are timed at the most, however fast: the length of the recipe under which they are taken."""
LATE, SLACK = 1.25, 15.0
"""How many times as long as was expected, and how many seconds longer, the steps of a training may take that was given minutes, before it
is told: round figures, on which nothing else hangs. What is loaded or compiled anew after an interruption may take the seconds."""


def fit(section: TrainConfig, cohort: ImageSet, device: str, probe: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Starting values for what a configuration leaves to the cohort.

    Args:
        section: the configuration; what it gives stays.
        cohort: the training split.
        device: ``cpu`` or ``cuda``.
        probe: what :func:`timed` found, where minutes are asked for; without it they are as long as :data:`SPEED` lets expect.

    Returns:
        ``cohort``: its images, how many are distinct (near-duplicates count as one), its classes; ``machine``; ``fitted``: settings by
        name, where ``images`` is the ceiling of a length that is chosen in training, or what minutes are; ``reasons`` by name; ``probe``,
        as given.
    """
    distinct, most = drawn(cohort, section.balance)
    pixels = math.prod(cohort.images.shape[2:])
    fitted: dict[str, Any] = {}
    reasons: dict[str, str] = {}

    def settle(name: str, value: Any, reason: str) -> None:
        if name in section.unfitted or (name == "images" and section.minutes is not None):
            fitted[name], reasons[name] = value, reason

    side = max(cohort.images.shape[2:])
    settle("widths", widths(side, section.patch, distinct, device), f"{side} pixels, {distinct:,} distinct images, {_machine(device)}")
    if section.minutes is not None:
        rate = SPEED[device] / pixels if probe is None else probe["images_per_second"]
        images = max(section.batch, round(60 * section.minutes * rate))
        shown = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
        asked = f"{section.minutes:g} minutes of {shown} images a second"
        if images > MOST_IMAGES:
            images, asked = MOST_IMAGES, f"the most that can be asked for; less than {asked}"
        settle("images", images, asked if probe is not None else f"expected of {asked}")
    else:
        share = (fitted.get("widths", section.widths)[0] / full_width(grid.levels(side, section.patch))) ** 2
        by_time = round(SECONDS * SPEED[device] / pixels), f"about {SECONDS // 60} minutes"
        images, reason = min(_seen(most, distinct < ROOMY * share), by_time, key=lambda limit: limit[0])
        images, reason = max((images, reason), (section.batch, "one step"), key=lambda limit: limit[0])
        settle("images", images, reason)
    length = section.length if isinstance(section.images, int) else images
    dropout, augment = regularisation(length * most)
    knows = section.backbone == "unet"
    told = "seen up to" if section.images == AUTO else "expected to be seen" if probe is None and section.minutes is not None else "seen"
    why = f"the image drawn most often is {told} {length * most:,.0f} times" if knows else f"the backbone {section.backbone} knows none"
    settle("dropout", dropout if knows else 0.0, why)
    settle("augment", augment if knows else 0.0, why)
    return {
        "cohort": {"images": len(cohort), "distinct": distinct, "classes": len(cohort.classes)},
        "machine": device,
        "fitted": fitted,
        "reasons": reasons,
        **({} if probe is None else {"probe": dict(probe)}),
    }


def _seen(most: float, roomy: bool) -> tuple[int, str]:
    """After how many images the one that is drawn most often, with this probability, has been seen as often as it may be; in words, why."""
    repeats = REPEATS // 2 if roomy else REPEATS
    why = ", as the network has much room for each" if roomy else ""
    return round(repeats / most), f"the image drawn most often is seen {repeats:,} times{why}"


def drawn(cohort: ImageSet, balance: float) -> tuple[int, float]:
    """How many distinct images a cohort has, near-duplicates counting as one, and the largest probability with which one is drawn.

    With balance, images of a rare class are drawn more often than others, and are the first to be learned by heart.
    """
    cumulative = class_balanced_cdf(torch.from_numpy(rarest(cohort.findings == 1)), balance, cohort.duplicates).numpy()
    probability = np.diff(cumulative, prepend=0.0)
    twins = cohort.duplicates >= 0
    _, member = np.unique(cohort.duplicates[twins], return_inverse=True)
    together = np.concatenate([probability[~twins], np.bincount(member, probability[twins])])
    return len(together), float(together.max())


def regularisation(repeats: float) -> tuple[float, float]:
    """Dropout and augmentation for images that are seen so often: between the lengths of :data:`MEASURED`, in the logarithm."""
    lengths, dropouts, augments = np.array(MEASURED).T
    place = np.log(max(repeats, 1.0))
    return tuple(round(float(np.interp(place, np.log(lengths), column)), 2) for column in (dropouts, augments))  # type: ignore[return-value]


def widths(side: int, patch: int, distinct: int, device: str) -> tuple[int, ...]:
    """Channels of the network by resolution, for images of ``side`` pixels.

    Levels go down to :data:`pipeline.diffusion.grid.COARSEST`. A GPU takes the width of the measured configurations (128 at 28 pixels, 64
    at 64), half of it for fewer than :data:`SMALL` images; a CPU what trains some hundred images a second.
    """
    levels = grid.levels(side, patch)
    first = full_width(levels) if device == "cuda" else (48 if levels == 2 else 32)
    if device == "cuda" and distinct < SMALL:
        first //= 2
    return tuple(min(WIDEST, first * 2**level) for level in range(levels))


def full_width(levels: int) -> int:
    """Channels of the first level of the measured configurations, by how many levels there are."""
    return 128 if levels == 2 else 64


def _machine(device: str) -> str:
    return "a GPU" if device == "cuda" else "a CPU"


def settled(section: TrainConfig, recipe: Mapping[str, Any]) -> TrainConfig:
    """The configuration with what a recipe settled in place of ``auto`` and ``minutes``.

    Raises:
        InputError: the recipe is none that fits this configuration.
    """
    fitted = recipe.get("fitted")
    wanted = {*section.unfitted, *(("images",) if section.minutes is not None else ())}
    if not isinstance(fitted, dict) or set(fitted) != wanted:
        raise InputError(damage("train", FILE))
    try:
        return TrainConfig.model_validate(section.model_dump() | fitted | {"minutes": None})
    except ValueError as error:
        raise InputError(damage("train", FILE)) from error


def replayed(config: Config, trained: Path) -> Config:
    """A run's configuration with what its finished training settled: what its shadow trainings repeat."""
    assert config.train is not None
    return config.model_copy(update={"train": settled(config.train, read_object(trained / FILE))})


def late(recipe: Mapping[str, Any], images: int, seconds: float) -> str | None:
    """What to tell of a training that was given minutes and whose steps took much longer than was expected; None where they did not.

    Args:
        recipe: with what :func:`timed` found.
        images: drawn by this process, which may have begun at a checkpoint.
        seconds: what their steps took, without checkpoints and looks at ``val``, as those that were timed.
    """
    expected = images / recipe["probe"]["images_per_second"]
    if seconds <= max(LATE * expected, expected + SLACK):
        return None
    return (
        f"{images:,} images took {seconds / 60:.1f} minutes where {expected / 60:.1f} were expected: steps were slower than those that "
        f"were timed before, as where the machine compiles or does other work beside; nothing was cut short"
    )


def mark(recipe: Mapping[str, Any]) -> Tensor:
    """What a checkpoint holds of the recipe that it was made under, ``int64 []``."""
    return torch.tensor(int(fingerprint(begun(recipe))[:15], 16))


def begun(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a recipe that is there before training begins."""
    return {key: value for key, value in recipe.items() if key not in ("curve", "chosen")}


def first_look(cohort: ImageSet, section: TrainConfig) -> int:
    """The step after which the losses are looked at for the first time, in a training on these images."""
    distinct, most = drawn(cohort, section.balance)
    return max(FEWEST, round(min(FIRST * distinct, OFTEN / most) / section.batch))


def timed(training: Training) -> dict[str, Any]:
    """How fast a training is, from some steps of it: ``steps`` that were timed, and ``images_per_second`` of them.

    Compilation, checkpoints and looks at ``val`` are not among them. The training is of no use afterwards.
    """
    batch = training.recipe.batch
    # The length under which steps are timed must not be the one that follows from them.
    training.recipe = replace(training.recipe, images=LONGEST * batch)
    training.run(until=1)  # compiles
    together, seconds = 1, _seconds(training, 1)
    while together < TOGETHER and seconds < TIMED:  # where steps are slow, few are enough
        together, seconds = together + 1, seconds + _seconds(training, 1)
    first, readings = training.step, [_seconds(training, together)]
    while (len(readings) < READINGS or sum(readings) < TIMED) and sum(readings) < TIMED_AT_MOST and training.step < LONGEST:
        readings.append(_seconds(training, together))
    rate = together * batch / max(float(np.median(readings)), 1e-9)
    return {"steps": training.step - first, "images_per_second": float(f"{rate:.4g}")}


def _seconds(training: Training, steps: int) -> float:
    """Seconds that so many further steps take; the device is waited for at their end."""
    began = time.perf_counter()
    training.run(until=training.step + steps)
    return time.perf_counter() - began


def curve(metrics: Path) -> list[dict[str, Any]]:
    """Images seen, and the mean losses by level on training and on unseen images, of each moment that a log holds."""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "step"} for line in lines if "val" in line]


class Course:
    """What a training shows of itself at some moments, and the averaged weights of the last one before its losses part.

    The ratio is that of :meth:`pipeline.diffusion.validation.Validation.parted`: the geometric mean, over images and noise levels, of the
    loss on unseen images over that on training images, over what it was at the first moment. Weights that come to it with a memory of the
    training images show it at the first moment already: of those it is the ratio itself, with how hard each image is in its error. A
    training that generalises keeps it at 1, and one that learned every image by heart would let it grow without end. By Markov's inequality
    at most log(ratio) / log(f) of the training images have a loss that fell f times as far as an unseen one's: with :data:`APART` one in
    ten may have come to a tenth, as what can be regenerated does. Measured on phantoms of 32 pixels without dropout: of 100 images none
    came nearer to a training image than half the mean distance to its 50 nearest (Carlini et al. 2023, arXiv:2301.13188) at a ratio of 1.3
    (163 training images), 7 did at 2.2 and 34 at 5 (80 images). A tighter bound costs: at 1.1 the loss on unseen images had a fifth still
    to fall.

    Args:
        validation: the two sides.
        batch: images a step.
        first: steps of the first moment.
        steps: steps after which training ends at the latest.
        remembers: whether training began from weights that had seen images of the training side.
    """

    def __init__(self, validation: Validation, batch: int, first: int, steps: int, *, remembers: bool = False) -> None:
        self.validation, self.batch, self.remembers = validation, batch, remembers
        grown = [round(first * GROWTH**k) for k in range(math.ceil(math.log(max(steps / first, 1), GROWTH)))]
        self.moments = sorted({min(first, steps), *(step for step in grown if step < steps), steps})
        self.looked: list[Losses] = []
        self.kept: dict[str, Tensor] = {}
        self.chosen = 0

    def look(self, training: Training) -> dict[str, Any]:
        """Look at the losses of a moment, and keep its averaged weights if they have not parted yet; what the log gets."""
        self.looked.append(self.validation(training))
        ratio = self.ratio()
        if len(self.looked) == 1 or ratio.high <= APART:
            self.chosen, self.kept = len(self.looked) - 1, training.averaged()
        return self.looked[-1].line() | {"parted": ratio.to_dict()}

    def ratio(self) -> Interval:
        """How far the losses have parted by the last moment, as a ratio, with its 95 % interval."""
        gap = self.looked[-1].gap if self.remembers else self.validation.parted(self.looked[0], self.looked[-1])
        value, low, high = (float(np.exp(bound)) for bound in (gap.value, gap.low, gap.high))
        return Interval(value, low, high, gap.n)

    @property
    def over(self) -> bool:
        """Whether the losses have parted for good: by their lower bound, or since training was half as long."""
        if not self.looked:
            return False
        now = self.moments[len(self.looked) - 1]
        return now >= self.moments[-1] or self.ratio().low > APART or now >= 2 * self.moments[self.chosen]

    @property
    def steps(self) -> int:
        """The step whose weights are kept."""
        return self.moments[self.chosen]

    def why(self, ceiling: str) -> str:
        """In words, why that is, and where nothing else ended training, what its ceiling is."""
        last, ratio = len(self.looked) - 1, self.ratio()
        if last == 0 and not self.remembers:
            return f"its ceiling was reached at the first look at the losses, which tells nothing of how far they part: {ceiling}"
        if self.chosen == last and not ratio.low > APART:
            return f"its ceiling was reached before the losses parted: {ceiling}"
        found = f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f}) after {self.moments[last] * self.batch:,} images"
        if ratio.low <= APART:
            told = "" if ratio.value > APART else "; more patients in val would tell"
            said = "beyond it the losses on unseen and on training images may have parted"
            return f"{said}: their ratio was {found}, the bound is {APART}{told}"
        if self.chosen == last:
            return (
                f"the earlier weights remember training images: at the first look the ratio of the losses was {found}, the bound is {APART}"
            )
        return f"beyond it the losses on unseen and on training images parted: their ratio grew to {found}, the bound is {APART}"

    def state(self) -> dict[str, Tensor]:
        """Everything that :meth:`load` needs, as named tensors."""
        if not self.looked:
            return {}
        losses = np.stack([np.stack([one.train, one.val]) for one in self.looked])
        found = {"course.losses": torch.from_numpy(losses), "course.chosen": torch.tensor(self.chosen)}
        return found | {f"course.kept.{name}": value.contiguous() for name, value in self.kept.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`state` gave."""
        if "course.losses" not in tensors:
            return
        losses = tensors["course.losses"].cpu().numpy()
        self.looked = [self.validation.losses(train, val) for train, val in losses]
        self.chosen = int(tensors["course.chosen"])
        start = "course.kept."
        self.kept = {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
