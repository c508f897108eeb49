"""A blinded reading of a run's pictures by people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import InputError, system_refusals
from pipeline.system import private_files

if TYPE_CHECKING:
    from pipeline.reading import Score


def reading(run: str | Path, *, out: str | Path, per_class: int = 20, seed: int = 0) -> int:
    """Write numbered pictures, sealed real ones and synthetic ones in random order, for readers who are not told which is which.

    Readers get ``sheets/``, ``instructions.txt`` and ``answers.csv``; ``key.csv`` stays with whoever scores (:func:`score_reading`). The
    folder holds patient data, and is 0700.

    Args:
        run: the run folder, of which ``ingest`` and ``generate`` are needed.
        out: a folder that is not there yet, or is empty.
        per_class: real images of each class, and as many synthetic ones, at the most.
        seed: of the drawing, not negative.

    Returns:
        How many pictures there are.

    Raises:
        InputError: a stage is not finished, no class has images of both kinds, or the folder holds something.
    """
    from pipeline.reading import export
    from pipeline.show import refuse_missing

    run, out = Path(run), Path(out)
    if per_class < 1 or seed < 0:
        raise InputError("--per-class is 1 at least, and --seed not negative")
    with system_refusals(run):
        refuse_missing(run)
    with system_refusals(out), private_files(out.absolute().parent):
        return export(run, out, per_class, seed)


def score_reading(folder: str | Path, answers: Sequence[str | Path]) -> list[Score]:
    """What readers' filled-in copies of ``answers.csv`` say, one :class:`~pipeline.reading.Score` a reader, in their order.

    Raises:
        InputError: the folder holds no key, or answers cannot be read: all of them are named.
    """
    from pipeline.reading import score

    with system_refusals(Path(folder)):
        return score(Path(folder), [Path(path) for path in answers])
