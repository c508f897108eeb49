"""ImageSet: shards ``images-00000.npy`` and ``rows.parquet``, the only door to pixels.

Images are ``uint8`` or ``uint16 [n, C, (D,) H, W]``, 0 = black, 255 or 65535 = white as displayed; the axes of volumes point up, to the
front and to the right of the patient (D, H, W). Row order is part of the contract: row i of the table describes image i. Findings are
``int8`` columns ``finding_<class>`` (1 present, 0 absent, -1 unknown), attributes columns ``attribute_<name>`` of texts or numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts import damage, read_object
from pipeline.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

FINDING, ATTRIBUTE = "finding_", "attribute_"
ASKED = ("view", "laterality", "site", "sex", "age_band", "acquisition")
"""Columns that a model can be told of, beside those of ``ingest.attributes``."""
SHARD = 4096
SHARD_BYTES = 1 << 30
ROW_BYTES = 1 << 12
"""More than a row takes."""


def duplicate_groups(rows: pd.DataFrame) -> NDArray[np.int64]:
    """Near-duplicate group of every row, ``int64 [n]``; -1 where an image has no twin, or where nobody looked for any."""
    if "duplicate_group" not in rows:
        return np.full(len(rows), -1, np.int64)
    return rows["duplicate_group"].to_numpy(np.int64)


@dataclass(frozen=True)
class ImageSet:
    """Images with their rows.

    Attributes:
        images: ``uint8`` or ``uint16 [n, C, (D,) H, W]``: an array, or a :class:`Shards` that is read as it is used.
        rows: one row an image, with at least ``id`` and the finding columns.
    """

    images: NDArray[Any]
    rows: pd.DataFrame

    def __post_init__(self) -> None:
        if len(self.images) != len(self.rows):
            raise ValueError(f"{len(self.images)} images but {len(self.rows)} rows")
        if self.images.dtype not in (np.uint8, np.uint16) or self.images.ndim not in (4, 5):
            raise ValueError(f"images must be uint8 or uint16 [n, C, (D,) H, W], not {self.images.dtype} {self.images.shape}")

    def __len__(self) -> int:
        return len(self.rows)

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the finding columns."""
        return tuple(str(name).removeprefix(FINDING) for name in self.rows.columns if str(name).startswith(FINDING))

    @functools.cached_property
    def findings(self) -> NDArray[np.int8]:
        """``int8 [n, classes]``: 1 present, 0 absent, -1 unknown."""
        return self.rows[[FINDING + name for name in self.classes]].to_numpy(np.int8)

    @functools.cached_property
    def asked(self) -> dict[str, NDArray[Any]]:
        """What a model can be asked for beside findings, by name: ``float32 [n]``, NaN for unknown, or texts, an empty one for unknown."""
        columns = {name: self.rows[name] for name in ASKED if name in self.rows}
        own = [str(name) for name in self.rows.columns if str(name).startswith(ATTRIBUTE)]
        columns |= {name.removeprefix(ATTRIBUTE): self.rows[name] for name in own}
        texts = {name: column.dtype.kind != "f" for name, column in columns.items()}
        return {
            name: column.astype(object).where(column.notna(), "").to_numpy(dtype=str) if texts[name] else column.to_numpy(np.float32)
            for name, column in columns.items()
        }

    @functools.cached_property
    def labels(self) -> NDArray[np.int64]:
        """Class index of every image, ``int64 [n]``. Raises InputError where an image has several findings, or none."""
        table = self.findings
        if len(table) and not ((table == 1).sum(axis=1) == 1).all():
            raise InputError("some images have several findings, or none: this needs a cohort with one class an image")
        return np.asarray(table.argmax(axis=1), dtype=np.int64)

    @functools.cached_property
    def duplicates(self) -> NDArray[np.int64]:
        """:func:`duplicate_groups` of every image."""
        return duplicate_groups(self.rows)

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
        write(folder, self.images, np.arange(len(self)), self.rows)

    @classmethod
    def load(cls, folder: Path) -> ImageSet:
        """Read what :meth:`save` wrote, memory-mapped. Raises InputError where it is missing, damaged, or does not fit together."""
        file = "images-00000.npy"
        try:
            shards: list[NDArray[Any]] = []
            for path in sorted(folder.glob("images-*.npy")):
                file = path.name
                shards.append(_shard(path, shards[0] if shards else None))
            file = "rows.parquet"
            rows = _rows(folder / file, sum(map(len, shards)))
            return cls(shards[0] if len(shards) == 1 else cast("NDArray[Any]", Shards(shards)), rows)
        except Exception as error:  # numpy's and pyarrow's parsers raise anything on damaged files
            raise InputError(damage(folder.name, file)) from error


