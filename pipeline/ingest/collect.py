"""Reading every file into one growing store of standardised images and rows: in parallel, streaming, resumable file by file."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.cohorts.key import project_key
from pipeline.images import ATTRIBUTE
from pipeline.ingest.isolate import SECONDS, Answer, Failed, isolated
from pipeline.ingest.standardize import Target
from pipeline.ingest.tasks import Left, Task
from pipeline.ingest.work import PASSING, Settings, work
from pipeline.ranks import Report, Share

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.config.ingest import AttributeKind

# Bytes that are always read within SECONDS beyond the first.
SLOWEST = 16 << 20
# Where ranks leave what they read, in blocks of so many tasks: starting a block's workers costs a tenth of reading it, or less.
BLOCKS = "blocks"
BLOCK = 512
# Of the journal's lines: what an interrupted attempt of an earlier version left in another one is read again.
FORM = b"3"
FIELDS = (
    *("modality", "view", "laterality", "site", "sex", "age_band", "acquisition", "turned"),
    *("spacing_mm", "intensity_low", "intensity_high"),
)


def collect(
    folder: Path, settings: Settings, tasks: Sequence[Task], workers: int | None = None, done: Callable[[int], None] = lambda _: None
) -> Store:
    """Read every task and append what it gives to the store in ``folder``; tasks that an earlier attempt finished are taken over.

    The store is the same for any number of workers and interruptions, and whether or not ranks have read the files before
    (:func:`read_blocks`). Memory does not grow with the number of tasks, but for a few numbers for each of them.

    Args:
        folder: where the store grows; made if absent. It holds patient data.
        settings: how a task is read.
        tasks: in the order of the result; the same in every attempt.
        workers: processes; as many as there are usable cores by default.
        done: told how many tasks are finished.
    """
    store = Store(folder, settings.target, settings.dimensions)
    finished = store.open()
    seen = {row["id"] for line in store.lines() for row in line["rows"]}
    answers: Iterator[Answer | Failed]
    if (folder / BLOCKS).exists():
        blocks = (Store(_block(folder, number), settings.target, settings.dimensions) for number in range(-(-len(tasks) // BLOCK)))
        answers = itertools.islice(itertools.chain.from_iterable(block.answers() for block in blocks), finished, None)
    else:
        answers = isolated(
            functools.partial(work, settings=settings),
            tasks[finished:],
            workers=workers,
            seconds=functools.partial(task_seconds, settings=settings),
            memory=settings.memory,
        )
    with store.appending() as (pixels, journal):
        for number, answer in enumerate(answers, finished + 1):
            if isinstance(answer, Failed):
                line: dict[str, Any] = {"rows": [], "left_out": [answer.reason], "again": [], "lines": []}
                data = []
            else:
                images, line = _first_of_its_kind(answer, seen)
                data = [image.astype(store.stored, copy=False).tobytes() for image in images]
            pixels.writelines(data)
            pixels.flush()  # the pixels are there before the line that counts them
            journal.write(json.dumps(line | {"check": _check(line, data)}).encode() + b"\n")
            journal.flush()
            done(number)
    shutil.rmtree(folder / BLOCKS, ignore_errors=True)
    return store


def read_blocks(share: Share, run: Path, folder: Path, settings: Settings, tasks: Sequence[Task], workers: int, *, report: Report) -> None:
    """Read a rank's share of the tasks, each block of :data:`BLOCK` into a store of its own, from which :func:`collect` makes the whole.

    Args:
        share: which blocks.
        run: the run folder, where the key of the pseudonyms is found: it does not travel between ranks with the ``settings``.
        folder: of the store that ``collect`` is going to make.
        settings, tasks: as for ``collect``, but for the key.
        workers: processes of this rank.
        report: told how many tasks all ranks have read, taking the others to be as fast as this one.
    """
    settings = dataclasses.replace(settings, key=project_key(run))
    before = 0
    for number in share.places(-(-len(tasks) // BLOCK)):
        block = tasks[number * BLOCK : (number + 1) * BLOCK]

        def done(count: int, before: int = before) -> None:
            report(min(len(tasks), share.of * (before + count)))

        collect(_block(folder, number), settings, block, workers, done)
        before += len(block)


def _check(line: dict[str, Any], pixels: Sequence[bytes]) -> str:
    """What a line of the journal says of itself and its images, so that a damaged one is read again."""
    code = hashlib.sha256(FORM + json.dumps(line, sort_keys=True).encode())
    for data in pixels:
        code.update(data)
    return code.hexdigest()[:16]


def _block(folder: Path, number: int) -> Path:
    return folder / BLOCKS / f"{number:08d}"


def task_seconds(task: Task, settings: Settings) -> float:
    """Time that a task may take: more for many files, for large ones, and where text is read."""
    paths = [settings.root / name for name in task.files]
    size = sum(path.stat().st_size for path in paths if path.exists())
    return SECONDS * (len(task.files) + size / SLOWEST) + settings.reading_seconds


def _first_of_its_kind(answer: Answer, seen: set[str]) -> tuple[list[NDArray[Any]], dict[str, Any]]:
    """The images and the journal's line of one task, without images that an earlier file gave already."""
    images, rows, left_out, again = [], [], list(answer.value["left_out"]), list(answer.value["again"])
    for image, row in zip(answer.arrays, answer.value["rows"]):
        if row["id"] in seen:
            left_out.append("the same SOP Instance UID as an earlier file")
            again.append({name: row[name] for name in ("id", "findings", "patient")})
            continue
        seen.add(row["id"])
        images.append(image)
        rows.append(row)
    return images, {**answer.value, "rows": rows, "left_out": list(dict.fromkeys(left_out)), "again": again}


