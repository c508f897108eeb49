"""Named tensors on disk, as safetensors: nothing in them is executed, and a damaged file is one line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.artifacts import damage
from pipeline.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def write(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a file in one rename."""
    from safetensors.torch import save_file

    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp")
    save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def read(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    """A stage's tensors by name. Raises InputError where the file is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path, device=device)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(damage(path.parent.name, path.name)) from error