class Shards:
    """Memory-mapped arrays one after the other, indexed like the array that they make up; only what is asked for is read."""

    def __init__(self, parts: Sequence[NDArray[Any]]) -> None:
        self.parts = parts
        self.starts = np.cumsum([0, *map(len, parts)])
        self.shape = (int(self.starts[-1]), *parts[0].shape[1:])
        self.dtype, self.ndim = parts[0].dtype, parts[0].ndim

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Images by number, slice, boolean mask or numbers; a tuple indexes their axes too."""
        if isinstance(index, tuple):
            first = self[index[0]]
            return np.asarray(first[index[1:] if first.ndim < self.ndim else (slice(None), *index[1:])])
        wanted = np.arange(len(self))[index]
        if wanted.ndim == 0:
            part = int(np.searchsorted(self.starts, wanted, "right")) - 1
            return np.asarray(self.parts[part][wanted - self.starts[part]])
        found = np.empty((len(wanted), *self.shape[1:]), self.dtype)
        for values, start, stop in zip(self.parts, self.starts, self.starts[1:]):
            here: NDArray[np.bool_] = (wanted >= start) & (wanted < stop)
            found[here] = values[wanted[here] - start]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.concatenate(self.parts).astype(dtype or self.dtype, copy=False)


def _shard(path: Path, first: NDArray[Any] | None) -> NDArray[Any]:
    """One shard, memory-mapped; ValueError where it does not continue the first one."""
    shard = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(shard, np.ndarray) or shard.dtype not in (np.uint8, np.uint16) or shard.ndim not in (4, 5):
        raise ValueError("not images")
    if first is not None and (shard.shape[1:], shard.dtype) != (first.shape[1:], first.dtype):
        raise ValueError("other images than the first shard's")
    return shard


def _rows(path: Path, count: int) -> pd.DataFrame:
    """The table of ``count`` images; ValueError where it is another, before much memory is taken for it."""
    import pandas as pd
    from pyarrow import parquet

    facts = parquet.read_metadata(path)
    size = sum(facts.row_group(number).total_byte_size for number in range(facts.num_row_groups))
    if facts.num_rows != count or size > ROW_BYTES * (count + ROW_BYTES):
        raise ValueError("not a table of these images")
    rows = pd.read_parquet(path)
    findings = [name for name in rows.columns if str(name).startswith(FINDING)]
    texts = [name for name in ("id", "patient", "split") if name in rows.columns]
    if len(rows) != count or "id" not in texts or not rows.columns.is_unique or not all(isinstance(name, str) for name in rows.columns):
        raise ValueError("not a table of images")
    if not all(rows[name].dtype == np.int8 and rows[name].between(-1, 1).all() for name in findings):
        raise ValueError("not findings")
    if not all(isinstance(value, str) for name in texts for value in rows[name]):
        raise ValueError("not names")
    return rows.reset_index(drop=True)


def write(folder: Path, images: NDArray[Any], index: NDArray[np.int64], rows: pd.DataFrame) -> None:
    """Write the images at ``index`` as shards, one shard in memory at a time, and their rows, into ``folder`` (made if absent)."""
    folder.mkdir(parents=True, exist_ok=True)
    count = shard_length(images)
    for number, start in enumerate(range(0, max(len(index), 1), count)):
        np.save(folder / shard_name(number), np.asarray(images[index[start : start + count]]), allow_pickle=False)
    rows.to_parquet(folder / "rows.parquet", index=False)


def shard_length(images: NDArray[Any]) -> int:
    """Images in a shard: :data:`SHARD`, or as many as fit into :data:`SHARD_BYTES`."""
    return max(1, min(SHARD, SHARD_BYTES // max(1, int(np.prod(images.shape[1:])) * images.dtype.itemsize)))


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"images-{number:05d}.npy"


def unit_of(folder: Path) -> str:
    """``patient``, or ``image`` where an ingested cohort has no patients. Raises InputError where its ``cohort.json`` does not say."""
    unit = read_object(folder / "cohort.json").get("unit")
    if unit not in ("patient", "image"):
        raise InputError(damage(folder.name, "cohort.json"))
    return str(unit)


def finding_columns(labels: NDArray[np.int64], classes: Sequence[str]) -> dict[str, NDArray[np.int8]]:
    """One int8 column a class from class indices ``[n]``; -1 in ``labels`` makes every finding unknown (-1)."""
    known = labels >= 0
    return {FINDING + name: np.where(known, labels == index, -1).astype(np.int8) for index, name in enumerate(classes)}


def from_unit(images: NDArray[np.float32]) -> NDArray[np.uint8]:
    """float32 -1..1 to uint8 0..255, rounded to nearest, clipped."""
    rounded: NDArray[np.uint8] = np.clip(np.rint((images + 1) * 127.5), 0, 255).astype(np.uint8)
    return rounded
