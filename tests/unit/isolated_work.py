"""What the tests of `isolate` run in workers: one function a way to fail."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Panic(BaseException):
    """As decoders written in Rust raise."""


def work(item: str) -> tuple[Any, list[NDArray[Any]]]:
    """``verb:argument``; a number is answered with its square and an array of that many elements."""
    verb, _, argument = item.partition(":")
    if verb == "hang":
        while True:
            pass
    if verb == "sleep":
        time.sleep(float(argument))
    if verb == "late":
        time.sleep(0.02)
    if verb == "crash":
        ctypes.string_at(0)
    if verb == "leave":
        os._exit(3)
    if verb == "killed":  # by the system, the first times; the argument is a folder and how often
        folder, times = argument.rsplit("*", 1)
        deaths = len(os.listdir(folder))
        if deaths < int(times):
            open(os.path.join(folder, str(deaths)), "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"square": deaths}, []
    if verb == "raise":
        raise ValueError("SECRET^JANE " + argument)
    if verb == "panic":
        raise Panic("SECRET^JANE")
    if verb == "shout":
        os.write(1, b"SECRET^JANE")
        os.write(2, b"SECRET^JANE")
    if verb == "allocate":
        np.ones(int(argument) << 17).sum()
    if verb == "recurse":
        work(item)
    if verb == "threads":
        import threadpoolctl

        return max(pool["num_threads"] for pool in threadpoolctl.threadpool_info()), []
    if verb == "peak":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10, []
    if verb == "pid":
        return os.getpid(), []
    number = int(argument)
    return {"square": number**2, "nan": None}, [np.arange(number, dtype=np.uint16), np.zeros((0, 3), np.float32)]


_leak: list[bytes] = []


def leaking(item: int) -> tuple[Any, list[NDArray[Any]]]:
    """Keeps 30 MiB an item for ever, as a decoder with a leak does; a number above 1000 asks for that many MiB once."""
    if item > 1000:
        return len(bytes(item << 20)), []
    _leak.append(bytes(30 << 20))
    return item, []


def guarded(text: str) -> tuple[Any, list[NDArray[Any]]]:
    """What the text guard says of a smooth picture with this text."""
    from pipeline.ingest.deidentify.text_guard import has_text
    from tests.benchmarks.text_pictures import ink

    picture = np.add.outer(np.arange(256.0), np.arange(256.0)).astype(np.float32) / 4
    covered = ink(text, "DejaVuSans-Bold", 20, True)
    part = picture[20 : 20 + covered.shape[0], 30 : 30 + covered.shape[1]]
    part += covered * (255 - part)
    return has_text(picture), []
