"""Reading every file into one growing store of standardised images and rows: in parallel, streaming, resumable file by file."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts import keyed, project_key
from pipeline.ingest.deidentify import allow_list, blank, text_guard
from pipeline.ingest.intensity import window
from pipeline.ingest.isolate import MEMORY, SECONDS, Answer, Failed, isolated
from pipeline.ingest.readers import ultrasound
from pipeline.ingest.readers.header import text
from pipeline.ingest.readers.reading import Quarantined, Reading, Unusable
from pipeline.ingest.standardize import Target, standardize, standardize_volume
from pipeline.ingest.tasks import Left, Task
from pipeline.ranks import Report, Share

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.ingest.labels import Findings

MIN_SIDE = 16
# What reading what looks like text may take beyond that, and what its models need.
READING_SECONDS, READING_MEMORY = 10.0, 384 << 20
# Bytes that are always read within SECONDS beyond the first.
SLOWEST = 16 << 20
# Where ranks leave what they read, in blocks of so many tasks: starting a block's workers costs a tenth of reading it, or less.
BLOCKS = "blocks"
BLOCK = 512
FIELDS = ("modality", "view", "laterality", "site", "sex", "age_band", "spacing_mm", "intensity_low", "intensity_high")


class Reader(Protocol):
    """``read`` of one of the readers: the images of these files, one for each that the files hold."""

    def __call__(self, paths: Sequence[Path], refuse: Callable[[Any], str | None]) -> Iterator[Reading | Quarantined]:
        """Read."""


class Labeller(Protocol):
    """Which findings an image has."""

    def find(self, file: str, header: Any) -> Findings | Quarantined:
        """Findings by the file's relative path and its header."""


@dataclass(frozen=True)
class Settings:
    """How a task becomes images and rows; it travels to the worker processes.

    Attributes:
        root: the folder of the files.
        read: the reader.
        labels: what names the findings.
        key: of the pseudonyms.
        target: what every image becomes.
        dimensions: 2 for images, 3 for volumes.
        patients: whether an image without a patient is left out; otherwise each image is a patient of its own.
        dicom: whether headers are those of DICOM files, which must say their modality.
        burned_in: as in :func:`pipeline.ingest.deidentify.text_guard.refuse`.
        mask: as in :func:`pipeline.ingest.deidentify.blank.masked`.
    """

    root: Path
    read: Reader
    labels: Labeller
    key: bytes = dataclasses.field(repr=False)
    target: Target
    dimensions: int = 2
    patients: bool = True
    dicom: bool = True
    burned_in: text_guard.Policy = "strict"
    mask: tuple[blank.Rectangle, ...] = ()

    @property
    def memory(self) -> int:
        """Bytes that a worker may use for a task: a volume needs more than an image."""
        reading = READING_MEMORY if self.burned_in != "declared" else 0
        return (MEMORY if self.dimensions == 2 else 4 * MEMORY) + reading


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
            seconds=functools.partial(_seconds, settings=settings),
            memory=settings.memory,
        )
    with store.appending() as (pixels, journal):
        for number, answer in enumerate(answers, finished + 1):
            if isinstance(answer, Failed):
                line: dict[str, Any] = {"rows": [], "left_out": [answer.reason]}
            else:
                images, line = _first_of_its_kind(answer, seen)
                for image in images:
                    pixels.write(image.astype(store.stored, copy=False).tobytes())
            pixels.flush()  # the pixels are there before the line that counts them
            journal.write(json.dumps(line).encode() + b"\n")
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


def _block(folder: Path, number: int) -> Path:
    return folder / BLOCKS / f"{number:08d}"


def _seconds(task: Task, settings: Settings) -> float:
    """Time that a task may take: more for many files, for large ones, and where text is read."""
    paths = [settings.root / name for name in task.files]
    size = sum(path.stat().st_size for path in paths if path.exists())
    reading = READING_SECONDS if settings.burned_in != "declared" else 0.0
    return SECONDS * (len(task.files) + size / SLOWEST) + reading


def _first_of_its_kind(answer: Answer, seen: set[str]) -> tuple[list[NDArray[Any]], dict[str, Any]]:
    """The images and the journal's line of one task, without images that an earlier file gave already."""
    images, rows, left_out = [], [], list(answer.value["left_out"])
    for image, row in zip(answer.arrays, answer.value["rows"]):
        if row["id"] in seen:
            left_out.append("the same SOP Instance UID as an earlier file")
            continue
        seen.add(row["id"])
        images.append(image)
        rows.append(row)
    return images, {"rows": rows, "left_out": list(dict.fromkeys(left_out))}


def work(task: Task, settings: Settings) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """One task's images and their rows, and why others were left out of it: past this point there is no identity."""
    images, rows, left_out = [], [], []
    refuse = functools.partial(_refuse, task=task, settings=settings)
    for found in settings.read([settings.root / file for file in task.files], refuse):
        try:
            if isinstance(found, Quarantined):
                raise Unusable(found.reason)
            image, row = _standard(found, task, settings)
        except Unusable as error:
            left_out.append(str(error))
            continue
        images.append(image)
        rows.append(row)
    # Frames that are left out for one reason give it once.
    return {"rows": rows, "left_out": list(dict.fromkeys(left_out))}, images


def _findings(header: Any, task: Task, settings: Settings) -> Findings | Quarantined:
    """What the labels say of an image; a volume's files must not contradict each other."""
    found = [settings.labels.find(name, header) for name in task.files]
    known = {one for one in found if not isinstance(one, Quarantined)}
    if len(known) > 1:
        return Quarantined("contradictory labels for the files of its series in the label table")
    return known.pop() if known else found[0]


