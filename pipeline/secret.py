"""Reading a key that a user keeps: from the environment, or from a file that only the user should read."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from pipeline.errors import InputError, Notice

SHORTEST, LONGEST = 16, 4096
"""Bytes of a key."""
_MAKE = "make one with `openssl rand -hex 32 > FILE` and `chmod 600 FILE`"


def from_environment(name: str) -> bytes | None:
    """The key in a variable of the environment, whatever its encoding; None where it is empty or not set.

    Raises:
        InputError: it is too short.
    """
    key = os.fsencode(os.environ.get(name, ""))
    if 0 < len(key) < SHORTEST:
        raise InputError(f"{name} is shorter than {SHORTEST} characters: use a long random string")
    return key or None


def from_file(path: Path) -> bytes:
    """The key that a file holds, a line of UTF-8, without the white space around it. A :class:`~pipeline.errors.Notice` tells where others
    may read the file.

    Raises:
        InputError: it is no file, cannot be read, is too short, or holds something else.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is a link to nothing" if path.is_symlink() else "is no file"
        raise InputError(f"the key file {path.name} {what if os.path.lexists(path) else 'does not exist'}: {_MAKE}")
    try:
        with path.open("rb") as file:
            key = file.read(LONGEST + 1).strip()
            others = os.fstat(file.fileno()).st_mode & 0o077
    except OSError as error:
        raise InputError(f"the key file {path.name} cannot be read ({error.strerror}): let your user read it, and nobody else") from None
    if len(key) < SHORTEST:
        raise InputError(f"the key file {path.name} holds fewer than {SHORTEST} bytes: {_MAKE}")
    if len(key) > LONGEST or not _text(key):
        raise InputError(f"the key file {path.name} is no line of text: {_MAKE}")
    if others:
        warnings.warn(f"others may read the key file {path.name}, and with it recompute pseudonyms: chmod 600 it", Notice, stacklevel=2)
    return key


def _text(key: bytes) -> bool:
    try:
        return key.decode().isprintable()
    except UnicodeDecodeError:
        return False
