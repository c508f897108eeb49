"""Where and how the numbers are computed: device, precision, and seeds derived from the run's one seed."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os

import torch

from evaluation.precision import bf16_pays
from pipeline import system


def device() -> str:
    """``cuda`` where a GPU is visible, otherwise ``cpu``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def fits(size: int, where: str) -> bool:
    """Whether ``size`` bytes take at most half of the memory that is free on the device."""
    return 2 * size <= (torch.cuda.mem_get_info()[0] if where == "cuda" else system.free_memory())


def limit_threads() -> None:
    """Use the cores that this process may run on (in a container fewer than the machine's), or as many as OMP_NUM_THREADS says."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    torch.set_num_threads(int(wanted) if wanted.isdecimal() and len(wanted) <= 4 and int(wanted) > 0 else system.usable_cores())


def reuse_memory() -> bool:
    """Let this process keep the memory that it frees, where it computes on the CPU under glibc; whether it does from now on.

    glibc gives large blocks back to the system at once, so that every step of a training gets its activations as pages to be zeroed
    again: a sixth to a quarter of the quickstart's step. Settings in the environment (``MALLOC_*``, ``GLIBC_TUNABLES``) are left alone.
    """
    if device() != "cpu" or any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    # malloc.h: M_TRIM_THRESHOLD -1, M_TOP_PAD -2, M_MMAP_THRESHOLD -3 (of which glibc takes 32 MiB at the most).
    return all([mallopt(-1, 2**31 - 1), mallopt(-2, 64 << 20), mallopt(-3, 32 << 20)])


def autocast(where: str) -> contextlib.AbstractContextManager[None]:
    """Automatic mixed precision in bfloat16 where it pays; a null context elsewhere."""
    return torch.autocast(where, dtype=torch.bfloat16) if bf16_pays(where) else contextlib.nullcontext()


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A seed for one purpose, ``0 <= value < 2**63``: unlike ``seed + k``, streams of neighbouring seeds never meet."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
