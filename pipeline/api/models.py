"""The stress test of anybody's model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputError, system_refusals
from pipeline.system import private_files

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class StressTest:
    """What a stress test found.

    Attributes:
        folder: with ``stress.json``, ``stress.html``, ``answers.npz``, ``draws.parquet``, ``synthetic.parquet``, and for local eyes only
            ``failures.png``, ``shifts.png`` and ``counterfactuals.png``. It is private, since it tells of patients.
        exit_code: 0 where every question was answered yes, 3 where one was answered no, 4 where there was not enough data for one.
        answers: ``rule``, ``answer`` (yes, no, not enough data), ``measured`` and ``why`` of every rule; the first asks whether the model
            is fit on images as they are.
        result: the content of ``stress.json``.
    """

    folder: Path
    exit_code: int
    answers: tuple[Mapping[str, Any], ...]
    result: Mapping[str, Any]


def stress(
    *,
    model: str | Path,
    data: str | Path,
    against: str | Path | None = None,
    labels: str | Path | None = None,
    synthetic: str | Path | None = None,
    rules: str | Path | None = None,
    contract: str | Path | None = None,
    against_contract: str | Path | None = None,
    modality: str | None = None,
    memory: float = 8.0,
    seconds: float = 2.0,
    out: str | Path | None = None,
    console: Console | None = None,
) -> StressTest:
    """Put a classifier under acquisition shifts that fit its images, and answer acceptance rules.

    Args:
        model: ONNX (``.onnx``), TorchScript (``.pt``), a ``torch.export`` program (``.pt2``), or a Python function as
            ``module:callable``, of images ``[n, C, H, W]`` to scores ``[n, classes]``; or a run's folder, for the classifiers that its
            evaluation trained. It runs in a process of its own.
        data: labelled cases: a folder of DICOM or pictures, or an ``.npz`` of MedMNIST's layout, of several findings too.
        against: a second model, compared on the same cases.
        labels: a label table; by default ``labels.csv`` in ``data``, or folders named by class. With a column for each of the model's
            classes, or labels with bars between, an image can have several of them, or none.
        synthetic: synthetic cases of the same classes (a folder with class folders or ``labels.csv``, an ``.npz``, a release): those
            whose label judges are sure of are asked too, and failures on them are called hypotheses. A run's folder makes them: every
            class as often, severities between two, and real images of ``data`` with another finding.
        rules: a YAML list of rules such as ``sensitivity(effusion) >= 0.85 at blur 2``.
        contract, against_contract: YAML files that say what the models take and give (:mod:`pipeline.models.contract`); by default the file
            beside the model with the suffix ``.yaml``.
        modality: DICOM's code, such as DX, where neither files nor contract say it; it chooses the shifts.
        memory: GiB that a model's process may hold.
        seconds: for an answer to one image, on average.
        out: the folder to write; ``runs/stress-<model>`` by default.
        console: where progress is shown; nowhere by default.

    Raises:
        InputError: what was given cannot be used, or the model does not keep its contract: every violation with what to declare.
    """
    from pipeline.folders import claim_alone
    from pipeline.models.child import Bounds
    from pipeline.models.contract import kind_of
    from pipeline.models.stress import Asked
    from pipeline.models.whole import is_ours, tested
    from pipeline.progress import Reporter, silent

    if not (memory > 0 and seconds > 0):
        raise InputError("--memory is in GiB and --seconds in seconds, both above 0")
    if against is None and against_contract is not None:
        raise InputError("--against-contract says what a second model takes, and there is none: give --against")
    kind_of(str(model))
    paths = [None if path is None else Path(path) for path in (contract, against_contract, labels, rules, synthetic)]
    asked = Asked(
        model=str(model),
        data=Path(data),
        against=None if against is None else str(against),
        contract=paths[0],
        against_contract=paths[1],
        labels=paths[2],
        rules=paths[3],
        synthetic=paths[4],
        bounds=Bounds(int(memory * (1 << 30)), seconds),
        modality=modality,
    )
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", str(model) if ":" in str(model) else Path(model).stem).strip("-.")[:40] or "model"
    folder = Path(out) if out is not None else Path("runs") / f"stress-{name}"
    sources = {"--data": asked.data} | ({"--synthetic": asked.synthetic} if asked.synthetic is not None else {})
    claim_alone(folder, sources, ours=is_ours(folder))
    with system_refusals(folder), private_files(folder):
        found = tested(asked, folder, Reporter(folder / "log.jsonl", console or silent()))
    return StressTest(folder, found.code, tuple(found.result["answers"]), found.result)
