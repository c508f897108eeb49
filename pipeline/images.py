"""ImageSet: shards ``images-00000.npy`` and ``rows.parquet``, the only door to pixels.

Images are ``uint8 [n, C, H, W]``, 0 = black, 255 = white as displayed; row order is part of the contract: row i of the
table describes image i. Findings are ``int8`` columns ``finding_<class>`` (1 present, 0 absent, -1 unknown).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

FINDING = "finding_"
SHARD = 4096


@dataclass(frozen=True)
class ImageSet:
    """Images with their rows.

    Attributes:
        images: ``uint8 [n, C, H, W]``.
        rows: one row an image, with at least ``id`` and the finding columns.
    """

    images: NDArray[np.uint8]
    rows: pd.DataFrame

    def __post_init__(self) -> None:
        if len(self.images) != len(self.rows):
            raise ValueError(f"{len(self.images)} images but {len(self.rows)} rows")
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise ValueError(f"images must be uint8 [n, C, H, W], not {self.images.dtype} {self.images.shape}")

    def __len__(self) -> int:
        return len(self.rows)

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the finding columns."""
        return tuple(str(name).removeprefix(FINDING) for name in self.rows.columns if str(name).startswith(FINDING))

    @functools.cached_property
    def labels(self) -> NDArray[np.int64]:
        """Class index of every image, ``int64 [n]`` (each image has exactly one finding)."""
        table = self.rows[[FINDING + name for name in self.classes]].to_numpy()
        return np.asarray(table.argmax(axis=1), dtype=np.int64)

    def take(self, index: Any) -> ImageSet:
        """The rows that a boolean mask or an integer index selects, in its order."""
        index = np.asarray(index)
        if index.dtype == bool:
            index = np.flatnonzero(index)
        return ImageSet(np.asarray(self.images[index]), self.rows.iloc[index].reset_index(drop=True))

    def split(self, name: str) -> ImageSet:
        """The images of one split: ``train``, ``audit``, ``val`` or ``test``."""
        return self.take((self.rows["split"] == name).to_numpy())

    def save(self, folder: Path) -> None:
        """Write shards and rows into ``folder`` (made if absent), replacing what an earlier attempt left."""
        folder.mkdir(parents=True, exist_ok=True)
        for number, start in enumerate(range(0, max(len(self), 1), SHARD)):
            np.save(folder / shard_name(number), self.images[start : start + SHARD], allow_pickle=False)
        self.rows.to_parquet(folder / "rows.parquet", index=False)

    @classmethod
    def load(cls, folder: Path) -> ImageSet:
        """Read what :meth:`save` wrote. Raises FileNotFoundError where there is none."""
        import pandas as pd

        rows = pd.read_parquet(folder / "rows.parquet")
        shards = [np.load(path, mmap_mode="r", allow_pickle=False) for path in sorted(folder.glob("images-*.npy"))]
        images = shards[0] if len(shards) == 1 else np.concatenate(shards)
        return cls(images, rows)


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"images-{number:05d}.npy"


def finding_columns(labels: NDArray[np.int64], classes: Sequence[str]) -> dict[str, NDArray[np.int8]]:
    """One int8 column a class from class indices ``[n]``; -1 in ``labels`` makes every finding unknown (-1)."""
    known = labels >= 0
    return {FINDING + name: np.where(known, labels == index, -1).astype(np.int8) for index, name in enumerate(classes)}


def to_unit(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 0..255 to float32 -1..1, the range in which every network works."""
    return images.astype(np.float32) / np.float32(127.5) - np.float32(1)


def from_unit(images: NDArray[np.float32]) -> NDArray[np.uint8]:
    """float32 -1..1 to uint8 0..255, rounded to nearest, clipped."""
    rounded: NDArray[np.uint8] = np.clip(np.rint((images + 1) * 127.5), 0, 255).astype(np.uint8)
    return rounded
