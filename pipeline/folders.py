"""Which folders a run may write and replace, and how a finished stage gives way to a new one.

A stage is made in ``RUN/unfinished/<stage>`` and renamed to ``RUN/<stage>`` when it is whole. Where finished stages are replaced
(``--redo``), all that replace them are made first and take their places together at the end: until then the run is as it was, whatever
happens, and the disk holds both. What an interrupted or failed attempt left stays in ``unfinished`` until the same command goes on with
it or an attempt at another configuration takes its place.

A folder is this program's where it holds a record that fits itself (:func:`pipeline.artifacts.load_record`), or the mark of an attempt in
``unfinished``. Nothing else is ever removed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import artifacts
from pipeline.artifacts import PARTIAL, RECORD, UNFINISHED
from pipeline.errors import InputError

SWAP = "swap.json"
REPLACED = ".replaced"
PROGRAM = "synthcohort"
PURGED = "purged.json"
"""How a run sampled its model, after its patient data were removed: see :mod:`pipeline.consent`."""
SOURCES = (".sources.json", ".holdout.json", ".foreign.json", ".label-table.json", ".text-encoder.json")
"""What a run notes of the files that it was given."""
FILES = (".lock", "log.jsonl", PURGED, *SOURCES)
"""What a run writes in its folder beside the stages' folders."""


def claim(run: Path, stages: Sequence[str], sources: Mapping[str, Path], keep: Iterable[Path] = ()) -> None:
    """Refuse a run folder in which a stage's folder is not ours to write, or in which something lies that the run reads.

    Nothing is touched. Links, ``..``, letter case and bind mounts do not hide that two paths lead to one place.

    Args:
        run: the run folder, which need not exist.
        stages: the stages' names.
        sources: what is read, by the setting that names it: folders with all that is below them, or files.
        keep: further files that are not the run's, such as the configuration's own.

    Raises:
        InputError: a file that the run writes beside its stages is a link or no file; a stage's folder is a link, a file, a mount point, or
            holds what this program did not write; or a source lies in one, is one, or holds one.
    """
    if os.path.lexists(run) and not run.is_dir():
        raise InputError(f"{run.name} is a file or a link to nothing: give --out a folder")
    for name in FILES:
        path = run / name
        # A link's target would be written, and opening a pipe waits for ever.
        if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
            raise InputError(f"{run.name}/{name} is not a file of this program's: move it away, or give another --out")
    ours = [run / name for name in (*stages, UNFINISHED)]
    for setting, path in [*sources.items(), *(("the configuration", path) for path in keep if path.is_file())]:
        for folder in ours:
            if _within(path, folder):
                raise InputError(
                    f"{setting} lies in {run.name}/{folder.name}, which a run replaces: move it elsewhere, or give another --out"
                )
            if path.is_dir() and _within(folder, path):
                raise InputError(f"the folder {run.name} lies in {setting}, whose files would then be its own: give another --out")
    for name in stages:
        _check(run / name, artifacts.load_record)
    if not _check(run / UNFINISHED, lambda _: {}):
        return
    for path in (run / UNFINISHED).iterdir():
        name = path.name.removesuffix(REPLACED)
        if name in stages:
            _check(path, _replaced if path.name != name else _attempt)
        elif not path.name.startswith(f".{SWAP}.") and path.name not in (SWAP, *artifacts.LITTER):
            raise InputError(f"{run.name}/{UNFINISHED} holds what this program did not write: move it away, or give another --out")


def claim_alone(out: Path, sources: Mapping[str, Path], *, ours: bool) -> None:
    """Refuse a folder without stages that is not ours to write, or that lies where something is read, or holds that.

    Args:
        out: the folder, which need not exist.
        sources: as :func:`claim`'s.
        ours: whether what it holds, if anything, was written by an earlier call that this one goes on with or replaces.

    Raises:
        InputError: as :func:`claim`, a source lies in the folder, or it holds something that is not ours.
    """
    claim(out, (), sources)
    for setting, path in sources.items():
        if _within(path, out):
            raise InputError(f"{setting} lies in {out.name}, which is written anew: move it elsewhere, or give another --out")
    if out.is_dir() and any(out.iterdir()) and not ours:
        raise InputError(f"{out.name} is there and not empty: give --out a folder that is not")


def _check(folder: Path, mark: Any) -> bool:
    """Whether there is a folder with something in it. Raises InputError where it is not ours by its ``mark``."""
    where = f"{folder.parent.name}/{folder.name}"
    if not os.path.lexists(folder):
        return False
    if folder.is_symlink() or not folder.is_dir() or os.path.ismount(folder):
        kind = "a link" if folder.is_symlink() else "a mount point" if folder.is_dir() else "a file"
        raise InputError(f"{where} is {kind}, and a run puts a folder of its own there: move it away, or give another --out")
    try:
        empty = all(path.name.startswith(f".{PARTIAL}.") or path.name in artifacts.LITTER for path in folder.iterdir())
    except OSError:
        raise InputError(f"{where} cannot be read: mend its permissions, or give another --out") from None
    if not empty and mark(folder) is None:
        raise InputError(
            f"{where} holds files, but no {RECORD} of this program: it is not touched; move it away if it is yours, "
            f"delete it if it is a damaged stage of this run, or give another --out"
        )
    return not empty


