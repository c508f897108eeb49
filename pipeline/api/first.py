"""A first look at somebody's data: a configuration for it, and what the gate will need."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import artifacts
from pipeline.api.foreign import is_run
from pipeline.config import load_config, shipped
from pipeline.errors import InputError, system_refusals

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.ingest.look import Found
    from pipeline.outlook import Outlook


@dataclass(frozen=True)
class Beginning:
    """What :func:`init` found, and wrote.

    Attributes:
        found: what the data is: its source, classes with counts, patients.
        text: the configuration.
        config: the same, read.
        outlook: what the gate will need, and whether the cohort can pass: ``needs()`` and ``shortages()``.
        file: where the configuration was written; None where it was not.
    """

    found: Found
    text: str
    config: Config
    outlook: Outlook
    file: Path | None


def init(folder: str | Path, *, write: str | Path | None = None) -> Beginning:
    """Look at data and make a configuration for it, with the recipe of this machine. Nothing is changed where the data lies.

    Args:
        folder: a folder of DICOM files, of NIfTI volumes, or of pictures, with a label table or class folders; or a MedMNIST ``.npz``.
        write: a file to write the configuration into; it must not exist.

    Raises:
        InputError: it is none of them, nothing says which class an image is of, or the file exists.
    """
    from pipeline.first_config import first
    from pipeline.ingest.look import look

    path, file = Path(folder), None if write is None else Path(write)
    refuse_results(path)
    if file is not None:
        with system_refusals(file):
            if file.exists():
                raise InputError(f"{file} exists: give --write another name, or run it: synthcohort run {file}")
            if file.expanduser().resolve().is_relative_to(path.expanduser().resolve()):
                raise InputError(
                    f"{file} would lie among the data, which is read as a whole: synthcohort init {path} --write FILE.yaml, with a file "
                    f"outside of {path}, then synthcohort run FILE.yaml"
                )
            if not file.expanduser().parent.is_dir():
                raise InputError(f"there is no folder {file.parent} to write {file.name} into: make it, or give --write another")
    with system_refusals(path):
        found = look(path)
    made = first(found, _machine())
    if file is not None:
        with system_refusals(file):
            artifacts.write_bytes(file, made.text.encode())
    return Beginning(found, made.text, made.config, made.outlook, file)


def is_data(config: str | Path) -> bool:
    """Whether ``run`` is given data instead of a configuration: a folder or an ``.npz``, and not the name of a shipped configuration."""
    path = Path(config).expanduser()
    return str(config) not in shipped() and (path.is_dir() or (path.suffix == ".npz" and path.is_file()))


def beginning(folder: str | Path) -> tuple[Path, Beginning | None]:
    """The configuration of a folder that is run as it is: that which an earlier run of it wrote, or a new one in the current folder.

    Raises:
        InputError: as :func:`init`; or a file of that name is there and is for other data.
    """
    path = Path(folder)
    refuse_results(path)
    data = path.expanduser().resolve()
    file = Path(f"{data.stem if data.is_file() else data.name}.yaml")
    if not file.exists():
        return file, init(path, write=file)
    there = load_config(file).ingest
    if there.path is None or there.path.expanduser().resolve() != (data.parent if data.is_file() else data):
        raise InputError(
            f"{file} exists and is for other data: synthcohort init {path} --write OTHER.yaml, then synthcohort run OTHER.yaml"
        )
    return file, None


def refuse_results(path: Path) -> None:
    """Raise InputError for a folder that this program wrote, saying which command takes it."""
    if is_run(path):
        raise InputError(f"{path} is a run folder: synthcohort show {path}, or run its configuration again with --out {path}")
    if (path / "gate.json").is_file():
        raise InputError(f"{path} is a release: synthcohort verify {path}")


def _machine() -> str:
    from pipeline.runtime import device

    return device()