class Store:
    """Images and rows as they are read: ``pixels.bin`` (raw, little-endian, one after the other) and ``journal.jsonl`` (a line a task).

    A line holds pseudonyms, so it names no file, which may tell who the patient is: its place says which task it belongs to.
    """

    def __init__(self, folder: Path, target: Target, dimensions: int) -> None:
        self.folder, self.shape = folder, (target.channels, *[target.size] * dimensions)
        self.stored = np.dtype(target.dtype).newbyteorder("<")
        self.bytes = int(np.prod(self.shape)) * self.stored.itemsize

    def open(self) -> int:
        """Make the folder ready, and cut off what an interrupted attempt left unfinished or was damaged since; the number of tasks that are
        finished."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        tasks = images = length = 0
        with (self.folder / "pixels.bin").open("a+b") as pixels, (self.folder / "journal.jsonl").open("a+b") as journal:
            pixels.seek(0)
            journal.seek(0)
            for line in journal:
                rows = self._whole(line, pixels)
                if rows is None:
                    break
                tasks, images, length = tasks + 1, images + rows, length + len(line)
            journal.truncate(length)
            pixels.truncate(images * self.bytes)
        return tasks

    def _whole(self, line: bytes, pixels: BinaryIO) -> int | None:
        """Rows of a line of the journal, whose images come next in ``pixels``; None where either is cut off or damaged."""
        try:
            value = json.loads(line) if line.endswith(b"\n") else {}
            rows, check = value["rows"], value.pop("check")
            data = [pixels.read(self.bytes) for _ in rows]
            return len(rows) if check == _check(value, data) else None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    @contextlib.contextmanager
    def appending(self) -> Iterator[tuple[BinaryIO, BinaryIO]]:
        """The two files, to append to."""
        with (self.folder / "pixels.bin").open("ab") as pixels, (self.folder / "journal.jsonl").open("ab") as journal:
            yield pixels, journal

    def images(self) -> NDArray[Any]:
        """All images ``[n, C, (D,) H, W]``, memory-mapped."""
        path = self.folder / "pixels.bin"
        count = path.stat().st_size // self.bytes
        if not count:
            return np.zeros((0, *self.shape), self.stored)
        return np.memmap(path, self.stored, "r", shape=(count, *self.shape))

    def answers(self) -> Iterator[Answer]:
        """What every finished task gave, as its worker did."""
        images, start = self.images(), 0
        for line in self.lines():
            end = start + len(line["rows"])
            yield Answer(line, tuple(images[start:end]))
            start = end

    def rows(self, tasks: Sequence[Task], attributes: Mapping[str, AttributeKind] | None = None, *, formerly: bool = False) -> pd.DataFrame:
        """One row an image: ``id``, ``patient``, ``content``, ``values``, ``pixels`` where it has images' former pseudonyms, ``file``,
        ``findings`` (a tuple), :data:`FIELDS`, :data:`PASSING`, and ``attributes`` as texts and ``float32``."""
        import pandas as pd

        own = {ATTRIBUTE + name: kind for name, kind in (attributes or {}).items()}
        pseudonyms = ("id", "patient", "content", "values", *(["pixels"] if formerly else []))
        names = (*pseudonyms, "findings", "file", *FIELDS, *PASSING, *own)
        columns: dict[str, list[Any]] = {name: [] for name in names}
        shared: dict[Any, Any] = {}  # equal values are kept once: most columns hold few different ones
        for task, line in zip(tasks, self.lines()):
            for row in line["rows"]:
                for name, values in columns.items():
                    value = task.files[0] if name == "file" else tuple(row[name]) if name == "findings" else row[name]
                    values.append(shared.setdefault(value, value))
        # Names that are not UTF-8 cannot be held but as objects.
        numbers = {name: pd.Series(columns[name], dtype=np.float32) for name, kind in own.items() if kind == "number"}
        return pd.DataFrame({**columns, **numbers, "file": pd.Series(columns["file"], dtype=object)})

    def left_out(self, tasks: Sequence[Task]) -> Left:
        """File and reason of everything that was left out."""
        return [(name, reason) for task, line in zip(tasks, self.lines()) for reason in line["left_out"] for name in task.files]

    def again(self) -> list[dict[str, Any]]:
        """``id``, ``findings`` and ``patient`` of images that an earlier file had given already."""
        return [one for line in self.lines() for one in line["again"]]

    def matched(self) -> set[int]:
        """Lines of a label table by UID or patient that some header led to."""
        return {number for line in self.lines() for number in line["lines"]}

    def lines(self) -> Iterator[dict[str, Any]]:
        """The journal: ``rows``, ``left_out``, ``again`` and ``lines`` of every finished task."""
        with (self.folder / "journal.jsonl").open("rb") as file:
            yield from map(json.loads, file)
