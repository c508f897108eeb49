"""Further images of a finished run's model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import InputError, system_refusals
from pipeline.system import private_files

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Generation:
    """What was generated.

    Attributes:
        folder: where the images are.
        images: how many.
        cleared: whether the weights' verdict is ``pass``. Otherwise the images are unaudited patient data.
    """

    folder: Path
    images: int
    cleared: bool


def generate(run: str | Path, classes: Mapping[str, int], *, out: str | Path, seed: int = 0, console: Console | None = None) -> Generation:
    """Images from a run's model, without the patients' data: of a run folder, ``train`` is needed, and ``release`` for its verdict.

    To have more images released, raise ``generate.per_class`` of the run instead (``run(..., settings=["generate.per_class=2000"],
    redo=True)``): the training stands, and the larger set passes through audit and gate as a further attempt.

    Args:
        run: the run folder.
        classes: how many images of each class.
        out: a folder that is not there yet, or is empty.
        seed: of the drawing, not negative. Image k of a class is the same whatever else is asked for, up to rounding, which other
            batches change: by one grey level in 1 of about 10⁴ pixels in float32, in 1 of 50 in bfloat16 on a CPU, by a few on a GPU.
        console: where progress is shown; nowhere by default.

    Raises:
        InputError: there is no trained model, a class is none of its, or the folder holds something.
    """
    from pipeline import further
    from pipeline.progress import Reporter, silent

    run, out = Path(run), Path(out)
    if seed < 0:
        raise InputError(f"--seed {seed}: give a number that is not negative")
    with system_refusals(run):
        if not run.is_dir():
            raise InputError(f"no run folder {run.name}: give the folder that `synthcohort run` wrote, such as runs/quickstart")
    with system_refusals(out), private_files(out.absolute().parent):
        model = further.generate(run, classes, seed, out, Reporter(out / "log.jsonl", console or silent()))
    return Generation(out, sum(classes.values()), model.verdict == "pass")
