"""What a model can be asked for, by name: a class or several findings, and attributes; from there to the codes of a `Condition`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.clinical_text import DENYING, LISTED
from pipeline.diffusion.conditioning import Condition
from pipeline.errors import InputError
from pipeline.together import Together

TEXT, WITHOUT_TEXT = "text", "without_text"
KNOTS = 9
"""Places between which a continuous attribute is taken as linear, at most: the octiles of the training images, without the extremes."""
LEAST_PATIENTS = 11
"""Patients of the training set who have a value, at the least, for a model to know of it; of fewer, it would tell who they are."""


class Described(Protocol):
    """Images with what a model can be asked for to make such ones."""

    @property
    def findings(self) -> NDArray[np.int8]:
        """``int8 [n, K]``: 1 present, 0 absent, -1 unknown."""

    @property
    def asked(self) -> Mapping[str, NDArray[Any]]:
        """Attributes by name: numbers ``[n]``, NaN for unknown, or texts, an empty one for unknown."""


@dataclass(frozen=True)
class Attribute:
    """Something that is asked for beside findings: one of some ``values``, or a number, linear between ``knots`` in rising order."""

    name: str
    values: tuple[str, ...] = ()
    knots: tuple[float, ...] = ()

    @property
    def size(self) -> int:
        """Number of values or knots; as a code, it asks for nothing."""
        return len(self.values) or len(self.knots)

    @classmethod
    def learned(cls, name: str, column: NDArray[Any], patients: NDArray[Any]) -> Attribute:
        """What training images ``[n]`` have of it. Raises InputError where it has no value in enough patients."""
        if column.dtype.kind == "f":
            known = ~np.isnan(column)
            knots = _octiles(np.asarray(column[known], np.float64), patients[known])
            found = cls(name, knots=tuple(float(f"{knot:.6g}") for knot in knots))
        else:
            counts = {value: len(np.unique(patients[column == value])) for value in np.unique(column) if value}
            found = cls(name, tuple(str(value) for value, count in counts.items() if count >= LEAST_PATIENTS))
        if found.size < 2:
            raise InputError(f"train.attributes: {name} has no two values that {LEAST_PATIENTS} training patients have: leave it out")
        return found

    def codes(self, column: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Code of each value, and how far it lies on the way to the next, both ``[n]``; a number beyond the knots is taken as the last."""
        if self.values:
            places = {value: code for code, value in enumerate(self.values)}
            return np.array([places.get(str(value), self.size) for value in column], np.int64), np.zeros(len(column), np.float32)
        knots, value = np.array(self.knots), np.asarray(column, np.float64)
        known = ~np.isnan(value)
        place = np.interp(np.where(known, value, knots[0]), knots, np.arange(self.size))
        code = np.where(known, np.floor(place), self.size)
        return code.astype(np.int64), np.where(known, place - np.floor(place), 0).astype(np.float32)


def _octiles(values: NDArray[np.float64], patients: NDArray[Any]) -> NDArray[np.float64]:
    """The octiles of values, none of them beyond what :data:`LEAST_PATIENTS` reach: the lowest and the highest value are one patient's."""
    people, person = np.unique(patients, return_inverse=True)
    if len(people) < LEAST_PATIENTS:
        return np.zeros(0)
    lowest, highest = np.full(len(people), np.inf), np.full(len(people), -np.inf)
    np.minimum.at(lowest, person.ravel(), values)
    np.maximum.at(highest, person.ravel(), values)
    low, high = np.sort(lowest)[LEAST_PATIENTS - 1], np.sort(highest)[-LEAST_PATIENTS]
    return np.unique(np.quantile(values, np.linspace(0, 1, KNOTS)).clip(low, high)) if low < high else np.zeros(0)


def _read(texts: NDArray[Any] | None, patients: NDArray[Any]) -> tuple[tuple[str, ...], int]:
    """The words that enough patients' texts have, sorted, and of how many words as many patients have a text: the longest is one's."""
    whose: dict[str, set[Any]] = {}
    longest: dict[Any, int] = {}
    for text, patient in zip(() if texts is None else texts, patients):
        words = str(text).split()
        longest[patient] = max(len(words), longest.get(patient, 0))
        for word in words:
            whose.setdefault(word, set()).add(patient)
    known = tuple(sorted(word for word, people in whose.items() if len(people) >= LEAST_PATIENTS))
    if not known:
        raise InputError("train.text: the images have no text in the clinical vocabulary: name its column in ingest.report")
    return known, sorted(longest.values())[-LEAST_PATIENTS]


@dataclass(frozen=True)
class Combination:
    """Findings that training images had together, 1 or 0 for each, and the share of the images that had them."""

    findings: tuple[int, ...]
    share: float

    @classmethod
    def learned(cls, findings: NDArray[np.int8], patients: NDArray[Any]) -> tuple[Combination, ...]:
        """Those of enough patients, the commonest first; images with an unknown finding tell of none."""
        known = findings[(findings >= 0).all(axis=1)]
        rows, member, count = np.unique(known, axis=0, return_inverse=True, return_counts=True)
        whose = patients[(findings >= 0).all(axis=1)]
        enough = [len(np.unique(whose[member.ravel() == place])) >= LEAST_PATIENTS for place in range(len(rows))]
        found = [cls(tuple(row), round(number / len(known), 6)) for row, number, many in zip(rows.tolist(), count.tolist(), enough) if many]
        return tuple(sorted(found, key=lambda one: -one.share))


