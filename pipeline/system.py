"""What is asked of the operating system, and what is done where it has none of it: Linux is whole, macOS lacks a few calls."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

UNSUPPORTED = "this system is not supported: use Linux or macOS; on Windows, install WSL2 (wsl --install) and run the same command in it"


def supported() -> bool:
    """Whether the system has what no stage can do without: locks on files and bounds on processes. Windows has neither."""
    return all(importlib.util.find_spec(name) is not None for name in ("fcntl", "resource"))


def usable_cores() -> int:
    """Cores that this process may run on: in a container fewer than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory() -> int:
    """Bytes of memory that are free; where the system does not tell (macOS), half of what there is; 0 where it tells neither."""
    for name, share in (("SC_AVPHYS_PAGES", 1), ("SC_PHYS_PAGES", 2)):
        with contextlib.suppress(ValueError, OSError, AttributeError):  # no such name, no answer, no such call
            if (pages := os.sysconf(name)) > 0:
                return pages * os.sysconf("SC_PAGE_SIZE") // share
    return 0


@contextlib.contextmanager
def private_files(run: Path) -> Iterator[None]:
    """Make the run folder; what is made inside the context is the user's alone, whatever the umask.

    Folders on the way to the run that are missing may be passed through, not listed, by whom the umask lets in, so that its ``release``
    can be read and nothing else.
    """
    before = os.umask(0o077)
    try:
        missing = [folder for folder in (run, *run.parents) if not folder.exists()]
        run.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            folder.chmod(0o700 | 0o011 & ~before)
        yield
    finally:
        os.umask(before)


def worker_processes(preload: Sequence[str] = ()) -> Any:
    """The context of worker processes: forked from a small server that has imported ``preload``, so that they are cheap to start, and no
    thread, lock or secret of this process goes with them. What they run lies in modules: the program that started this process is not
    run again in each, which may take longer than all that they do, and more memory.

    Neither the server nor a worker hears the terminal's Ctrl-C, from its first instruction on, or writes to its standard error: whoever
    started them ends them, and says why.
    """
    from multiprocessing import forkserver

    context = _Workers()
    context.set_forkserver_preload([*preload])
    with _unheard(), _deaf():
        forkserver.ensure_running()
    return context


class _Worker(ForkServerProcess):
    def start(self) -> None:
        program = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")  # of which there is nothing to import
        try:
            with _deaf():  # a server that has ended is started anew here
                super().start()
        finally:
            sys.modules["__main__"] = program


class _Workers(ForkServerContext):
    Process = _Worker


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Let what is started inside the context never hear the terminal's Ctrl-C."""
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # which a server would start, unblocking the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """Let what is started inside the context inherit no standard error: a worker that is begun while this process ends would print how
    its own start failed, after this process's last line."""
    try:
        kept = os.dup(2)
    except OSError:  # there is none
        yield
        return
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def end_with_parent() -> None:
    """End this process when the one that forked it ends, or the one that asked for it, however they do; with its group where it leads one.

    The first is the kernel's work, on Linux alone. Under a fork server, which lives as long as any of its children, only the second ends.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
