"""Runs whose patient data were removed: whose images they had held, so that the question of a patient's consent is answered later too.

One ``purged-<random>.json`` a run lies in the folder of the cohorts, which holds pseudonyms anyway; the run folder holds none any more.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from pipeline import artifacts
from pipeline.cohorts import folder
from pipeline.errors import InputError


@dataclass(frozen=True)
class Purged:
    """A run that was purged.

    Attributes:
        run: its folder, as an absolute path.
        release: id of its release; empty where it has none.
        verdict: of that; empty where it has none.
        date: of the removal, ``YYYY-MM-DD``.
        key: mark of the key of its pseudonyms.
        unit: ``patient`` or ``image``.
        images: how many of each patient were in each split: split to count, by pseudonym.
    """

    run: str
    release: str
    verdict: str
    date: str
    key: str
    unit: str
    images: Mapping[str, Mapping[str, int]]


def note(purged: Purged) -> None:
    """Keep what a run held, once. Raises InputError where the folder of the cohorts cannot be used."""
    known = [replace(each, date=purged.date) for each in all_purged()]
    if purged in known:  # by a purge that was killed
        return
    with folder.held(), folder.usable():
        artifacts.write_json(folder.folder() / f"purged-{secrets.token_hex(8)}.json", asdict(purged))


def all_purged() -> list[Purged]:
    """The runs that were purged. Raises InputError where what was kept of one is damaged."""
    found = []
    with folder.usable():
        for path in sorted(folder.folder().glob("purged-*.json")):
            try:
                found.append(Purged(**artifacts.read_json(path)))
            except TypeError:
                raise InputError(f"{path.name} in {path.parent} is damaged: restore it from a backup") from None
    return found
