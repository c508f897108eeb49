"""The folder of the cohorts: ``./runs/.cohorts``, or what SYNTHCOHORT_COHORTS names, whatever the run folder is.

It holds ``pseudonym.key``, and one ``cohort-<random>.json`` a cohort. All of it is patient data: whoever holds the key can recompute a
pseudonym from a patient's id. The folder is made 0700 and its files 0600.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import InputError

DEFAULT = Path("runs") / ".cohorts"


def folder() -> Path:
    """The folder of the cohorts, which need not exist."""
    return Path(os.environ.get("SYNTHCOHORT_COHORTS") or DEFAULT).expanduser()


def files() -> list[Path]:
    """The files of the cohorts that there are."""
    with usable():
        return sorted(folder().glob("cohort-*.json"))


def new_file() -> Path:
    """Where a cohort that has no file yet gets one. Its name is random: it says nothing of the cohort."""
    return folder() / f"cohort-{secrets.token_hex(8)}.json"


@contextlib.contextmanager
def usable() -> Iterator[None]:
    """Say in one line that the folder cannot be used, where the system does."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{folder()} cannot be used ({error.strerror}): give a folder of your own as SYNTHCOHORT_COHORTS") from None


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Hold the folder, made if absent, for this process: others wait. Raises InputError where it cannot be used."""
    import fcntl

    home = folder()
    with usable():
        home.parent.mkdir(parents=True, exist_ok=True)
        # One that is there, and may be a team's, keeps its mode.
        home.mkdir(mode=0o700, exist_ok=True)
        handle = os.open(home / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with usable():
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
