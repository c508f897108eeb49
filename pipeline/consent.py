"""A patient's consent: where the images of one are, and removing a run's patient data while its release stays.

Pseudonyms are made again from the patient's id under the key of the cohorts; the id itself is in no file, log or message.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import artifacts, folders
from pipeline.cohorts import folder, purged
from pipeline.cohorts.key import NAME, project_key
from pipeline.cohorts.ledger import restore
from pipeline.errors import InputError
from pipeline.secret import from_environment
from pipeline.show import run_near
from pipeline.stages import BY_NAME

OTHER_KEY, NOBODYS = "its pseudonyms were made under another key", "its source says of no image whose it is"


@dataclass(frozen=True)
class Place:
    """A run that held images of a patient, or that cannot tell.

    Attributes:
        run: its folder.
        images: how many of the patient's were in each split; the generator saw those of ``train``.
        release: id of its release; empty where it has none.
        verdict: of that: images left the house with ``pass`` alone.
        purged: the day on which its patient data were removed; empty where they are there.
        unknown: why it cannot tell; empty where it can.
    """

    run: Path
    images: Mapping[str, int]
    release: str = ""
    verdict: str = ""
    purged: str = ""
    unknown: str = ""


def where(patient: str, runs: Path, issuer: str = "") -> list[Place]:
    """The runs that held a patient's images, whether they are there or were purged, and those that cannot tell.

    Args:
        patient: the id, in any spelling that ingest takes for one (:func:`pipeline.ingest.patients.canonical`).
        runs: the folder in which run folders lie.
        issuer: of the id. Patients whom an ingest had to tell apart by their issuers are found by it alone.

    Raises:
        InputError: the id has no letter or digit, no run lies in the folder, or there is no key to make its pseudonym with.
    """
    from pipeline.ingest.patients import canonical

    if not (who := canonical(patient)):
        raise InputError("where: the id has no letter or digit: give the patient's id")
    if not runs.is_dir():
        raise InputError(f"no folder {runs.name}: give the folder in which the run folders lie as --runs")
    if not _runs(runs) and not purged.all_purged():
        raise InputError(f"no run folder lies in {runs}: give the folder in which they lie as --runs")
    key = _key(runs)
    names = {artifacts.keyed(key, "patient", who)[:16], artifacts.keyed(key, "issued", who, canonical(issuer))[:16]}
    found = [*_present(runs, names, artifacts.key_mark(key)), *_purged(names, artifacts.key_mark(key))]
    return [place for place in found if place.images or place.unknown]


def _key(runs: Path) -> bytes:
    """The key of the cohorts. Raises InputError where there is none: one that is made now finds nobody."""
    made = from_environment("SYNTHCOHORT_KEY") is not None or bool(os.environ.get("SYNTHCOHORT_KEY_FILE"))
    if not made and not (folder.folder() / NAME).is_file():
        raise InputError(f"there is no key in {folder.folder()}: give the folder of the cohorts as SYNTHCOHORT_COHORTS, or the key itself")
    return project_key(runs)


def _runs(folder: Path) -> list[Path]:
    """The run folders in a folder. Raises InputError where it is one itself: there would be none in it, and no patient's images."""

    def ours(path: Path) -> bool:
        return (path / "ingest").is_dir() or (path / artifacts.UNFINISHED / "ingest").is_dir()

    if ours(folder):
        raise InputError(f"{folder} is a run folder: give the folder in which it lies, as --runs {folder.absolute().parent}")
    return sorted(filter(ours, folder.iterdir()))


def _present(runs: Path, names: set[str], mark: str) -> Iterator[Place]:
    import pyarrow.parquet

    for run in _runs(runs):
        ingest = run / "ingest"
        facts = artifacts.read_json(ingest / "cohort.json")
        try:
            rows = pyarrow.parquet.read_table(ingest / "rows.parquet", columns=["patient", "split"]).to_pydict()
        except (OSError, ValueError, KeyError):
            rows = None
        if rows is None or not isinstance(facts, dict):
            yield Place(run, {}, unknown="its ingest is not finished, or damaged")
        elif facts.get("key_mark") != mark:
            yield Place(run, {}, unknown=OTHER_KEY)
        elif facts.get("unit") != "patient":
            yield Place(run, {}, unknown=NOBODYS)
        else:
            held = Counter(split for patient, split in zip(rows["patient"], rows["split"], strict=True) if patient in names)
            yield Place(run, dict(held), *_released(run))


