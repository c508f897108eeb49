"""What ends a run and is no bug."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path


class InputError(Exception):
    """What the user gave cannot be used: a file, a folder, a configuration, a run in use.

    The message is one line that says what is wrong, where, and what to do about it, and never holds a patient's data.
    The command line prints it and ends with exit code 2; any other exception is a bug and ends with 1.
    """


class NotEnough(InputError):
    """What the user gave can be used, and is too little for what was asked: the gate could not say ``pass``. Exit code 4."""


class Stopped(Exception):
    """The process was asked to end (SIGTERM) and has left its work so that the next run goes on from there; exit code 143."""


class Notice(UserWarning):
    """What the user should know and may leave as it is, in one line."""


_AGAIN = "then give the same command again"
_ELSEWHERE = "give a folder that you may read and write"
_REFUSED = {
    errno.ENOSPC: f"no space is left on the disk: make room, {_AGAIN}",
    errno.EDQUOT: f"your quota on this disk is used up: make room, {_AGAIN}",
    errno.EFBIG: f"a file may not grow as large as it must: raise the limit (ulimit -f) or take another disk, {_AGAIN}",
    errno.EROFS: f"the file system is read-only: {_ELSEWHERE}",
    errno.EACCES: f"permission denied: {_ELSEWHERE}",
    errno.EPERM: f"the system does not permit it: {_ELSEWHERE}",
    errno.ENAMETOOLONG: "the name is too long for this file system: give a shorter one",
    errno.ELOOP: "symbolic links lead in a circle: give the folder itself",
    errno.ENOTDIR: "a file stands where a folder is needed: move it away, or give another folder",
    errno.EISDIR: "a folder stands where a file is needed: move it away, or give another",
    errno.EEXIST: "a file or a link stands where a folder or a new file is needed: move it away, or give another folder",
    errno.ENOENT: f"a file or folder is missing that was there or must be: put it back, {_AGAIN}",
    errno.EMFILE: f"too many open files: raise the limit (ulimit -n), {_AGAIN}",
    errno.ENFILE: f"the system has too many open files: close other programs, {_AGAIN}",
    errno.ENOMEM: f"there is not enough memory: close other programs or take smaller batches, {_AGAIN}",
    errno.EAGAIN: f"the system lets no further process or lock begin: raise the limit (ulimit -u) or close other programs, {_AGAIN}",
    errno.EIO: f"the disk or the network folder failed: look at its state, {_AGAIN}",
    errno.EBUSY: f"another program holds it: end that program, {_AGAIN}",
    errno.ENOLCK: "the file system knows no locks: give --out a folder on another",
}


@contextlib.contextmanager
def system_refusals(place: Path) -> Iterator[None]:
    """Turn what the system refuses inside (a full disk, no permission, no memory, ...) into an InputError.

    Args:
        place: the folder or file that the work is about, as the user named it. What lies below it is named by its first part alone, and
            what lies elsewhere not at all: a path of the source may tell a patient's name.
    """
    try:
        yield
    except Exception as error:
        number = _number(error)
        if number is None:
            raise
        said = _REFUSED.get(number) or f"{os.strerror(number)}: mend that, {_AGAIN}"
        raise InputError(f"{_where(error, place)}: {said}") from None


def _number(error: BaseException) -> int | None:
    """The system's number of what it refused; None for what is a bug."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error):
        return errno.ENOMEM
    if type(error).__name__ == "BrokenProcessPool":  # a worker was killed, nearly always for memory
        return errno.ENOMEM
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    # NumPy's tofile and Rust's libraries say it in words only.
    if isinstance(error, OSError) and re.search(r"\d+ requested and \d+ written", str(error)):
        return errno.ENOSPC
    found = (
        re.search(r"\bos error (\d+)\b", str(error)) if type(error).__name__ == "SafetensorError" or isinstance(error, OSError) else None
    )
    return int(found[1]) if found else None


def _where(error: BaseException, place: Path) -> str:
    name = getattr(error, "filename", None)
    if not isinstance(name, str | bytes):
        return place.name or str(place)
    try:
        given, here = Path(os.path.abspath(os.fsdecode(name))), Path(os.path.abspath(place))
    except OSError:  # the current folder is gone
        return str(place)
    if given.is_relative_to(here):
        return str(Path(here.name, *given.relative_to(here).parts[:1]))
    return str(place) if here.is_relative_to(given) else f"{here.name}, at a path outside of it"
