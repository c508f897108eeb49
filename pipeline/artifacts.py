"""What makes a stage's output trustworthy: its fingerprint, its record, and the checks that nothing on disk is taken on trust.

A stage's identity is its name, its integer version, its own configuration section, the run's seed, and the content digests of what it
read. Paths, hosts, times and worker counts stay out of it, so that moving a run does not redo it. ``record.json`` is
written last, in one rename: a folder without one is a stage that did not finish.

A record names every file of its stage by SHA-256, and is bound to itself: its fingerprint is that of its identity, its digest that of its
files. A stage that runs has the files that it reads hashed against it (:class:`Checked`); so a file that was damaged, edited, swapped or
added is found there, whatever its size. Somebody who edits a file *and* its record, digest included, is found by every later stage that is
still there, because its identity binds the digest that it read, and by the release's ``gate.json``, which binds images and weights.
What cannot be found: such an edit together with the removal, or a like forgery, of everything after it. It takes a signature under a key
that the forger does not have (``release.sign``) to tell then.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from pipeline.errors import InputError
from pipeline.provenance import hardware, versions

RECORD = "record.json"
PARTIAL = "partial.json"
UNFINISHED = "unfinished"
"""The folder of a run in which stages are made: see :mod:`pipeline.folders`."""
LITTER = {".DS_Store", "Thumbs.db", "desktop.ini"}
"""Files that a file manager leaves in any folder that somebody looks into."""
LARGEST = 64 << 20
"""Bytes of the largest JSON file that is read: the record of a release of some 200 000 images."""
CONTAINERS = 1 << 20
"""Lists and mappings in one JSON file, which take far more memory than bytes."""
LONGEST_NUMBER = 32
SEAL = "seal"
"""The record's entry that is the fingerprint of all others."""
HEX = re.compile(r"[0-9a-f]{64}")
LONE_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def fingerprint(identity: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a stage's identity."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below ``folder`` by relative path, but for the stage's own record and mark."""
    return {name: file_digest(folder / name) for name in sorted(_contents(folder)[0])}


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file of mode 0600 in one rename: a reader, or a process after a kill, sees the old content or the new one, never a part."""
    # Made by mkstemp, so that it is 0600 from its first byte on.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON as :func:`write_bytes` writes it; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path, largest: int = LARGEST) -> Any:
    """Read JSON as :func:`write_json` writes it, in bounded memory; a missing or damaged file gives None.

    Damaged is what cannot be opened or is no regular file, is not UTF-8, larger than ``largest`` bytes, nested deeper than Python's
    recursion, of more than :data:`CONTAINERS` lists and mappings, or holds NaN, an infinite number, one of 33 digits, or half a surrogate
    pair, which no terminal takes.
    """
    try:
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            data = file.read(largest + 1)
        if len(data) > largest or data.count(b"[") + data.count(b"{") > CONTAINERS:
            return None
        value = json.loads(data.decode(), parse_constant=_refuse, parse_float=_finite, parse_int=_short)
        if LONE_SURROGATE.search(data):
            json.dumps(value, ensure_ascii=False).encode()
    except (OSError, ValueError, RecursionError):
        return None
    return value


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object of a stage that is needed. Raises InputError where it is missing, damaged, or no object."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(damage(path.parent.name, path.name))
    return value


def damage(stage: str, file: str) -> str:
    """What is said of a stage's file that is not as the stage left it."""
    return (
        f"{stage}/{file} is damaged, or was changed since this run wrote it: delete the folder {stage} of this run, "
        f"and the same command makes it anew"
    )


def load_record(folder: Path, stage: str | None = None) -> dict[str, Any] | None:
    """The record of a finished stage, which fits itself; None where there is no ``record.json``. Its files are not looked at.

    Args:
        folder: of the stage.
        stage: its name, where that is not the folder's.

    Raises:
        InputError: the record is damaged, edited, of another stage, or another program's.
    """
    path, stage = folder / RECORD, stage or folder.name
    if not os.path.lexists(path):
        return None
    record: Any = None if path.is_symlink() else read_json(path)
    if not _is_record(record) or record["identity"].get("stage") != stage:
        raise InputError(
            f"{folder.name}/{RECORD} in {folder.parent.name} is damaged or not this program's: move the folder away if it is yours, "
            f"delete it if it is a stage of this run, and the same command makes it anew"
        )
    found: dict[str, Any] = record
    return found


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of a finished stage whose files are all there with their recorded sizes; otherwise None."""
    try:
        record = load_record(folder)
    except InputError:
        return None
    return record if record is not None and lost(folder, record) is None else None


def lost(folder: Path, record: Mapping[str, Any]) -> str | None:
    """The first file of a record that is not there as a regular file of its size, or holds a stage's results and is no JSON object.

    None where there is none. One answer for whoever asks whether a finished stage can be used: a run, its plan, and what is shown of it.
    """
    sizes = _contents(folder)[0]
    missing = (name for name, size in record["sizes"].items() if sizes.get(name) != size)
    results = (name for name in record["sizes"] if name.endswith(".json") and "/" not in name)
    return next(chain(missing, (name for name in results if not isinstance(read_json(folder / name), dict))), None)


def strangers(folder: Path, record: Mapping[str, Any]) -> int:
    """How many files and links lie in a finished stage's folder that the stage did not write."""
    sizes, others = _contents(folder)
    return len(sizes.keys() - record["files"].keys()) + others


def _contents(folder: Path) -> tuple[dict[str, int], int]:
    """Size of every regular file below ``folder`` by relative POSIX path, and how many links, devices and the like there are.

    The stage's own record and mark, and :data:`LITTER`, are left out.
    """
    sizes: dict[str, int] = {}
    others = 0
    left = [("", os.fspath(folder))]
    while left:
        above, path = left.pop()
        try:
            entries = list(os.scandir(path))
        except OSError:
            entries, others = [], others + 1
        for entry in entries:
            name = above + entry.name
            if entry.is_symlink():
                others += 1
            elif entry.is_dir():
                left.append((f"{name}/", entry.path))
            elif not entry.is_file():
                others += 1
            elif name not in (RECORD, PARTIAL) and entry.name not in LITTER:
                sizes[name] = entry.stat(follow_symlinks=False).st_size
    return sizes, others


class Checked:
    """Files that were hashed by this process: one whose inode, size and times are the same is not hashed again."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], str] = {}

    def digest(self, path: Path) -> str:
        """SHA-256 of a regular file."""
        state = path.lstat()
        mark = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        if mark not in self._known:
            self._known[mark] = file_digest(path)
        return self._known[mark]

    def consume(self, folder: Path, record: Mapping[str, Any], only: tuple[str, ...] | None = None) -> None:
        """Hash a finished stage's files, or ``only`` some, against its record before another stage reads them.

        Raises:
            InputError: a file is missing, differs, or is none of the stage's.
        """
        sizes, others = _contents(folder)
        stage = f"{UNFINISHED}/{folder.name}" if folder.parent.name == UNFINISHED else folder.name
        for name in record["files"] if only is None else only:
            if sizes.get(name, -1) != record["sizes"].get(name) or not self._is(folder / name, record["files"][name]):
                raise InputError(damage(stage, name))
        count = others + len(sizes.keys() - record["files"].keys())
        if only is None and count:
            raise InputError(f"{stage} holds files or links that this run did not write ({count}): move them out of it")

    def _is(self, path: Path, digest: str) -> bool:
        try:
            return self.digest(path) == digest
        except OSError:
            return False


def publish(folder: Path, identity: Mapping[str, Any], checked: Checked | None = None, **facts: Any) -> dict[str, Any]:
    """Write the record of a finished stage: the last thing that happens to its folder.

    Args:
        folder: the stage's folder, complete but for the record.
        identity: what :func:`fingerprint` hashes.
        checked: takes note of the files' digests.
        facts: further entries, such as times, the summary and ``contains_patient_data``.
    """
    digest = (checked or Checked()).digest
    sizes = dict(sorted(_contents(folder)[0].items()))
    files = {name: digest(folder / name) for name in sizes}
    record = {
        "fingerprint": fingerprint(identity),
        "identity": dict(identity),
        "digest": fingerprint(files),
        "files": files,
        "sizes": sizes,
        "packages": versions(),
        "hardware": hardware(private=facts.get("contains_patient_data", True)),
        **facts,
    }
    record[SEAL] = fingerprint(record)
    write_json(folder / RECORD, record)
    (folder / PARTIAL).unlink(missing_ok=True)
    if not facts.get("contains_patient_data", True):
        for path in (folder, *folder.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() else 0o644)
    return record


@contextlib.contextmanager
def lock(run: Path) -> Iterator[None]:
    """Hold the run folder for this process. Raises InputError when another process holds it."""
    run.mkdir(parents=True, exist_ok=True)
    with (run / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{run.name}: another process is using this run folder: wait for it, or give another --out") from None
        yield


def key_mark(key: bytes) -> str:
    """A check value, 16 hexadecimal digits, that tells whether pseudonyms of two runs were made under one key, and nothing of the key."""
    return keyed(key, "check value of the project key")[:16]


def keyed(key: bytes, *parts: str | bytes) -> str:
    """HMAC-SHA-256 of the parts, as 64 hexadecimal digits; lengths are bound, so that ('a', 'bc') is not ('ab', 'c').

    File names count as their bytes, which need not be UTF-8.
    """
    encoded = [part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part for part in parts]
    return hmac.digest(key, b"".join(len(data).to_bytes(8, "big") + data for data in encoded), "sha256").hex()


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("an infinite number")
    return value


def _short(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise ValueError("a number that nobody wrote")
    return int(text)


def _is_record(value: Any) -> bool:
    """Whether a JSON value is a record that fits itself: the mark by which a stage's folder is known as ours."""
    with contextlib.suppress(RecursionError):
        return _fits_itself(value)
    return False


def _fits_itself(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    identity, files, sizes = (value.get(name) for name in ("identity", "files", "sizes"))
    if not (isinstance(identity, dict) and isinstance(files, dict) and isinstance(sizes, dict)):
        return False
    parts = [identity.get(name, {}) for name in ("config", "inputs")] + [value.get("summary", {})]
    return (
        all(isinstance(part, dict) for part in parts)
        and value.get(SEAL) == fingerprint({name: entry for name, entry in value.items() if name != SEAL})
        and value.get("fingerprint") == fingerprint(identity)
        and value.get("digest") == fingerprint(files)
        and sizes.keys() == files.keys()
        and all(_is_below(name) for name in files)
        and all(isinstance(digest, str) and HEX.fullmatch(digest) for digest in files.values())
        and all(type(size) is int and size >= 0 for size in sizes.values())
    )


def _is_below(name: str) -> bool:
    """Whether a relative POSIX path stays below its folder."""
    path = PurePosixPath(name)
    return not path.is_absolute() and path.as_posix() == name and ".." not in path.parts and "\0" not in name
