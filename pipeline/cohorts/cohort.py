"""One cohort: what earlier runs settled of it."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from pipeline import artifacts

SPLITS = ("train", "audit", "val", "test")
TORN = "torn"
"""The split of what two cohorts had in different splits before a run joined them: every run leaves it out from then on."""


@dataclass(frozen=True)
class Attempt:
    """One generated set that was judged, under settings that draw the attacks and their power.

    Attributes:
        generated: digest of the set and of those settings: whoever draws them anew tries again.
        verdict: pass, fail or inconclusive; empty until a release says it. A pass stays, whatever is found later: its images are out.
        date: of the first judgement, ``YYYY-MM-DD``.
        recall: of the copy search on a set that passed, its lower bound, the lowest that was measured; None where it is not known.
    """

    generated: str
    verdict: str
    date: str
    recall: float | None = None

    def judged(self, verdict: str, recall: float | None) -> Attempt:
        """With a verdict, and the search's recall where it is a pass."""
        if self.verdict != "pass":
            return dataclasses.replace(self, verdict=verdict, recall=recall)
        return dataclasses.replace(self, recall=min((one for one in (self.recall, recall) if one is not None), default=None))


@dataclass(frozen=True)
class Cohort:
    """What earlier runs settled.

    Attributes:
        patients: split of every patient's pseudonym; empty where patients are unknown.
        images: split of every image's pseudonyms, by its identifier and by its values. A patient whose id is written or read in another
            way is found again by its images, and an image in another kind of file by its values.
        attempts: the sets that were judged, in their order.
        seen: pseudonyms of patients, or of images, that a foreign generator saw: their splits are not settled by that.
        former: whether some of its images may be known by no other pseudonym of their values than that of an earlier version.
    """

    patients: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)
    attempts: tuple[Attempt, ...] = ()
    seen: frozenset[str] = frozenset()
    former: bool = False

    def holds(self, patients: Set[str], images: Set[str]) -> bool:
        """Whether any of these belongs to the cohort."""
        known = ((self.patients.keys(), patients), (self.images.keys(), images), (self.seen, patients | images))
        return any(not ours.isdisjoint(theirs) for ours, theirs in known)

    def joined(self, other: Cohort) -> Cohort:
        """Both as one: attempts add up, and what they have in different splits is :data:`TORN`."""
        known = {attempt.generated: attempt for attempt in self.attempts}
        for attempt in other.attempts:
            ours = known.setdefault(attempt.generated, attempt)
            known[attempt.generated] = ours.judged(attempt.verdict, attempt.recall) if attempt.verdict == "pass" else ours
        attempts = sorted(known.values(), key=lambda attempt: attempt.date)
        patients, images = _joined(self.patients, other.patients), _joined(self.images, other.images)
        return Cohort(patients, images, tuple(attempts), self.seen | other.seen, self.former or other.former)

    def with_splits(self, patients: Mapping[str, str], images: Mapping[str, str], *, former: bool = False) -> Cohort:
        """With further assignments, by ``former`` pseudonyms of values or not; what is settled stays as it is."""
        everyone, every = {**patients, **self.patients}, {**images, **self.images}
        return dataclasses.replace(self, patients=everyone, images=every, former=former or self.former)

    def met(self, names: Set[str]) -> Cohort:
        """After a run that has images by the pseudonyms of this version and by the former ones.

        Args:
            names: all pseudonyms of the run. The former ones are needed no more where the cohort holds no others.
        """
        return dataclasses.replace(self, former=self.former and not self.images.keys() | self.seen <= names)

    def called(self, other_names: Mapping[str, str]) -> Cohort:
        """With images that are settled under another name settled by their own too.

        Args:
            other_names: of images, by their names.
        """
        also = {name: self.images[other] for name, other in other_names.items() if other in self.images}
        return dataclasses.replace(self, images=_joined(self.images, also))

    def contradicts(self, patients: Mapping[str, str], images: Mapping[str, str]) -> bool:
        """Whether any of these assignments differs from what is settled."""
        pairs = ((self.patients, patients), (self.images, images))
        return any(settled.get(name, split) != split for settled, given in pairs for name, split in given.items())

    def released(self, besides: str) -> dict[int, Attempt]:
        """The other sets that passed, by the number of their attempt: all that is out, whichever was judged or released first."""
        attempts = enumerate(self.attempts, 1)
        return {number: one for number, one in attempts if one.verdict == "pass" and one.generated != besides}

    def attempted(self, generated: str, verdict: str = "", recall: float | None = None) -> tuple[Cohort, int]:
        """With an attempt on record, and its number from 1; the same set again does not count twice."""
        attempts = list(self.attempts)
        place = next((number for number, one in enumerate(attempts) if one.generated == generated), len(attempts))
        if place == len(attempts):
            attempts.append(Attempt(generated, "", time.strftime("%Y-%m-%d")))
        if verdict:
            attempts[place] = attempts[place].judged(verdict, recall)
        return dataclasses.replace(self, attempts=tuple(attempts)), place + 1

    def to_json(self, key: bytes) -> bytes:
        """The content of its file, sealed under the key of the pseudonyms: an edit would turn a sealed patient into one of train."""
        value = {
            "key": artifacts.key_mark(key),
            "patients": dict(sorted(self.patients.items())),
            "images": dict(sorted(self.images.items())),
            "attempts": [dataclasses.asdict(attempt) for attempt in self.attempts],
            "seen": sorted(self.seen),
            "former": self.former,
        }
        return json.dumps(value | {"seal": _seal(value, key)}, indent=0).encode()

    @classmethod
    def from_json(cls, content: bytes, key: bytes) -> Cohort | None:
        """The cohort; None where it was made under another key. Raises ValueError where the content is damaged or was edited."""
        try:
            value = json.loads(content)
            seal = value.pop("seal")
            mark, patients, images, attempts = (value[name] for name in ("key", "patients", "images", "attempts"))
            judged = tuple(Attempt(**entry) for entry in attempts)
            splits, seen = {*patients.values(), *images.values()}, frozenset(value.get("seen", ()))
            former = value.get("former", True)
        except (RecursionError, TypeError, KeyError, AttributeError):
            raise ValueError("not a cohort's file") from None
        texts = [text for attempt in judged for text in (attempt.generated, attempt.verdict, attempt.date)]
        if not all(isinstance(text, str) for text in (mark, *texts, *seen)) or not splits <= {*SPLITS, TORN}:
            raise ValueError("not a cohort's file")
        recalls = [attempt.recall for attempt in judged if attempt.recall is not None]
        if not all(isinstance(recall, int | float) for recall in recalls) or not isinstance(former, bool):
            raise ValueError("not a cohort's file")
        if mark != artifacts.key_mark(key):
            return None
        if seal != _seal(value, key):
            raise ValueError("edited")
        return cls(patients, images, judged, seen, former)


def _seal(value: Mapping[str, Any], key: bytes) -> str:
    return artifacts.keyed(key, "cohort seal", artifacts.fingerprint(value))


def _joined(ours: Mapping[str, str], theirs: Mapping[str, str]) -> dict[str, str]:
    return {**ours, **{name: split if ours.get(name, split) == split else TORN for name, split in theirs.items()}}