def _purged(names: set[str], mark: str) -> Iterator[Place]:
    for run in purged.all_purged():
        unknown = OTHER_KEY if run.key != mark else NOBODYS if run.unit != "patient" else ""
        held: Counter[str] = Counter()
        for name in names & run.images.keys() if not unknown else ():
            held.update(run.images[name])
        yield Place(Path(run.run), dict(held), run.release, run.verdict, run.date, unknown)


def _released(run: Path) -> tuple[str, str]:
    """Id and verdict of a run's release; empty where there is none."""
    from pipeline.release.bounded import Damage
    from pipeline.release.contents import GATE
    from pipeline.release.verdict import read_gate

    try:
        gate = read_gate(run / "release" / GATE)
    except (Damage, OSError):
        return "", ""
    return gate["release"], gate["verdict"]


@dataclass(frozen=True)
class Removal:
    """What a purge removes and keeps.

    Attributes:
        removed: bytes by folder or file of the run.
        kept: why, by folder of the run.
    """

    removed: Mapping[str, int]
    kept: Mapping[str, str]


def removal(run: Path) -> Removal:
    """What :func:`purge` would remove and keep. Raises InputError where the folder is no run's, or holds what no run wrote."""
    from pipeline.release.verdict import weights_verdict

    folders.claim(run, tuple(BY_NAME), {})
    stages = {name: record for name in BY_NAME if (record := artifacts.load_record(run / name)) is not None}
    for name, record in stages.items():
        if count := artifacts.strangers(run / name, record):
            raise InputError(f"{run.name}/{name} holds files or links that this run did not write ({count}): move them out of it")
    kept = {}
    if "release" in stages:
        kept["release"] = "the verdict and the report, and the images where they passed: no patient data"
    if "train" in stages and weights_verdict(run, stages["train"]) == "pass":
        kept["train"] = "the weights passed the gate: synthcohort generate goes on working"
    others = [run / name for name in (*BY_NAME, artifacts.UNFINISHED, *folders.SOURCES) if name not in kept]
    removed = {path.name: _size(path) for path in others if path.exists()}
    if not removed:
        raise InputError(
            f"{run.name} is no run folder, or was purged already: give one that synthcohort run wrote, such as {run_near(run)}"
        )
    return Removal(removed, kept)


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [below for below in path.rglob("*") if below.is_file() and not below.is_symlink()]
    return sum(file.lstat().st_size for file in files)


def purge(run: Path) -> Removal:
    """Remove a run's patient data; its release stays, and its weights where they passed.

    What the cohort's ledger holds stays: splits and attempts belong to the cohort, and later runs of it need them. Whose images the run
    held is kept there, so that :func:`where` goes on answering. A purge that was killed is finished by the next one.

    Raises:
        InputError: as :func:`removal`, or another process uses the run.
    """
    with artifacts.lock(run):
        folders.recover(run, tuple(BY_NAME))
        found = removal(run)
        if (run / "ingest" / artifacts.RECORD).is_file():
            restore(run, stands=True)
            purged.note(_note(run))
        if (record := artifacts.load_record(run / "generate")) is not None:
            artifacts.write_json(run / folders.PURGED, {"generate": record["identity"]})
        _discard_unfinished(run)
        for name in reversed([name for name in BY_NAME if name in found.removed and name != "ingest"]):
            folders.discard(run / name)
        # Last and in one rename: a purge that is killed leaves it whole, to be noted, or where it is not looked at again.
        if (run / "ingest").is_dir():
            (run / artifacts.UNFINISHED).mkdir(mode=0o700)
            (run / "ingest").rename(run / artifacts.UNFINISHED / "ingest")
            _discard_unfinished(run)
        for name in folders.SOURCES:
            (run / name).unlink(missing_ok=True)
    return found


def _discard_unfinished(run: Path) -> None:
    draft = run / artifacts.UNFINISHED
    if draft.is_dir():
        for path in draft.iterdir():
            folders.discard(path) if path.is_dir() else path.unlink()
        draft.rmdir()


def _note(run: Path) -> purged.Purged:
    import pyarrow.parquet

    from pipeline.images import unit_of

    rows: dict[str, list[Any]] = pyarrow.parquet.read_table(run / "ingest" / "rows.parquet", columns=["patient", "split"]).to_pydict()
    images: dict[str, dict[str, int]] = {}
    for patient, split in zip(rows["patient"], rows["split"], strict=True):
        held = images.setdefault(patient, {})
        held[split] = held.get(split, 0) + 1
    mark = str(artifacts.read_object(run / "ingest" / "cohort.json").get("key_mark", ""))
    release, verdict = _released(run)
    return purged.Purged(str(run.resolve()), release, verdict, time.strftime("%Y-%m-%d"), mark, unit_of(run / "ingest"), images)
