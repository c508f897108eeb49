"""Work that several processes share through a folder: each task is done by one of them, and is free again when that one dies."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def claimed(folder: Path, task: str, *, wait: bool = False) -> Iterator[bool]:
    """Whether this process alone has ``task`` within the context; with ``wait``, it has it once whoever has it now lets go.

    What is done is for the caller to know: a task may have been done between a look and its claim.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{task}.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))  # the system takes it back from a process that ends
        except BlockingIOError:
            yield False
            return
        yield True
