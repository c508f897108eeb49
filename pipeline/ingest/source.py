"""Where the images lie and what they contain, told fast: every run asks, also one that has nothing to do."""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pipeline import artifacts, ranks, system
from pipeline.cohorts.key import project_key
from pipeline.config import Config, IngestConfig
from pipeline.errors import InputError
from pipeline.ingest.table import USUAL, chosen

CACHE = ".sources.json"
MEDMNIST_SIDES = (28, 64, 128, 224)
MEDMNIST_ROOT = Path("~/.medmnist")
# A file changed within a clock tick of being read can keep its time stamp: only files at rest are remembered.
_KINDS = {"dicom": "DICOM files", "nifti": "NIfTI volumes", "pictures": "pictures"}
AT_REST_NS = 2_000_000_000
MOST_WORKERS = 1024
CACHE_BYTES = 512
"""More than the cache takes for a file."""
NO_IMAGES = (
    *(".csv", ".tsv", ".txt", ".md", ".json", ".yaml", ".yml", ".xlsx", ".xls"),
    *(".pdf", ".html", ".log", ".db", ".ini", ".zip", ".npz"),
)
"""Ends of names that are not counted as images; ingest looks into every file."""
LINK = "a symbolic link: links are not followed, put the file itself there"
ASIDE = "hidden, or a system's own (thumbnails, deleted files): not read, move what is an image out of it"
_SYSTEMS = {"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found", "thumbs.db", "desktop.ini"}


def source_digest(config: Config, run: Path) -> str:
    """Digest of what ingest reads: it changes with the content of the source and with nothing else.

    The phantom is a function of its parameters. MedMNIST's public file is named by its SHA-256. A hospital's files are named by
    HMACs under the project's key, so that the digest tells nobody else whether a known file is among them. What was read is
    remembered in the run folder by path, size and modification time (as HMACs too, mode 0600): unchanged files are not read again.

    Raises:
        InputError: the folder is missing or empty, or the data set is neither there nor can be downloaded.
    """
    ingest = config.ingest
    if ingest.source == "phantom":
        several = {"several": True} if ingest.several_findings else {}
        return artifacts.fingerprint({"phantom_patients": ingest.phantom_patients, "seed": config.seed, **several})
    key = project_key(run)
    if ingest.source == "medmnist":
        path = medmnist_file(ingest)
        [digest] = _digests({path.name: path}, run, key, secret=b"")
        return digest
    if ingest.source == "dicomweb":
        return _pacs_digest(ingest, run, key)
    _apart(config)
    return _folder_digest(ingest, "ingest.path", run, key, CACHE)


def holdout_digest(ingest: IngestConfig, run: Path) -> str:
    """Digest of the images that a foreign generator never saw, as :func:`source_digest`."""
    return _folder_digest(of_holdout(ingest), "ingest.holdout", run, project_key(run), ".holdout.json")


def foreign_digest(config: Config, run: Path) -> str:
    """Digest of a foreign set, a folder or a file, as :func:`source_digest`. Raises InputError where it is missing or empty."""
    given, key = config.generate.import_from, project_key(run)
    assert given is not None
    path = given.expanduser()
    names = dict(regular_files(path)) if path.is_dir() else {"": path} if path.is_file() else {}
    if not names:
        why = "the folder holds no file" if path.is_dir() else "no such file or folder"
        raise InputError(f"{path}: {why}: give the synthetic images as generate.import_from")
    return artifacts.keyed(key, "foreign", *_pairs(names, _digests(names, run, key, key, ".foreign.json")))


def table_digest(table: Path, run: Path) -> str:
    """Digest of a label table outside the folders. Raises InputError where there is none."""
    path, key = table.expanduser(), project_key(run)
    if not path.is_file():
        raise InputError(f"no label table {path}: give the CSV as ingest.label_table")
    [digest] = _digests({"": path}, run, key, key, ".label-table.json")
    return digest


def encoder_digest(encoder: Path, run: Path) -> str:
    """Digest of a language model's folder. Raises InputError where it is none that may be read."""
    from pipeline.word_features import check

    folder = encoder.expanduser()
    check(folder)
    names = dict(regular_files(folder))
    return artifacts.fingerprint(dict(zip(names, _digests(names, run, project_key(run), b"", ".text-encoder.json"))))


def of_holdout(ingest: IngestConfig) -> IngestConfig:
    """The section as if the holdout were the source."""
    return ingest.model_copy(update={"path": ingest.holdout})


