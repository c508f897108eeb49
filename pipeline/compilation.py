"""Compiling the denoiser's network: whole, and kept for the runs to come.

What is compiled is the network and not the loss around it, so that no figure of a cohort is part of it and another cohort's run finds it
ready. Compiled block by block it is no sooner ready and a tenth slower, since what lies between blocks is not fused (one H100, 64 pixels:
73 s and 10 400 images a second, whole, the loss with it, 63 s and 11 600; found again, 6 and 7 s).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

FOLDER = "TORCHINDUCTOR_CACHE_DIR"


def compiled(function: Callable[..., Any], network: nn.Module) -> Callable[..., Any]:
    """``function``, within which the network is compiled; outside of its calls the network is as it was.

    Inductor's analysis of how to tile coalesced memory is left out: with it the kernels of torch 2.11 give some gradients of a network with
    dropout thousands of times too large (an H100, batches of 256).
    """
    keep_compiled()
    import torch
    from torch._inductor import config

    setting = "coalesce_tiling_analysis"
    options: Any = {f"triton.{setting}": False} if hasattr(config.triton, setting) else None
    ready = torch.compile(network.forward, options=options)

    def called(*inputs: Any) -> Any:
        network.forward = ready  # an attribute of its own, which hides the class's
        try:
            return function(*inputs)
        finally:
            del network.forward

    return called


def keep_compiled() -> None:
    """Let inductor keep what it compiles in the user's own cache (``$XDG_CACHE_HOME/synthcohort/compiled``, by default in ``~/.cache``).

    What it finds there it unpickles and runs, and its own default is a folder of a known name in ``/tmp``, which anybody may make first. So
    nobody else may write where it looks; where that cannot be had, what is compiled goes to a new folder that ends with the process.
    A folder that :data:`FOLDER` names already is left alone: who sets it vouches for it. No image and no weight is kept.
    """
    if FOLDER in os.environ:
        return
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "synthcohort" / "compiled"
    with contextlib.suppress(OSError, RuntimeError):  # no home, no room, no right to write there
        folder.parent.parent.mkdir(parents=True, exist_ok=True)
        folder = folder.parent.parent.resolve() / "synthcohort" / "compiled"
        for made in (folder.parent, folder):
            made.mkdir(mode=0o700, exist_ok=True)
        if only_ours(folder):
            os.environ[FOLDER] = str(folder)
            return
    os.environ[FOLDER] = passing = tempfile.mkdtemp(prefix="synthcohort-compiled-")
    atexit.register(shutil.rmtree, passing, ignore_errors=True)


def only_ours(folder: Path) -> bool:
    """Whether nobody but this user (and root) can read or write a folder, or put another in its place."""
    own = folder.lstat()
    if not stat.S_ISDIR(own.st_mode) or own.st_uid != os.geteuid() or own.st_mode & 0o077:
        return False
    for parent in folder.parents:
        its = parent.stat()
        shared = its.st_mode & 0o022 and not its.st_mode & stat.S_ISVTX
        if its.st_uid not in (0, os.geteuid()) or shared:
            return False
    return True
