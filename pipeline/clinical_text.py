"""Reports as a model may read them: in a closed vocabulary, so that no name, number, date or rare word ever enters it.

The vocabulary is a list of radiological terms, as RadLex has them, and those of the cohort's own words that many patients' reports have and
that are written as no name is: in small letters wherever a sentence does not begin with them, and not where names stand. What is in neither
is left out of a report when it is read, and is stored nowhere; scripts without capitals add no words. What no rule sees is one name by
itself that is written in small letters amid the sentences of many patients' reports.
"""

from __future__ import annotations

import html
import itertools
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence, Set

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
# What leads to a name, among other words.
LEADING = frozenset(["and", "for", "per", "to", "via", "with"])
DENYING = frozenset(
    [
        *("no", "not", "without", "none", "nor", "neither", "never", "cannot"),
        *("negative", "absent", "free", "resolved", "unlikely", "excluded"),
        *("kein", "keine", "keinen", "nicht", "ohne", "sin", "ni", "ningún", "ninguna", "sans", "pas", "aucun", "aucune"),
        *("non", "senza", "nessun", "nessuna", "sem", "não", "nenhum", "nenhuma", "geen", "niet", "zonder"),
    ]
)
"""Words that deny what stands before or after them."""
NAMES = 2
"""Words that a person's name may have."""
ADDRESSES = ("@", "://", "\\", "www.")
"""What addresses of people, pages and files have in them."""
_WORD = re.compile(r"[^\W\d_]+(?:['’‐-][^\W\d_]+)*")
_MARKUP = re.compile(r"<[/!]?[A-Za-z][^<>]*>")
# Two words without a space between them: "effusion.No", "pleural/pericardial", "effusion--small".
_GLUE = re.compile(r"(?<=[^\W_])((?:[^\w\s'’‐-]|[‐-]{2,})+)(?=\w)")
_AROUND = re.compile(r"^[\W_]+|[\W_]+$")


LISTED = tuple(sorted(set(TERMS.split())))
"""The terms."""
_LISTED = frozenset(LISTED)


def vocabulary(reports: Sequence[str], patients: Sequence[str]) -> tuple[str, ...]:
    """The terms, and the cohort's own words after them, the commonest first.

    Counts are of patients, so that a patient's own name is rare, however often it is written. Who reports or refers has many patients: a
    word is out that is a name in one report, and one that stands where names do in half of the patients' reports that have it.

    Args:
        reports: free texts.
        patients: whose each is.
    """
    whose: dict[str, set[str]] = {}
    written, named = set[str](), set[str]()
    places = _Places()
    for report, patient in zip(reports, patients, strict=True):
        words = list(_words(report))
        cased = any(word != word.lower() for word, _, _ in words)  # without a capital, small letters do not tell a word from a name
        for word, begins, after_title in words:
            small = word.lower()
            if after_title or (word != small and not begins):
                named.add(small)
            # In a script without capitals, and in letters that only look like small ones, a name is written as any word is.
            if cased and word == small and not any(letter.isalpha() and letter == letter.upper() for letter in word):
                written.add(small)
            whose.setdefault(small, set()).add(patient)
        places.add([word.lower() for word, _, _ in words], patient)
    common = {word for word in written - named - _LISTED if len(whose[word]) >= LEAST_PATIENTS and len(word) > 1}
    common -= places.of_names(common, named, whose)
    return (*LISTED, *sorted(common, key=lambda word: (-len(whose[word]), word))[:MOST])


class _Places:
    """Where words stand: the patients in whose reports each is at an end or after a word that leads to names, and those who have each pair.

    A signature is at an end of a report. Names stand side by side, or with an "and" between them: what is next to a name in half of the
    patients' reports that have it is one too.
    """

    def __init__(self) -> None:
        self.exposed: dict[str, set[str]] = {}
        self.beside: dict[str, dict[str, set[str]]] = {}

    def add(self, words: Sequence[str], patient: str) -> None:
        """A report's words, in their order."""
        for before, word, after in zip(["", *words], words, [*words[1:], ""]):
            if not before or not after or before in LEADING:
                self.exposed.setdefault(word, set()).add(patient)
        joined = [word for word in words if word != "and"]
        for one, other in itertools.pairwise(joined):
            self.beside.setdefault(one, {}).setdefault(other, set()).add(patient)
            self.beside.setdefault(other, {}).setdefault(one, set()).add(patient)

    def of_names(self, words: Set[str], named: Set[str], whose: Mapping[str, Set[str]]) -> Set[str]:
        """Those of the words that stand where names do, ``named`` being known ones."""
        names = named | {word for word in words if 2 * len(self.exposed.get(word, ())) >= len(whose[word])}
        new = names
        while new:
            near = {word for word in words - names if new & self.beside.get(word, {}).keys()}
            new = {word for word in near if 2 * len(self._next_to(word, names)) >= len(whose[word])}
            names = names | new
        return names

    def _next_to(self, word: str, names: Set[str]) -> set[str]:
        """The patients in whose reports it is next to one of these."""
        return set().union(*(people for other, people in self.beside[word].items() if other in names))


def closed(report: str, words: frozenset[str]) -> str:
    """A report in these words and nothing else, in its order, its first :data:`LONGEST`."""
    kept = [word.lower() for word, _, _ in _words(report) if word.lower() in words]
    return " ".join(kept[:LONGEST])


def coverage(reports: Sequence[str], words: frozenset[str]) -> float:
    """The share of the words of reports that are among these; 1 of no word."""
    said = [word.lower() in words for report in reports for word, _, _ in _words(report)]
    return sum(said) / len(said) if said else 1.0


def unknown(prompt: str, words: frozenset[str]) -> list[str]:
    """What a prompt says in other words than these; figures among it."""
    said = (_AROUND.sub("", part) for part in _parts(prompt))
    return [word for word in said if word and word.lower() not in words]


def _parts(report: str) -> Iterator[str]:
    """A report parted at spaces, and where two words have none between them; without the marks of HTML, and letters in one form."""
    plain = unicodedata.normalize("NFKC", html.unescape(_MARKUP.sub(" ", report)))
    plain = "".join(letter for letter in plain if unicodedata.category(letter) != "Cf")
    for part in plain.split():
        yield from (part,) if _address(part) else _GLUE.sub(r"\1 ", part).split()


def _address(part: str) -> bool:
    return part.count("/") > 1 or any(mark in part for mark in ADDRESSES)


def _words(report: str) -> Iterator[tuple[str, bool, bool]]:
    """Each word, whether it begins a sentence, and whether a title, or the first name after one, is just before it.

    Whatever has a digit in it is no word, and no part of an address is one.
    """
    begins, since_title = True, NAMES
    for part in _parts(report):
        found = None if _address(part) else _WORD.fullmatch(_AROUND.sub("", part))
        if found is not None:
            yield found[0], begins, since_title < NAMES
        title = found is not None and found[0].lower() in BEFORE_NAMES
        since_title = 0 if title else since_title + 1
        begins = part.endswith((".", "!", "?")) and not title