def folder(ingest: IngestConfig, setting: str = "ingest.path") -> Path:
    """The folder of the files, which ``setting`` names. Raises InputError where there is none."""
    assert ingest.path is not None
    root = ingest.path.expanduser()
    if not root.is_dir():
        raise InputError(f"{root}: no such folder: give the folder with the {_KINDS[ingest.source]} as {setting}")
    return root


def listed(ingest: IngestConfig, setting: str = "ingest.path") -> dict[str, Path]:
    """The files of a folder by their relative POSIX paths, in their order, which ``setting`` names.

    Raises:
        InputError: there is no such folder, it holds no file, or the label table that it needs is not in it.
    """
    root = folder(ingest, setting)
    names = dict(regular_files(root))
    if not names:
        raise InputError(f"{root}: the folder holds no file: give the folder with the {_KINDS[ingest.source]} as {setting}")
    if ingest.label_table is None:
        labels = chosen(root, ingest.labels)
        needed = ingest.label_field is None and ingest.source != "pictures" and not ingest.unlabelled
        needed = needed or (setting == "ingest.path" and ingest.labels != USUAL)  # whoever names a table means it
        if (needed and not labels.is_file()) or (labels.exists() and not labels.resolve().is_relative_to(root.resolve())):
            raise InputError(f"no label table {ingest.labels} in {root}: put the CSV there, or name it in ingest.labels")
        if labels.is_file():  # whoever names a hidden one means it too
            names.setdefault(labels.relative_to(root).as_posix(), labels)
    return names


def _folder_digest(ingest: IngestConfig, setting: str, run: Path, key: bytes, cache: str) -> str:
    names = listed(ingest, setting)
    return artifacts.keyed(key, "source", *_pairs(names, _digests(names, run, key, key, cache)))


def _apart(config: Config) -> None:
    """Raise InputError where one of the folders of a foreign run lies in another, whose images it would then be."""
    ingest = config.ingest
    given = {"ingest.path": ingest.path, "ingest.holdout": ingest.holdout, "generate.import_from": config.generate.import_from}
    places = {setting: path.expanduser().resolve() for setting, path in given.items() if path is not None}
    for outer, folder in places.items():
        for inner, path in places.items():
            if folder in path.parents:
                raise InputError(f"{inner} lies inside {outer}, so that its files would be read twice: put them into a folder beside it")


def _pairs(names: Iterable[str], digests: Iterable[str]) -> Iterator[str]:
    for pair in zip(names, digests, strict=True):
        yield from pair


def locations(ingest: IngestConfig) -> dict[str, Path]:
    """What ingest reads from the disk, by the setting that names it: a folder with all below it, or a file, which need not exist."""
    found = {}
    if ingest.source == "medmnist":
        side = medmnist_side(ingest.size, ingest.volumes)
        found["ingest.path"] = (ingest.path or MEDMNIST_ROOT).expanduser() / f"{ingest.dataset}{'' if side == 28 else f'_{side}'}.npz"
    elif ingest.source == "dicomweb":
        found |= {"ingest.labels": ingest.path.expanduser() / ingest.labels} if ingest.path else {}
    elif ingest.path is not None:
        found["ingest.path"] = ingest.path.expanduser()
        found["ingest.labels"] = found["ingest.path"] / ingest.labels
    if key := os.environ.get("SYNTHCOHORT_KEY_FILE"):
        found["SYNTHCOHORT_KEY_FILE"] = Path(key)
    return found


