"""Acceptance rules as the user writes them: a file of sentences, held to what is known of model and cases at that time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evaluation import rules as accept
from evaluation.shifts import SHIFTS, fitting
from pipeline.config.load import read_yaml
from pipeline.errors import InputError
from pipeline.models.cases import ATTRIBUTES

RULES = 200
TOLD = 5
"""Wrong rules that are told at once."""
COLOUR = 3


def lines(path: Path) -> list[str]:
    """The rules of a file: a YAML list of sentences, or ``rules:`` with one.

    Raises:
        InputError: there is no such file, or it holds no such list.
    """
    path = path.expanduser()
    if not path.is_file():
        raise InputError(f"no rules {path.name}: give a YAML list of sentences such as {accept.FORM.partition('such as ')[2]}")
    data = read_yaml(path)
    found = data.get("rules") if isinstance(data, dict) and set(data) == {"rules"} else data
    if not isinstance(found, list) or not found or not all(isinstance(line, str) for line in found) or len(found) > RULES:
        raise InputError(f"{path.name}: not a list of 1 to {RULES} rules, each after '- ' on a line of its own: {accept.FORM}")
    return list(found)


def parsed(sentences: Sequence[str], path: Path | None, names: Sequence[str], shifts: Sequence[str], *, against: bool) -> list[accept.Rule]:
    """The rules. Raises InputError with what is wrong with each of them; ``names`` are empty where the classes are not known yet."""
    rules, wrong = [], []
    for sentence in sentences:
        try:
            rules.append(accept.parsed(sentence, names, shifts, against=against, columns=ATTRIBUTES))
        except accept.RuleError as error:
            wrong.append(str(error))
    if wrong:
        further = f"; and {len(wrong) - TOLD} more" if len(wrong) > TOLD else ""
        raise InputError(f"{path.name if path is not None else 'rules'}: {'; '.join(wrong[:TOLD])}{further}")
    return rules


def known(path: Path, classes: Sequence[str], modality: str | None, *, against: bool) -> list[str]:
    """The sentences of a file, held to what is known before any image or model is looked at.

    Args:
        classes: that the model's contract names; empty where it names none.
        modality: DICOM's code, where contract or user say it: it tells which shifts will be tried.
        against: whether there is a second model.

    Raises:
        InputError: as :func:`lines` and :func:`parsed`.
    """
    sentences = lines(path)
    parsed(sentences, path, classes, tuple(SHIFTS) if modality is None else fitting(modality, COLOUR), against=against)
    return sentences