@dataclass(frozen=True)
class Conditions:
    """What a model can be asked for.

    Attributes:
        classes: names of the findings, in the order of their columns.
        several: whether an image can have several of them, or none; otherwise each has the one that is its class.
        attributes: in the order of their fields.
        combinations: of several findings, those that training images showed.
        together: what was seen of findings with values of attributes that have a list of them, and of some findings where it is no part of
            a combination; empty where there is neither.
        vocabulary: words of the texts that it reads; none where it reads no text.
        longest: words of a text, at the most: as many as the texts of enough patients have.
        further: words that no training patient's text, or too few to know of, had, and that it is told of by their features alone.
        features: numbers in which a language model tells each word; 0 where the model has learned its own.
        apart: for each of :attr:`listed`, the words that too few training patients' texts had with it; empty where it reads no text.
    """

    classes: tuple[str, ...]
    several: bool = False
    attributes: tuple[Attribute, ...] = ()
    combinations: tuple[Combination, ...] = ()
    vocabulary: tuple[str, ...] = ()
    longest: int = 0
    further: tuple[str, ...] = ()
    features: int = 0
    together: tuple[Together, ...] = ()
    apart: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def learned(
        cls,
        images: Described,
        classes: Sequence[str],
        patients: NDArray[Any],
        *,
        several: bool,
        names: Sequence[str],
        text: bool = False,
        features: int = 0,
    ) -> Conditions:
        """What training images show, ``names`` being the attributes that the model is told of, ``text`` whether it reads their texts, and
        ``features`` the numbers in which their words are told.

        Raises:
            InputError: the images have no such attribute, or too little of it, or no text.
        """
        known = {name: column for name, column in images.asked.items() if name != TEXT}
        if strange := [name for name in names if name not in known]:
            raise InputError(f"train.attributes: the images have no {strange[0]}, but {', '.join(known) or 'none'}: see ingest.attributes")
        attributes = tuple(Attribute.learned(name, known[name], patients) for name in names)
        combinations = Combination.learned(images.findings, patients) if several else ()
        listed = [np.where(np.isin(known[one.name], one.values), known[one.name], "") for one in attributes if one.values]
        together = Together.learned(images.findings, listed, patients, LEAST_PATIENTS, several=several)
        if several:
            whole = [one.findings for one in combinations]
            together += Together.of_some(images.findings, len(listed), patients, LEAST_PATIENTS, whole)
        found = cls(tuple(classes), several, attributes, combinations, together=together)
        if not text:
            return found
        words, longest = _read(images.asked.get(TEXT), patients)
        further = tuple(word for word in LISTED if word not in words) if features else ()
        found = replace(found, vocabulary=words, longest=longest, further=further, features=features)
        return replace(found, apart=found._apart(images, patients))

    def _apart(self, images: Described, patients: NDArray[Any]) -> tuple[tuple[str, ...], ...]:
        """What :attr:`apart` is of these images."""
        places = self._words(images.asked[TEXT], len(patients)).numpy()
        person, size = np.unique(patients, return_inverse=True)[1].ravel(), len(self.words) + 1
        found = []
        for name, value in self.listed:
            column = images.findings[:, self.classes.index(name)] if isinstance(value, int) else images.asked[name]
            rows = column == value
            pairs = np.unique(person[rows, None] * size + places[rows])
            have = np.bincount(pairs % size, minlength=size)
            found.append(tuple(word for place, word in enumerate(self.vocabulary, 1) if have[place] < LEAST_PATIENTS))
        return tuple(found)

    @classmethod
    def of_model(cls, model: Mapping[str, Any]) -> Conditions:
        """Those of a ``model.json``."""
        told = model.get("conditions", {})
        attributes = tuple(
            Attribute(str(one["name"]), tuple(map(str, one["values"])), tuple(map(float, one["knots"])))
            for one in told.get("attributes", ())
        )
        combinations = tuple(Combination(tuple(map(int, one["findings"])), float(one["share"])) for one in told.get("combinations", ()))
        together = tuple(Together(tuple(map(int, one["findings"])), tuple(map(str, one["values"]))) for one in told.get("together", ()))
        words, further = (tuple(map(str, told.get(name, ()))) for name in ("vocabulary", "further"))
        read = words, int(told.get("longest", 0)), further, int(told.get("features", 0))
        apart = tuple(tuple(map(str, one)) for one in told.get("apart", ()))
        return cls(tuple(map(str, model["classes"])), bool(told.get("several", False)), attributes, combinations, *read, together, apart)

    def to_model(self) -> dict[str, Any]:
        """For ``model.json``, beside ``classes``."""
        told = {name: [asdict(one) for one in getattr(self, name)] for name in ("attributes", "combinations", "together")}
        read = {"vocabulary": list(self.vocabulary), "longest": self.longest, "further": list(self.further), "features": self.features}
        return {"several": self.several, **told, **read, "apart": [list(one) for one in self.apart]}

    @property
    def words(self) -> tuple[str, ...]:
        """All that a text can be made of, in the order of their places."""
        return (*self.vocabulary, *self.further)

    @property
    def met(self) -> Conditions:
        """The same without :attr:`further`: in these a model is trained, so that a word of few patients' texts is never read."""
        return replace(self, further=())

    def seen(self, findings: Sequence[int], values: Mapping[str, str]) -> bool:
        """Whether enough training patients had this together.

        Args:
            findings: 1, 0, or -1 for what is left open, in the order of the classes.
            values: of attributes, by name; of numbers, and of what a model of an earlier version was not told, nothing is known.
        """
        if self.several and any(mark >= 0 for mark in findings):
            shown = itertools.chain((Together(one.findings, ()) for one in self.combinations), self.together)
            if not any(one.has(findings, ()) for one in shown):
                return False
        asked = [values.get(one.name, "") for one in self.attributes if one.values]
        return not (self.together and any(asked)) or any(one.has(findings, asked) for one in self.together)

    @property
    def listed(self) -> list[tuple[str, int | str]]:
        """Findings, present and (where an image can have several) absent, and values of attributes that have a list of them, by name."""
        marks: list[tuple[str, int | str]] = [(name, mark) for name in self.classes for mark in ((0, 1) if self.several else (1,))]
        return marks + [(one.name, value) for one in self.attributes for value in one.values]

    def never_with(self, findings: Sequence[int], values: Mapping[str, str], words: Sequence[str]) -> tuple[str, str, int | str] | None:
        """The first of a text's words that too few training patients had with a finding or an attribute's value that is asked for too, and
        what that is; None where there is none, or nothing is known of it. What more of them had together is not known."""
        marks = dict(zip(self.classes, findings))
        for (name, value), apart in zip(self.listed, self.apart):
            asked = (marks if isinstance(value, int) else values).get(name)
            if asked == value and (found := [word for word in words if word in apart]):
                return found[0], name, value
        return None

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many values each field has."""
        first = (2,) * len(self.classes) if self.several else (len(self.classes),)
        return (*first, *(one.size for one in self.attributes))

    @property
    def names(self) -> tuple[str, ...]:
        """Of all fields; the class, where an image has one, goes without."""
        read = (TEXT,) if self.vocabulary else ()
        return (*(self.classes if self.several else ()), *(one.name for one in self.attributes), *read)

    def field(self, name: str) -> int:
        """Place of a finding's or an attribute's field; of a class's, where each image has one, that of all; the text's is the last."""
        if name == TEXT:
            return len(self.sizes)
        if name in self.classes:
            return self.classes.index(name) if self.several else 0
        return len(self.sizes) - len(self.attributes) + [one.name for one in self.attributes].index(name)

    def of(self, images: Described) -> Condition:
        """The condition of images. Raises InputError where one has several findings, or none, and the model knows one class an image."""
        return self.condition(images.findings, images.asked)

    def condition(self, findings: NDArray[np.int8], asked: Mapping[str, NDArray[Any]]) -> Condition:
        """As :meth:`of`, from the findings ``[n, K]`` and attributes by name; what is not there is unknown."""
        columns = list(np.where(findings < 0, 2, findings).astype(np.int64).T) if self.several else [self._class(findings)]
        between = [np.zeros(len(findings), np.float32) for _ in columns]
        for one in self.attributes:
            code, share = one.codes(asked[one.name]) if one.name in asked else (np.full(len(findings), one.size), between[0])
            columns.append(code)
            between.append(share)
        continuous = any(one.knots for one in self.attributes)
        return Condition(
            torch.from_numpy(np.stack(columns, axis=1).astype(np.int64)),
            self.sizes,
            len(self.classes) if self.several else 0,
            torch.from_numpy(np.stack(between, axis=1).astype(np.float32)) if continuous else None,
            self._words(asked.get(TEXT), len(findings)) if self.vocabulary else None,
            tuple(place for place, word in enumerate(self.words, 1) if word in DENYING) if self.vocabulary else (),
        )

    def _words(self, texts: NDArray[Any] | None, count: int) -> Tensor:
        """Words by their places in the vocabulary, from 1, ``int64 [count, longest]``; 0 where there is none."""
        table = np.zeros((count, self.longest), np.int64)
        places = {word: place for place, word in enumerate(self.words, 1)}
        for row, text in zip(table, () if texts is None else texts):
            known = [places[word] for word in str(text).split() if word in places][: self.longest]
            row[: len(known)] = known
        return torch.from_numpy(table)

    def _class(self, findings: NDArray[np.int8]) -> NDArray[np.int64]:
        present = findings == 1
        if (findings == -1).all(axis=1).any():  # nothing asked for
            return np.where(present.any(axis=1), present.argmax(axis=1), len(self.classes)).astype(np.int64)
        if not (present.sum(axis=1) == 1).all():
            raise InputError("some images have several findings, or none: this needs a cohort with one class an image")
        return np.asarray(present.argmax(axis=1), np.int64)