def _attempt(folder: Path) -> dict[str, Any] | None:
    """The mark of an attempt, or the record of a finished one; None where there is neither."""
    record = artifacts.load_record(folder)
    if record is not None:
        return record
    mark = artifacts.read_json(folder / PARTIAL)
    fits = isinstance(mark, dict) and mark.get("program") == PROGRAM and mark.get("stage") == folder.name
    return mark if fits and isinstance(mark.get("fingerprint"), str) else None


def _replaced(folder: Path) -> dict[str, Any] | None:
    """The record of a finished stage that was moved aside, or is being removed."""
    return artifacts.load_record(folder, folder.name.removesuffix(REPLACED))


def _within(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or lies below it, in whatever words the two are given."""
    try:
        real, place = path.expanduser().resolve(), folder.expanduser().resolve()
    except (OSError, RuntimeError):
        raise InputError(f"{path.name} is a circle of links: give the folder itself") from None
    above = [place.parts, real.parts[: len(place.parts)]]
    if [part.casefold() for part in above[0]] == [part.casefold() for part in above[1]]:
        return True
    return any(_same(each, place) for each in (real, *real.parents))


def _same(one: Path, other: Path) -> bool:
    try:
        return os.path.samestat(one.stat(), other.stat())
    except OSError:
        return False


def open_stage(folder: Path, identity: Mapping[str, Any], *, resumable: bool, private: bool) -> bool:
    """Make ready a folder for a stage that is about to run; True if an interrupted attempt at the same identity goes on.

    What an attempt at another identity left, or a stage that cannot resume, is removed first. ``private`` folders are
    made 0700, because they hold patient data until a verdict says otherwise.
    """
    resumes = resumable and attempted(folder, identity)
    if folder.exists() and not resumes:
        discard(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob(".*.json.*"):  # what a kill left of write_json
        path.unlink()
    folder.chmod(0o700 if private else 0o755)
    (folder / RECORD).unlink(missing_ok=True)
    artifacts.write_json(folder / PARTIAL, _mark(folder, identity))
    return resumes


def attempted(folder: Path, identity: Mapping[str, Any]) -> bool:
    """Whether a stage's folder holds what an interrupted attempt at this identity left."""
    return bool(artifacts.read_json(folder / PARTIAL) == _mark(folder, identity))


def of_another(folder: Path, identity: Mapping[str, Any]) -> bool:
    """Whether a stage's folder holds work of an interrupted attempt at another identity: other settings, inputs or code.

    Work that can go on lies in folders (checkpoints, batches); an attempt that was refused before it did any leaves none.
    """
    mark = artifacts.read_json(folder / PARTIAL)
    if not isinstance(mark, dict) or mark == _mark(folder, identity):
        return False
    return any(path.is_dir() and not path.is_symlink() and any(path.iterdir()) for path in folder.iterdir())


def _mark(folder: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """What :func:`open_stage` leaves in a folder while its stage runs."""
    return {"program": PROGRAM, "stage": identity.get("stage", folder.name), "fingerprint": artifacts.fingerprint(identity)}


def discard(folder: Path) -> None:
    """Remove a folder that :func:`claim` has found to be ours; its record or mark goes last, so that a kill leaves it known as ours."""
    if not folder.exists():
        return
    marks = [folder / RECORD, folder / PARTIAL]
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path not in marks:
            path.unlink()
    for path in marks:
        path.unlink(missing_ok=True)
    folder.rmdir()


def _clear(folder: Path) -> None:
    """Remove a folder that is empty but for what a file manager left."""
    for name in artifacts.LITTER:
        (folder / name).unlink(missing_ok=True)
    folder.rmdir()


def take_place(run: Path, stages: Sequence[str]) -> None:
    """Put finished stages from ``unfinished`` into their places; a kill at any moment is made good by :func:`recover`."""
    artifacts.write_json(run / UNFINISHED / SWAP, list(stages))
    recover(run, stages)


def recover(run: Path, stages: Sequence[str]) -> None:
    """Finish what a killed :func:`take_place` began, and tidy ``unfinished``.

    Raises:
        InputError: its list of stages is damaged.
    """
    draft = run / UNFINISHED
    if not draft.is_dir():
        return
    listed: Any = []
    if (draft / SWAP).exists():
        listed = artifacts.read_json(draft / SWAP)
        if not isinstance(listed, list) or not set(map(str, listed)) <= set(stages):
            raise InputError(f"{run.name}/{UNFINISHED}/{SWAP} is damaged: delete it, and the same command goes on")
    for name in stages:
        new, place, old = draft / name, run / name, draft / f"{name}{REPLACED}"
        if name in listed and new.is_dir() and artifacts.read_record(new) is not None:
            if artifacts.load_record(place) is not None:
                discard(old)
                place.rename(old)
            elif place.is_dir():
                _clear(place)
            (new / PARTIAL).unlink(missing_ok=True)  # a kill may have left it beside the record
            new.rename(place)
        elif old.is_dir() and not place.is_dir():
            old.rename(place)
        discard(old)
    for path in (draft / SWAP, *draft.glob(f".{SWAP}.*")):
        path.unlink(missing_ok=True)
    if not any(draft.iterdir()):
        draft.rmdir()
