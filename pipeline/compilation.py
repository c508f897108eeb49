"""Compiling the denoiser: the blocks that its network repeats, each kind of them once, and kept for the runs to come.

What is compiled is a block and not the whole network, so that the work grows with the kinds of blocks (by resolution) and not with their
number, and so that another run's network of the same blocks finds them ready. Convolutions are the library's own either way: what a
compiler adds is the fusion of what lies between them, which is inside the blocks.
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

KINDS = 64
"""Kinds of blocks that are compiled at the most: shape, mode and precision each make another. torch's own 8 are fewer than a U-Net has,
and what is beyond them would run uncompiled without a word."""
FOLDER = "TORCHINDUCTOR_CACHE_DIR"


def compiled(function: Callable[..., Any], network: nn.Module) -> Callable[..., Any]:
    """``function``, within which the network's blocks are compiled; outside of its calls the network is as it was.

    A network says how it calls its blocks by an attribute ``call`` (as :class:`pipeline.diffusion.unet.UNet` does). One that has none, or
    that computes activations again in the backward pass, is compiled whole.

    Inductor's analysis of how to tile coalesced memory is left out: with it the kernels of torch 2.11 give some gradients of a network with
    dropout thousands of times too large (an H100, batches of 256).
    """
    keep_compiled()
    import torch._dynamo
    from torch._inductor import config

    setting = "coalesce_tiling_analysis"
    options: Any = {f"triton.{setting}": False} if hasattr(config.triton, setting) else None
    plain: Callable[..., Any] | None = getattr(network, "call", None)
    if plain is None or getattr(network, "checkpointing", False):
        whole: Callable[..., Any] = torch.compile(function, options=options)
        return whole
    torch._dynamo.config.recompile_limit = max(KINDS, torch._dynamo.config.recompile_limit)
    ready = torch.compile(plain, dynamic=False, options=options)

    def called(*inputs: Any) -> Any:
        network.call = ready  # type: ignore[assignment]
        try:
            return function(*inputs)
        finally:
            network.call = plain  # type: ignore[assignment]

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
