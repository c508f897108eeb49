"""What makes a stage's output trustworthy: its fingerprint, its record, the run folder's lock.

A stage's identity is its name, its integer version, its own configuration section, the run's seed, and the content digests of what it
read. Paths, hosts, times and worker counts stay out of it, so that moving a run does not redo it. ``record.json`` is
written last, in one rename: a folder without one is a stage that did not finish.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import platform
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline import secret
from pipeline.errors import InputError

RECORD = "record.json"
PARTIAL = "partial.json"
PACKAGES = ("synthcohort", "torch", "torchvision", "numpy", "pandas", "pydicom", "medmnist", "scikit-learn")


def fingerprint(identity: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a stage's identity."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digests(folder: Path, ignore: tuple[str, ...] = ()) -> dict[str, str]:
    """SHA-256 of every file below ``folder`` by relative path, but for records and the sub-folders named in ``ignore``."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (RECORD, PARTIAL))
    relative = [(path, path.relative_to(folder)) for path in paths]
    return {str(name): file_digest(path) for path, name in relative if name.parts[0] not in ignore}


def write_json(path: Path, value: Any) -> None:
    """Write JSON, for the user's eyes alone, so that a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=1, sort_keys=False, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_json(path: Path) -> Any:
    """Read JSON; a missing or damaged file gives None."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of a finished stage whose files are all there with their recorded sizes; otherwise None."""
    record = read_json(folder / RECORD)
    if not isinstance(record, dict) or "fingerprint" not in record:
        return None
    for name, size in record["sizes"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            return None
    return record


def publish(folder: Path, identity: Mapping[str, Any], **facts: Any) -> dict[str, Any]:
    """Write the record of a finished stage: the last thing that happens to its folder.

    Args:
        folder: the stage's folder, complete but for the record.
        identity: what :func:`fingerprint` hashes.
        facts: further entries, such as times, the summary and ``contains_patient_data``.
    """
    files = folder_digests(folder, ignore=("checkpoint",))
    record = {
        "fingerprint": fingerprint(identity),
        "identity": dict(identity),
        "digest": fingerprint(files),
        "files": files,
        "sizes": {name: (folder / name).stat().st_size for name in files},
        "packages": _versions(),
        "hardware": _hardware(),
        **facts,
    }
    write_json(folder / RECORD, record)
    (folder / PARTIAL).unlink(missing_ok=True)
    if not facts.get("contains_patient_data", True):
        for path in (folder, *folder.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() else 0o644)
    return record


def open_stage(folder: Path, identity: Mapping[str, Any], *, resumable: bool, private: bool) -> bool:
    """Make ready a folder for a stage that is about to run; True if an interrupted attempt at the same identity goes on.

    What an attempt at another identity left, or a stage that cannot resume, is removed first. ``private`` folders are
    made 0700, because they hold patient data until a verdict says otherwise.
    """
    mark = fingerprint(identity)
    left = read_json(folder / PARTIAL)
    resumes = resumable and isinstance(left, dict) and left.get("fingerprint") == mark
    if folder.exists() and not resumes:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700 if private else 0o755)
    (folder / RECORD).unlink(missing_ok=True)
    write_json(folder / PARTIAL, {"fingerprint": mark})
    return resumes


@contextlib.contextmanager
def lock(run: Path) -> Iterator[None]:
    """Hold the run folder for this process. Raises InputError when another process holds it."""
    run.mkdir(parents=True, exist_ok=True)
    with (run / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{run.name}: another process is using this run folder: wait for it, or give another --out") from None
        yield


def project_key(run: Path) -> bytes:
    """The key of the pseudonyms: SYNTHCOHORT_KEY, or the file SYNTHCOHORT_KEY_FILE, or a file made in the run folder with mode 0600.

    It is in no configuration, log or record. Whoever holds it can recompute a pseudonym from a patient's id.
    """
    if (key := secret.from_environment("SYNTHCOHORT_KEY")) is not None:
        return key
    path = Path(os.path.expanduser(os.environ.get("SYNTHCOHORT_KEY_FILE") or run / "pseudonym.key"))
    if not os.path.lexists(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_hex(32).encode())
    return secret.from_file(path)


def keyed(key: bytes, *parts: str | bytes) -> str:
    """HMAC-SHA-256 of the parts, as 64 hexadecimal digits; lengths are bound, so that ('a', 'bc') is not ('ab', 'c').

    File names count as their bytes, which need not be UTF-8.
    """
    encoded = [part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part for part in parts]
    return hmac.digest(key, b"".join(len(data).to_bytes(8, "big") + data for data in encoded), "sha256").hex()


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return {"python": platform.python_version(), **found}


def _hardware() -> dict[str, Any]:
    import sys

    facts: dict[str, Any] = {"machine": platform.machine(), "cpus": os.cpu_count()}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name(0)
    return facts
