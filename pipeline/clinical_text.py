"""Reports as a model may read them: in a closed vocabulary, so that no name, number, date or rare word ever enters it.

The vocabulary is a list of radiological terms, as RadLex has them, and those of the cohort's own words that many patients' reports have and
that are written as no name is: in small letters wherever a sentence does not begin with them. What is in neither is left out of a report
when it is read, and is stored nowhere.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from pipeline.clinical_terms import TERMS

LONGEST = 48
"""Words of a report that are kept, from its beginning."""
MOST = 400
"""Words of its own that a cohort adds, at the most; the commonest."""
LEAST_PATIENTS = 11
"""Patients in whose reports a word of the cohort's own is, at the least."""
# What stands before a person's name or a place's.
BEFORE_NAMES = frozenset(
    [
        *("dr", "mr", "mrs", "ms", "miss", "prof", "professor", "doctor", "sister", "nurse", "patient", "name"),
        *("by", "from", "at", "signed", "discussed", "dictated", "informed", "notified", "phoned", "telephoned"),
        *("radiologist", "consultant", "registrar", "reporter"),
    ]
)
NAMES = 2
"""Words that a person's name may have."""
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


LISTED = tuple(sorted(set(TERMS.split())))
"""The terms."""


def vocabulary(reports: Sequence[str], patients: Sequence[str]) -> tuple[str, ...]:
    """The terms, and the cohort's own words after them, the commonest first.

    Args:
        reports: free texts.
        patients: whose each is.
    """
    whose: dict[str, set[str]] = {}
    written, named = set[str](), set[str]()
    for report, patient in zip(reports, patients, strict=True):
        cased = report != report.lower()  # without a capital anywhere, small letters do not tell a word from a name
        for word, begins, after_title in _words(report):
            small = word.lower()
            if after_title or (word != small and not begins):
                named.add(small)
            if word == small and cased:
                written.add(small)
            whose.setdefault(small, set()).add(patient)
    named |= whose.keys() - written
    counts = Counter({word: len(people) for word, people in whose.items() if len(people) >= LEAST_PATIENTS and len(word) > 1})
    own = [word for word, _ in sorted(counts.items(), key=lambda one: (-one[1], one[0])) if word not in named and word not in LISTED]
    return (*LISTED, *own[:MOST])


def closed(report: str, words: frozenset[str]) -> str:
    """A report in these words and nothing else, in its order, its first :data:`LONGEST`."""
    kept = [word.lower() for word, _, _ in _words(report) if word.lower() in words]
    return " ".join(kept[:LONGEST])


def unknown(prompt: str, words: frozenset[str]) -> list[str]:
    """What a prompt says in other words than these; figures among it."""
    return [part for part in re.findall(r"[^\s,.;:!?()/]+", prompt) if part.lower() not in words]


def _words(report: str) -> Iterator[tuple[str, bool, bool]]:
    """Each word, whether it begins a sentence, and whether a title, or the first name after one, is just before it.

    Whatever has a digit in it is no word.
    """
    begins, since_title = True, NAMES
    for part in report.split():
        found = None if any(letter.isdigit() for letter in part) else _WORD.search(part)
        if found is not None:
            yield found[0], begins, since_title < NAMES
        title = found is not None and found[0].lower() in BEFORE_NAMES
        since_title = 0 if title else since_title + 1
        begins = part.endswith((".", "!", "?")) and not title
