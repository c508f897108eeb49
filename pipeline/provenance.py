"""Where a result comes from: versions and hardware, in words that a release may repeat."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import re
import sys
from importlib import metadata
from typing import Any

PACKAGES = ("synthcohort", "torch", "torchvision", "numpy", "pandas", "pydicom", "medmnist", "scikit-learn")
_NUMBERS = "[0-9]{1,8}"
_BUILD = rf"(?:cpu|xpu|cu[0-9]{{2,4}}|rocm{_NUMBERS}(?:\.{_NUMBERS}){{0,2}}|(?:git|g)?[0-9a-f]{{6,12}})"
VERSION = re.compile(rf"{_NUMBERS}(?:\.{_NUMBERS}){{0,4}}(?:(?:a|b|rc){_NUMBERS})?(?:\.post{_NUMBERS})?(?:\.dev{_NUMBERS})?(?:\+{_BUILD})?")
"""A version as PEP 440 writes it, of no free words: a local part names a build for some hardware, or a commit."""
MACHINES = ("x86_64", "AMD64", "i686", "aarch64", "arm64", "armv7l", "ppc64le", "s390x", "riscv64", "loongarch64")
OTHER = "unknown"
"""Stands for a version or a machine that is written otherwise."""


@functools.cache
def versions() -> dict[str, str]:
    """The versions of Python and of the packages that results hang on."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = plain_version(metadata.version(name))
    return {"python": plain_version(platform.python_version()), **found}


def plain_version(text: str) -> str:
    """As much of a version's beginning as :data:`VERSION` takes: what a distribution added in words of its own is left out."""
    match = VERSION.match(text)
    return match[0] if match else OTHER


def hardware(private: bool) -> dict[str, Any]:
    """Machine and processors; the GPU's name, which drivers write in words of their own, only where the record stays with the run."""
    machine = platform.machine()
    facts: dict[str, Any] = {"machine": machine if machine in MACHINES else OTHER, "cpus": os.cpu_count()}
    torch = sys.modules.get("torch") if private else None
    if torch is not None and torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name(0)
    return facts