def workers() -> int:
    """Processes of this rank that read files: SYNTHCOHORT_WORKERS, or its share of the usable cores. No result depends on it."""
    value = os.environ.get("SYNTHCOHORT_WORKERS", "")
    if value and not (value.isdecimal() and len(value) <= 4 and 1 <= int(value) <= MOST_WORKERS):
        raise InputError(f"SYNTHCOHORT_WORKERS is {value[:40]!r}: give the number of processes that read files, 1 to {MOST_WORKERS}")
    return int(value) if value else max(1, system.usable_cores() // ranks.on_this_machine())


def _pacs_digest(ingest: IngestConfig, run: Path, key: bytes) -> str:
    """Digest of what the PACS has to the query, and of the label table."""
    from pipeline.ingest.readers import dicomweb

    assert ingest.query is not None
    table = ingest.path.expanduser() / ingest.labels if ingest.path else None
    if table is not None and ingest.label_field is None and not table.is_file():
        raise InputError(f"no label table {ingest.labels} in {table.parent}: put the CSV there, or name it in ingest.labels")
    labels = _digests({table.name: table}, run, key, secret=key) if table is not None and table.is_file() else []
    return artifacts.keyed(key, "source", *labels, *dicomweb.find(ingest.query))


def regular_files(root: Path) -> Iterator[tuple[str, Path]]:
    """Relative POSIX path and path of every regular file below ``root``, in the order of the relative paths, but for what is :func:`aside`.

    Symbolic links are not followed, so that a link can neither lead out of the folder nor bring a file in twice.
    """
    found = []
    for folder, folders, names in os.walk(root, followlinks=False):
        folders[:] = [name for name in folders if not _aside(name)]
        paths = (Path(folder, name) for name in names if not _aside(name))
        found += [(path.relative_to(root).as_posix(), path) for path in paths if not path.is_symlink() and path.is_file()]
    yield from sorted(found)


def never_read(root: Path) -> list[tuple[str, str]]:
    """Relative POSIX path and reason of what lies below ``root`` and is not read, in their order: symbolic links, and what is hidden or a
    system's own (thumbnails, deleted files, what macOS writes beside others), of a folder the folder alone."""
    found = []
    for folder, folders, names in os.walk(root, followlinks=False):
        paths = [Path(folder, name) for name in [*folders, *names]]
        found += [(path, LINK if path.is_symlink() else ASIDE) for path in paths if path.is_symlink() or _aside(path.name)]
        folders[:] = [name for name in folders if not _aside(name)]
    return sorted((path.relative_to(root).as_posix(), why) for path, why in found)


def _aside(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _SYSTEMS


def medmnist_side(size: int, volumes: bool = False) -> int:
    """Side of the published MedMNIST images that serve ``size``: the smallest that need at most an eighth of ``size`` as padding.

    Raises InputError where the largest are too small.
    """
    sides = MEDMNIST_SIDES[:2] if volumes else MEDMNIST_SIDES
    for side in sides:
        if 8 * side >= 7 * size:
            return side
    raise InputError(
        f"ingest.size {size} is too large for MedMNIST, whose largest {'volumes' if volumes else 'images'} have side {sides[-1]}: "
        f"choose at most {8 * sides[-1] // 7}"
    )


def medmnist_file(ingest: IngestConfig) -> Path:
    """The data set's ``.npz``, downloaded by the medmnist package where it is absent.

    Raises:
        InputError: no such data set, or it is absent and cannot be downloaded.
    """
    assert ingest.dataset is not None
    path = locations(ingest)["ingest.path"]
    if not path.is_file():
        from pipeline.ingest.readers.medmnist import download

        download(ingest.dataset, medmnist_side(ingest.size, ingest.volumes), path)
    return path


def _digests(files: dict[str, Path], run: Path, key: bytes, secret: bytes, cache: str = CACHE) -> list[str]:
    """Content digest of every file: an HMAC under ``secret``, or plain SHA-256 where it is empty.

    ``cache`` names the file of the run that remembers them, one for each folder: files of two folders may agree in all that it knows.
    """
    remembered = artifacts.read_json(run / cache, largest=CACHE_BYTES * (len(files) + 1))
    sealed = isinstance(remembered, dict) and remembered == _sealed(remembered.get("files"), key)
    known: dict[str, str] = remembered["files"] if sealed else {}
    fresh: dict[str, str] = {}
    digests = []
    now = time.time_ns()
    for name, path in files.items():
        state = path.stat()
        mark = artifacts.keyed(key, "file", name, str(state.st_size), str(state.st_mtime_ns))
        try:
            digest = known.get(mark) or _content_digest(path, secret)
        except OSError:
            # The reader quarantines it; its name stays out of the message, because it may tell a patient's.
            digests.append("unreadable")
            continue
        if now - state.st_mtime_ns > AT_REST_NS:
            fresh[mark] = digest
        digests.append(digest)
    if fresh != known:
        artifacts.write_json(run / cache, _sealed(fresh, key))
        (run / cache).chmod(0o600)
    return digests


def _sealed(files: Any, key: bytes) -> dict[str, Any]:
    """What is remembered of files, with an HMAC: what was damaged or edited is not believed."""
    return {"files": files, "seal": artifacts.keyed(key, "cache", artifacts.fingerprint({"files": files}))}


def _content_digest(path: Path, secret: bytes) -> str:
    with path.open("rb") as file:
        if not secret:
            return hashlib.file_digest(file, "sha256").hexdigest()
        code = hmac.new(secret, digestmod="sha256")
        while block := file.read(1 << 20):
            code.update(block)
        return code.hexdigest()
