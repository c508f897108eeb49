"""Eight images before the long work: does the model take what its contract says, and give what it says?"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics import auc
from pipeline.models.child import Child, ModelFailed
from pipeline.models.contract import Contract, Dtype, Layout

STANDARD = 20.0
"""No image lies so many standard deviations from the mean of those that a model was trained on."""
SAME = 1e-6
REPEATS = 1e-2
"""Share of the largest output (of 1 where that is less) by which the same image's may differ: other kernels run for other batches, and with
half precision, or a quantisation that is fitted to each batch, an output is no surer than that."""
CHECKED = 8
"""Images that the model is asked at first, and at once."""
BY_CHANCE = 1e-3
"""Probability above which another order of the classes may be chance, which is told and refused to nobody."""
SIDES = (224, 28, 32, 64, 96, 112, 128, 160, 192, 240, 256, 299, 320, 384, 448, 512)


@dataclass(frozen=True)
class Examined:
    """What a few images say of a model.

    Attributes:
        contract: with ``output`` filled in where it was not declared.
        wrong: everything that speaks against it, a line each.
        notes: what may be wrong and may be chance, a line each.
    """

    contract: Contract
    wrong: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def examined(child: Child, contract: Contract, images: Sequence[NDArray[Any]], labels: NDArray[np.int64] | None, where: str) -> Examined:
    """Ask the model for a few images of the cases.

    Args:
        images: of as many classes as there are; those beyond :data:`CHECKED` are asked only where the order of the classes is in doubt.
        labels: indices into ``contract.classes``, ``[n]``; None where an image can have several, whose order nothing is guessed of.
        where: the file in which a contract is declared.
    """
    first = images[:CHECKED]
    try:
        found, raw = child.raw(first, contract)
        alone = np.concatenate([child.raw([image], contract)[1] for image in first])
    except ModelFailed as failed:
        if failed.why != "run":
            return Examined(contract, (str(failed),))
        return Examined(contract, (f"{failed}; {_what_would_do(child, contract, images, where, str(failed))}",))
    wrong = list(_of_values(raw, found, contract, where))
    if wrong:
        return Examined(contract, tuple(wrong))
    contract = contract if contract.output else _guessed(raw, contract)
    wrong += of_output(raw, contract, where)
    if np.abs(alone - raw).max() > REPEATS * max(1.0, float(np.abs(raw).max())):
        wrong.append("an image's outputs hang on the others in its batch, or on chance: export the model in evaluation mode, model.eval()")
    order = None if labels is None else other_order(raw, labels[:CHECKED], len(contract.classes))
    if labels is None or order is None or wrong:
        return Examined(contract, tuple(wrong))
    try:
        more = [child.raw(images[start : start + CHECKED], contract)[1] for start in range(CHECKED, len(images), CHECKED)]
    except ModelFailed as failed:
        return Examined(contract, (str(failed),))
    every = other_order(np.concatenate([raw, *more]), labels, len(contract.classes))
    sure = every is not None and every[1] <= BY_CHANCE
    order, n = (every, len(labels)) if every is not None else (order, len(raw))
    said = f"the outputs fit the labels of {n} images in another order"
    declare = f"declare classes: [{', '.join(contract.classes[k] for k in order[0])}] in {where}"
    if sure:
        return Examined(contract, (f"{said}: {declare}",))
    return Examined(contract, (), (f"{said}, by chance with a probability of up to {order[1]:.2g}: if it is the right one, {declare}",))


def _of_values(raw: NDArray[np.float64], found: Mapping[str, float], contract: Contract, where: str) -> Iterator[str]:
    columns, classes = raw.shape[1], len(contract.classes)
    if columns != classes and (columns, classes) != (1, 2):
        yield f"the model gives {columns} columns, and classes names {classes}: declare every output's class in {where}, in their order"
    span = f"from {found['low']:.4g} to {found['high']:.4g}"
    if broken := int((~np.isfinite(raw)).any(axis=1).sum()):
        yield f"NaN or infinity for {broken} of {len(raw)} images, whose input runs {span}: declare range, mean and std in {where}"
        return
    if contract.std and max(abs(found["low"]), abs(found["high"])) > STANDARD:
        yield (
            f"input that is not normalised: with this range, mean and std it runs {span}: "
            f"declare range [0, 1] for a mean and std below 1, [0, 255] for larger ones, in {where}"
        )
    elif len(raw) > 1 and float(np.ptp(raw, axis=0).max()) <= SAME * max(1.0, float(np.abs(raw).max())):
        yield (
            f"the same outputs for {len(raw)} different images, whose input runs {span}: it is not normalised as in training, "
            f"declare range, mean and std in {where}"
        )


def _guessed(raw: NDArray[np.float64], contract: Contract) -> Contract:
    inside = bool((raw >= 0).all() and (raw <= 1).all())
    sums = raw.shape[1] == 1 or not contract.exclusive or bool(np.allclose(raw.sum(axis=1), 1, atol=1e-2))
    output = "probabilities" if inside and sums else "logits"
    return dataclasses.replace(contract, output=output, guessed=(*contract.guessed, f"output {output}, from its values"))


def of_output(raw: NDArray[np.float64], contract: Contract, where: str) -> Iterator[str]:
    """What contradicts ``contract.output`` in finite outputs ``[n, columns]``, a line each; ``where`` it is declared."""
    inside = bool((raw >= -1e-3).all() and (raw <= 1 + 1e-3).all())
    sums = raw.shape[1] == 1 or bool(np.allclose(raw.sum(axis=1), 1, atol=1e-2))
    if contract.output == "probabilities" and not inside:
        yield f"outputs from {raw.min():.3g} to {raw.max():.3g} are no probabilities: declare output: logits in {where}"
    elif contract.output == "probabilities" and contract.exclusive and not sums:
        yield f"probabilities that do not sum to 1: declare exclusive: false, or output: logits, in {where}"
    elif contract.output == "logits" and contract.exclusive and raw.shape[1] > 1 and inside and sums:
        yield f"outputs that sum to 1 are no logits: declare output: probabilities in {where}"


def other_order(raw: NDArray[np.float64], labels: NDArray[np.int64], classes: int) -> tuple[tuple[int, ...], float] | None:
    """An order of the classes in which the outputs rank all images right, where in the declared one they rank them wrong.

    Args:
        raw: ``[n, classes]``, or ``[n, 1]`` of two classes.
        labels: ``[n]``, in the declared order.

    Returns:
        The class of each output, and a bound on the probability of such an order if the outputs knew nothing of the labels: an order ranks
        one division of the images into classes of these sizes right and no other, and all n! / (n_1! ... n_K!) are equally likely. None
        where there is no such order, or a class has fewer than two images.
    """
    if raw.shape[1] == 1:
        raw = np.concatenate([-raw, raw], axis=1)
    counts = np.bincount(labels, minlength=classes)
    if classes > 6 or counts.min() < 2:
        return None

    def area(order: Sequence[int]) -> float:
        return float(np.mean([auc(raw[:, column], labels == order[column]) for column in range(classes)]))

    best = max(itertools.permutations(range(classes)), key=area)
    if area(best) < 1 or area(range(classes)) > 1 - 1 / (classes - 1 if classes > 2 else 1):
        return None
    divisions = math.factorial(len(labels)) // math.prod(math.factorial(int(count)) for count in counts)
    return best, min(1.0, (math.factorial(classes) - 1) / divisions)


def _what_would_do(child: Child, contract: Contract, images: Sequence[NDArray[Any]], where: str, why: str) -> str:
    """What else the model takes, of what is often wrong: channels, layout, type, range, side. ``why`` is its error as declared."""
    others: list[tuple[str, Contract]] = []
    for channels in (1, 3):
        if channels != contract.channels:
            mean, std = contract.mean[:1], contract.std[:1]
            others.append((f"channels: {channels}", dataclasses.replace(contract, channels=channels, mean=mean, std=std)))
    layout: Layout = "NHWC" if contract.layout == "NCHW" else "NCHW"
    others.append((f"layout: {layout}", dataclasses.replace(contract, layout=layout)))
    plain = dataclasses.replace(contract, range=(0.0, 255.0), mean=(), std=())
    others += [
        (f"dtype: {dtype}", dataclasses.replace(contract, dtype=dtype))
        for dtype in get_args(Dtype)
        if dtype not in ("uint8", contract.dtype)
    ]
    others.append(("range: [0, 255], without mean and std", plain))
    others.append(("dtype: uint8, without mean and std", dataclasses.replace(plain, dtype="uint8")))
    others += [(f"size: {side}", dataclasses.replace(contract, size=(side, side))) for side in SIDES if contract.size != (side, side)]
    same = True
    for said, other in others:
        try:
            child.raw(images[:1], other)
        except ModelFailed as failed:
            same &= str(failed) == why
            if failed.why != "run":
                break
            continue
        return f"it takes the image with {said}: declare that in {where}"
    if same:
        return (
            f"and so it does whatever size, channels, layout, dtype and range it is given: run it by itself on one image to see why, or "
            f"declare them as the model takes them in {where}"
        )
    return f"declare size, channels, layout and dtype as the model takes them in {where}"