def _refuse(header: Any, task: Task, settings: Settings) -> str | None:
    """Why an image is not wanted, told by its header alone."""
    if not text(header, "SOPInstanceUID"):
        return "no SOP Instance UID: give it one, or export it again"
    modality = text(header, "Modality").upper()
    if settings.dicom and modality not in allow_list.MODALITIES:
        if not modality:
            return "its header has no Modality: set it to what it is (CT, MR, DX, ...)"
        return "its Modality is not that of an image of the body (a whole slide, a segmentation, a report, ...): keep such files elsewhere"
    if settings.patients and not text(header, "PatientID"):
        return "no Patient ID: it could not be kept on the same side of the split as the patient's other images; give it one"
    if (why := text_guard.refuse_header(header, settings.burned_in)) is not None:
        return why
    found = _findings(header, task, settings)
    return found.reason if isinstance(found, Quarantined) else None


def _standard(reading: Reading, task: Task, settings: Settings) -> tuple[NDArray[Any], dict[str, Any]]:
    findings = _findings(reading.header, task, settings)
    if isinstance(findings, Quarantined):
        raise Unusable(findings.reason)
    # Before anything else looks at the pixels; rectangles are shares of the whole picture, so the crop comes after them.
    reading = ultrasound.cropped(dataclasses.replace(reading, pixels=blank.masked(reading.pixels, settings.mask)))
    if min(reading.pixels.shape[-2:]) < MIN_SIDE:
        raise Unusable(f"smaller than {MIN_SIDE} pixels")
    if _flat(reading.pixels):
        raise Unusable("the image has no contrast")
    if (why := text_guard.refuse_pixels(reading.pixels, settings.burned_in)) is not None:
        raise Unusable(why)
    kept = dict(vars(allow_list.keep(reading.header, settings.key)))
    if reading.frame is not None:
        kept["id"] = keyed(settings.key, "frame", kept["id"], str(reading.frame))[:16]
    if not settings.patients:
        kept["patient"] = kept["id"]
    low, high = window(reading, kept["modality"], settings.target.scaling)
    spacing: float | None
    if reading.kind == "volume":
        image, spacing, _ = standardize_volume(reading, low, high, settings.target)
    else:
        mm = reading.spacing[0] if reading.spacing else None
        image, ratio = standardize(reading.pixels, low, high, settings.target, reading.aspect, mm, overwrite=True)
        spacing = mm * ratio if mm else None
    row = {
        **kept,
        "findings": findings,
        "spacing_mm": spacing,
        "intensity_low": low if reading.linear else None,
        "intensity_high": high if reading.linear else None,
    }
    return image, row


def _flat(pixels: NDArray[np.float32]) -> bool:
    """Whether all values but NaN are one. Of most images a few rows tell that they are not, in a fraction of the time."""
    few = pixels[..., :: max(1, pixels.shape[-2] // 8), :]
    if np.fmin.reduce(few, axis=None) < np.fmax.reduce(few, axis=None):
        return False
    return bool(np.fmin.reduce(pixels, axis=None) == np.fmax.reduce(pixels, axis=None))


class Store:
    """Images and rows as they are read: ``pixels.bin`` (raw, little-endian, one after the other) and ``journal.jsonl`` (a line a task).

    A line holds pseudonyms, so it names no file, which may tell who the patient is: its place says which task it belongs to.
    """

    def __init__(self, folder: Path, target: Target, dimensions: int) -> None:
        self.folder, self.shape = folder, (target.channels, *[target.size] * dimensions)
        self.stored = np.dtype(target.dtype).newbyteorder("<")
        self.bytes = int(np.prod(self.shape)) * self.stored.itemsize

    def open(self) -> int:
        """Make the folder ready, and cut off what an interrupted attempt left unfinished; the number of tasks that are finished."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        pixels, journal = self.folder / "pixels.bin", self.folder / "journal.jsonl"
        pixels.touch()
        journal.touch()
        tasks = images = length = 0
        with journal.open("rb") as file:
            for line in file:
                try:
                    rows = len(json.loads(line)["rows"]) if line.endswith(b"\n") else None
                except (ValueError, KeyError):
                    rows = None
                if rows is None or (images + rows) * self.bytes > pixels.stat().st_size:
                    break
                tasks, images, length = tasks + 1, images + rows, length + len(line)
        with journal.open("r+b") as file:
            file.truncate(length)
        with pixels.open("r+b") as file:
            file.truncate(images * self.bytes)
        return tasks

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

    def rows(self, tasks: Sequence[Task]) -> pd.DataFrame:
        """One row an image: ``id``, ``patient``, ``file``, ``findings`` (a tuple) and :data:`FIELDS`."""
        import pandas as pd

        columns: dict[str, list[Any]] = {name: [] for name in ("id", "patient", "findings", "file", *FIELDS)}
        shared: dict[Any, Any] = {}  # equal values are kept once: most columns hold few different ones
        for task, line in zip(tasks, self.lines()):
            for row in line["rows"]:
                for name, values in columns.items():
                    value = task.files[0] if name == "file" else tuple(row[name]) if name == "findings" else row[name]
                    values.append(shared.setdefault(value, value))
        return pd.DataFrame(columns)

    def left_out(self, tasks: Sequence[Task]) -> Left:
        """File and reason of everything that was left out."""
        return [(name, reason) for task, line in zip(tasks, self.lines()) for reason in line["left_out"] for name in task.files]

    def lines(self) -> Iterator[dict[str, Any]]:
        """The journal: ``rows`` and ``left_out`` of every finished task."""
        with (self.folder / "journal.jsonl").open("rb") as file:
            yield from map(json.loads, file)
