"""Which images are to be made: findings that are asked for, denied or left open, attributes, and a seed for each."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import runtime
from pipeline.clinical_text import DENYING, closed, unknown
from pipeline.conditions import TEXT, WITHOUT_TEXT, Attribute, Conditions
from pipeline.config import Asked, Config, GenerateConfig
from pipeline.diffusion.conditioning import PRESENT, Condition
from pipeline.errors import InputError
from pipeline.images import ATTRIBUTE


@dataclass(frozen=True)
class Wanted:
    """n images to be made, each a function of its row alone.

    Attributes:
        findings: ``int8 [n, K]``: 1 asked for, 0 asked to be absent, -1 left open.
        seeds: one an image.
        negated: classes that guidance leads away from, ``bool [n, K]``, of a model of one class an image. Of several findings what is not
            wanted is asked to be absent instead, which was measured to be followed better (BENCHMARKS.md).
        asked: attributes by name, as :class:`pipeline.conditions.Described` has them; what is not there is left open.
        without_text: a text that guidance leads away from, ``[n]``; an empty one for none.
        unseen: whether no training image, or too few to know of, had this together, or a word of such a text, ``bool [n]``: an
            extrapolation.
    """

    findings: NDArray[np.int8]
    seeds: list[int]
    negated: NDArray[np.bool_]
    asked: Mapping[str, NDArray[Any]]
    without_text: NDArray[Any]
    unseen: NDArray[np.bool_]

    @classmethod
    def of_findings(cls, findings: NDArray[np.int8], seeds: list[int]) -> Wanted:
        """Images of these findings ``[n, K]`` and nothing else."""
        return cls(findings, seeds, np.zeros(findings.shape, bool), {}, np.full(len(findings), ""), np.zeros(len(findings), bool))

    @classmethod
    def of_classes(cls, labels: NDArray[np.int64], classes: int, seeds: list[int]) -> Wanted:
        """Images of one class each, by its index ``[n]``."""
        return cls.of_findings((labels[:, None] == np.arange(classes)).astype(np.int8), seeds)

    def __len__(self) -> int:
        return len(self.findings)

    def take(self, rows: slice) -> Wanted:
        """Some of them."""
        asked = {name: column[rows] for name, column in self.asked.items()}
        return Wanted(self.findings[rows], self.seeds[rows], self.negated[rows], asked, self.without_text[rows], self.unseen[rows])

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        """What a table of the images says of what was asked for beside findings: attributes, texts, and what was extrapolated to."""
        asked = {**self.asked, **({WITHOUT_TEXT: self.without_text} if (self.without_text != "").any() else {})}
        return {ATTRIBUTE + name: column for name, column in asked.items()} | ({"unseen": self.unseen} if self.unseen.any() else {})

    def away(self, conditions: Conditions) -> Condition | None:
        """What guidance leads each of them away from: negated classes and text, and nothing else; None where there is none."""
        if not self.negated.any() and not (self.without_text != "").any():
            return None
        return conditions.condition(np.where(self.negated, PRESENT, -1).astype(np.int8), {TEXT: self.without_text})


def wanted(config: Config, conditions: Conditions) -> Wanted:
    """The images that a run makes: ``generate.plan``, or ``generate.per_class`` of every class or finding (:func:`balanced`).

    Raises:
        InputError: as :func:`planned` and :func:`check_names`.
    """
    section = config.generate
    check_names(section, conditions)
    if section.plan:
        count = sum(entry.count for entry in section.plan)
        return planned(section.plan, conditions, _seeds(config.seed, count), "generate.plan")
    assert section.per_class is not None
    findings = balanced(conditions, section.per_class)
    made = Wanted.of_findings(findings, _seeds(config.seed, len(findings)))
    kinds, kind = np.unique(findings, axis=0, return_inverse=True)
    new = np.array([not conditions.seen(row, {}) for row in kinds.tolist()], bool)
    return replace(made, unseen=new[kind.ravel()])


def check_names(section: GenerateConfig, conditions: Conditions) -> None:
    """Raise InputError where guidance names what the model does not know."""
    if section.negative_class is not None and section.negative_class not in conditions.classes:
        known = f"{meant(section.negative_class, conditions.classes)}use one of {', '.join(conditions.classes)}"
        raise InputError(f"generate.negative_class {section.negative_class!r} is no class of the model: {known}")
    if unknown := [name for name in section.weights if name not in conditions.names]:
        known = ", ".join(conditions.names) or "one class an image, and generate.guidance_scale is the weight of that"
        raise InputError(f"generate.weights: the model knows no {unknown[0]!r}, {meant(unknown[0], conditions.names)}but {known}")


def meant(name: str, known: Sequence[str]) -> str:
    """What was meant by a name that is not known, as a question with a space after it; an empty string where none is like it."""
    alike = {one.casefold(): one for one in known}
    close = difflib.get_close_matches(name.casefold(), alike, 1)
    return f"did you mean {alike[close[0]]}? " if close else ""


def balanced(conditions: Conditions, each: int) -> NDArray[np.int8]:
    """Findings ``int8 [n, K]`` of a balanced set: ``each`` images of every class, or of every finding and of none, rare ones first.

    Of several findings, the rarest of the training set comes first, in the combinations that it was seen in and in their proportions, and
    every further one adds what is still lacking of it: a common one has more than ``each`` where it mostly comes with rarer ones.
    Combinations take turns, so that any leading part of the set is balanced too.
    """
    if not conditions.several:
        return np.tile(np.eye(len(conditions.classes), dtype=np.int8), (each, 1))
    seen = np.array([one.findings for one in conditions.combinations], np.int8).reshape(-1, len(conditions.classes))
    share = np.array([one.share for one in conditions.combinations])
    # What is in no combination of enough patients is asked for with all else left open.
    alone = np.where(np.eye(len(conditions.classes), dtype=bool), 1, -1).astype(np.int8)[~(seen == 1).any(axis=0)]
    seen, share = np.concatenate([alone, seen]), np.concatenate([np.zeros(len(alone)), share])
    counts = np.zeros(len(seen), np.int64)
    for finding in np.argsort(share @ (seen == 1), kind="stable"):
        has = seen[:, finding] == 1
        if has.any():
            lacking = max(0, each - int(counts[has].sum()))
            counts[has] += _in_proportion(lacking, share[has] if share[has].any() else np.ones(int(has.sum())))
    none = ~(seen == 1).any(axis=1)
    if none.any():
        counts[none] += _in_proportion(each, share[none])
    turn = np.concatenate([(np.arange(count) + 0.5) / count for count in counts if count])
    return np.repeat(seen, counts, axis=0)[np.argsort(turn, kind="stable")]


def planned(plan: Sequence[Asked], conditions: Conditions, seeds: list[int], where: str) -> Wanted:
    """The images of a plan, one entry after the other.

    Raises:
        InputError: an entry asks for what the model does not know, or for what it never saw together without saying so.
    """
    texts = [_text(entry.text, conditions, where) for entry in plan]
    away = [_text(entry.without_text, conditions, where) for entry in plan]
    counts = [entry.count for entry in plan]
    asked = {one.name: np.repeat(_attribute(one, plan, where), counts) for one in conditions.attributes}
    asked |= {TEXT: np.repeat(texts, counts)} if conditions.vocabulary else {}
    known = [one.name for one in conditions.attributes]
    if strange := [name for entry in plan for name in entry.attributes if name not in known]:
        told = "a text is asked for by --prompt, or by text in a plan" if strange[0] == TEXT else f"but {', '.join(known) or 'none'}"
        raise InputError(f"{where}: the model knows no attribute {strange[0]!r}, {meant(strange[0], known)}{told}")
    findings, negated, unseen = [], [], []
    for entry, text, other in zip(plan, texts, away):
        row, denied = _findings(entry, conditions, where)
        new = _unseen(entry, row.tolist(), text.split(), other.split(), conditions)
        if new and not entry.extrapolate:
            raise InputError(f"{where}: {new}, or add extrapolate to have it none the less, marked as such")
        findings.append(row)
        negated.append(denied)
        unseen.append(bool(new))
    has, led, left, extrapolated = (np.repeat(np.array(table), counts, axis=0) for table in (findings, negated, away, unseen))
    return Wanted(has, seeds, led, asked, left, extrapolated)


def _unseen(entry: Asked, row: Sequence[int], words: Sequence[str], other: Sequence[str], conditions: Conditions) -> str:
    """What of an entry too few training patients had, and what to do; empty where there is nothing."""
    few = "seen in enough training patients"
    if rare := [word for word in (*words, *other) if word not in conditions.vocabulary]:
        return f"the word {rare[0]!r} was not {few}: leave it out"
    if not conditions.seen(row, entry.attributes):
        return f"{_named(entry)}: no such combination was {few}: leave something open"
    if (apart := conditions.never_with(row, entry.attributes, words)) is not None:
        word, name, value = apart
        what = f"{name} {value}" if isinstance(value, str) else name if value else f"no {name}"
        return f"{what}: the word {word!r} was not {few} with it: leave one of them out"
    return ""


def _findings(entry: Asked, conditions: Conditions, where: str) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
    names = conditions.classes
    if strange := [name for name in (*entry.findings, *entry.without) if name not in names]:
        raise InputError(f"{where}: the model knows no finding {strange[0]!r}: {meant(strange[0], names)}use {', '.join(names)}")
    has, away = np.isin(names, entry.findings), np.isin(names, entry.without)
    if conditions.several:
        return np.where(has, 1, np.where(away, 0, -1)).astype(np.int8), np.zeros(len(names), bool)
    if has.sum() != 1 or away.sum() > 1:
        raise InputError(f"{where}: {_named(entry)}: this model was trained on one class an image: ask for one, and lead away from one")
    return has.astype(np.int8), away


def _text(text: str, conditions: Conditions, where: str) -> str:
    """A prompt in small letters. Raises InputError where the model does not know all of it."""
    if text and not conditions.vocabulary:
        raise InputError(f"{where}: this model reads no text: it was trained without train.text")
    known, met = frozenset(conditions.words), conditions.vocabulary
    if strange := unknown(text, known):
        denied = "; what is not wanted is named by --not or --negative-prompt, or without and without_text in a plan"
        raise InputError(
            f"{where}: the model has no word {strange[0]!r}, which too few training reports had: {meant(strange[0], conditions.words)}"
            f"it knows {len(known)}, such as {', '.join(met[:: max(1, len(met) // 8)])}{denied if strange[0].lower() in DENYING else ''}"
        )
    said = closed(text, known)
    if text and not said:
        raise InputError(f"{where}: the text {text!r} holds no word: write what a report would say, or leave it out")
    if len(said.split()) > conditions.longest:
        raise InputError(
            f"{where}: a text of {len(said.split())} words, and reports of enough training patients had {conditions.longest} at the most"
        )
    return said


def _attribute(one: Attribute, plan: Sequence[Asked], where: str) -> NDArray[Any]:
    """What each entry asks of an attribute, ``[entries]``."""
    column: list[Any] = []
    for entry in plan:
        value = entry.attributes.get(one.name)
        if one.values and value not in (None, *one.values):
            raise InputError(
                f"{where}: the model knows no {one.name} {value!r}: {meant(str(value), one.values)}use {', '.join(one.values)}"
            )
        column.append(_number(one, value, where) if one.knots else value or "")
    return np.array(column, np.float32) if one.knots else np.array(column, dtype=str)


def _number(one: Attribute, value: str | None, where: str) -> float:
    """A continuous attribute, within what training images had; NaN where nothing is asked."""
    if value is None:
        return math.nan
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not one.knots[0] <= number <= one.knots[-1]:
        raise InputError(f"{where}: {one.name} is a number from {one.knots[0]:g} to {one.knots[-1]:g}, as training images had it")
    return number


def _named(entry: Asked) -> str:
    asked = [*entry.findings, *(f"no {name}" for name in entry.without), *(f"{name} {value}" for name, value in entry.attributes.items())]
    return " + ".join(asked) or "no finding asked for"


def _in_proportion(total: int, share: NDArray[np.float64]) -> NDArray[np.int64]:
    """Whole numbers that sum to ``total``, by largest remainders."""
    exact = total * share / share.sum()
    whole: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    whole[np.argsort(whole - exact, kind="stable")[: total - int(whole.sum())]] += 1
    return whole


def _seeds(seed: int, count: int) -> list[int]:
    return [runtime.derive_seed(seed, "image", number) for number in range(count)]
