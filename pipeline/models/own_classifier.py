"""The classifiers that a run's evaluation trained on real images, as a model under stress: the mean of their probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from evaluation.classifiers import Kind
from pipeline import artifacts
from pipeline.artifacts import damage, read_object
from pipeline.errors import InputError
from pipeline.models.contract import Declared

if TYPE_CHECKING:
    from torch import Tensor


def declared_by(run: Path) -> Declared:
    """The contract of a run's classifiers, which its records say.

    Raises:
        InputError: its evaluation is not finished, or damaged, or of volumes, or its classifiers are unfit.
    """
    run = run.expanduser()
    record = artifacts.load_record(run / "evaluate")
    if record is None:
        raise InputError(f"{run.name} holds no classifiers: give the folder of a run whose evaluate stage is finished")
    artifacts.Checked().consume(run / "evaluate", record)
    found, cohort = read_object(run / "evaluate" / "evaluation.json"), read_object(run / "ingest" / "cohort.json")
    if "unfit" in found["judge"]:
        raise InputError(f"{run.name}: its classifiers are unfit, since one {found['judge']['unfit']}: give a run of more images")
    if cohort["dimensions"] != 2:
        raise InputError(f"{run.name} holds classifiers of volumes: give one of images")
    return Declared(
        size=cohort["size"],
        channels=cohort["channels"],
        layout="NCHW",
        dtype="float32",
        range=(-1.0, 1.0),
        fit="pad",
        classes=tuple(found["classes"]),
        output="probabilities",
        exclusive=not found.get("several", False),
        modality=cohort["modality"] if _known(cohort["modality"]) else None,
    )


def mean_probabilities(run: Path, device: str) -> Any:
    """Prepared images ``[n, C, H, W]`` in −1..1 to probabilities ``float64 [n, K]``. Raises InputError where the weights are damaged."""
    import numpy as np

    from pipeline.evaluate import JUDGES, load_judges

    found = read_object(run / "evaluate" / "evaluation.json")
    judge = found.get("judge")
    if not isinstance(judge, dict) or judge.get("network") not in get_args(Kind):
        raise InputError(damage("evaluate", "evaluation.json"))
    judges = load_judges(run / "evaluate" / JUDGES, judge["network"], device, several=bool(found.get("several")))

    def call(x: Tensor) -> Any:
        return np.mean([one.predict(x.cpu().numpy()) for one in judges], axis=0)

    return call


def _known(modality: Any) -> bool:
    from evaluation.shifts import KNOWN  # which needs torch

    return modality in KNOWN
