"""Further images of a finished run's model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputError, system_refusals
from pipeline.system import private_files

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.config import Asked


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


def generate(
    run: str | Path,
    classes: Mapping[str, int] | None = None,
    *,
    plan: Sequence[Asked | Mapping[str, Any]] = (),
    out: str | Path,
    seed: int = 0,
    console: Console | None = None,
) -> Generation:
    """Images from a run's model, without the patients' data: of a run folder, ``train`` is needed, and ``release`` for its verdict.

    To have more images released, raise ``generate.per_class`` of the run instead (``run(..., settings=["generate.per_class=2000"],
    redo=True)``): the training stands, and the larger set passes through audit and gate as a further attempt.

    Args:
        run: the run folder.
        classes: how many images of each class, or with each finding.
        plan: what else is asked for, as ``generate.plan`` takes it: ``{"findings": ["effusion"], "without": ["nodule"], "count": 50}``.
        out: a folder that is not there yet, or is empty.
        seed: of the drawing, not negative. Image k of an entry is the same whatever else is asked for, up to rounding, which other
            batches change: by one grey level in 1 of about 10⁴ pixels in float32, in 1 of 50 in bfloat16 on a CPU, by a few on a GPU.
        console: where progress is shown; nowhere by default.

    Raises:
        InputError: there is no trained model, it does not know what is asked for, or the folder holds something.
    """
    from pipeline import further
    from pipeline.progress import Reporter, silent
    from pipeline.show import refuse_missing

    run, out = Path(run), Path(out)
    if seed < 0:
        raise InputError(f"--seed {seed}: give a number that is not negative")
    with system_refusals(run):
        refuse_missing(run)
    with system_refusals(out), private_files(out.absolute().parent):
        asked = _plan(classes or {}, plan)
        model, count = further.generate(run, asked, seed, out, Reporter(out / "log.jsonl", console or silent()))
    return Generation(out, count, model.verdict == "pass")


def _plan(classes: Mapping[str, int], plan: Sequence[Asked | Mapping[str, Any]]) -> list[Asked]:
    """One plan of both. Raises InputError where it is empty, malformed, or has an entry twice."""
    from pydantic import ValidationError

    from pipeline.config import Asked
    from pipeline.config.load import one_line

    given: list[Any] = [{"findings": [name], "count": count} for name, count in classes.items()]
    try:
        asked = [Asked.model_validate(one) for one in [*given, *plan]]
    except ValidationError as error:
        raise InputError(f"what to generate: {one_line(error)}") from None
    if not asked:
        raise InputError("nothing to generate: give classes or findings and how many images of them")
    kinds = [one.model_dump(mode="json", exclude={"count", "extrapolate"}) for one in asked]
    if any(kind in kinds[:place] for place, kind in enumerate(kinds)):
        raise InputError("what to generate: the same is asked for twice: ask once, with all its images")
    return asked
