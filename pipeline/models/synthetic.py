"""Synthetic cases beside the real ones: read or made, judged, and asked; see :mod:`evaluation.hypotheses`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from evaluation import finding_hypotheses
from evaluation.data import Labelled, to_unit
from evaluation.hypotheses import Judgement, hypotheses, judgement, learned, told
from evaluation.intervals import share_interval
from evaluation.metrics import Floats, recall_estimate
from pipeline import runtime
from pipeline.errors import InputError
from pipeline.models import cases as sources
from pipeline.models.cases import Cases
from pipeline.models.child import ModelFailed, Victim
from pipeline.models.draws import seed_of
from pipeline.models.kinds import SIDE, Kind, resized, sized
from pipeline.models.of_run import OfRun
from pipeline.models.own_generator import is_run

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.progress import Reporter

Learned = TypeVar("Learned")
SEEDS = 2
CEILING = 60_000
BATCH = 32
GIVEN = "as given"


@dataclass(frozen=True)
class Synthetic:
    """What was found: ``result`` for ``stress.json``; ``cases``, one row each; ``pairs``, real images above what was made of them."""

    result: dict[str, Any]
    cases: pd.DataFrame
    pairs: list[tuple[str, NDArray[np.uint8]]]


def asked(victim: Victim, real: Cases, test: Labelled, synthetic: Path, key: bytes, out: Path, reporter: Reporter) -> Synthetic:
    """What the model misses among the synthetic cases of a folder, or of a run's model, of which only those count whose label is sure.

    Raises:
        InputError: they cannot be read or made, or are of other classes.
    """
    runtime.limit_threads()
    names = victim.contract.classes
    if real.several:
        return _asked_findings(victim, real, test, synthetic, key, out, reporter)
    if is_run(synthetic):
        run = OfRun(synthetic, real, test, names)
        judges = _judges(learned, run.small, test, names, reporter)
        kinds, left_out, pairs, control = run.kinds(judges, reporter), {}, run.pairs, _control(victim, run.sized, test, names)
    else:
        given = _given(synthetic, key, out, names)
        judges = _judges(learned, resized(real, test, SIDE, 1), test, names, reporter)
        kinds, left_out, pairs, control = [_kind(given, names)], dict(given.left_out), [], {}
    sets, tables = {}, []
    for kind in kinds:
        judged = judgement(judges, to_unit(kind.small), kind.labels, names)
        kept = judged.sure & kind.fit
        p = _answers(victim, kind.own(np.flatnonzero(kept)), len(names))
        sets[kind.name] = hypotheses(judges, judged, kept, p, kind.labels, names) | kind.facts
        tables.append(_table(kind, judged, kept, p, names))
    import pandas as pd

    result = told(judges, sets) | {"left_out": left_out} | ({"real_at_that_size": control} if control else {})
    return Synthetic(result, pd.concat(tables, ignore_index=True), pairs)


def _asked_findings(victim: Victim, real: Cases, test: Labelled, synthetic: Path, key: bytes, out: Path, reporter: Reporter) -> Synthetic:
    """As :func:`asked`, where an image can have several findings, or none: each is asked about where the judges are sure of it."""
    import pandas as pd

    names = victim.contract.classes
    if is_run(synthetic):
        raise InputError("--synthetic is a run, and an image can have several findings: give images that synthcohort generate made of it")
    given = _given(synthetic, key, out, names, several=True)
    judges = _judges(finding_hypotheses.learned, resized(real, test, SIDE, 1), test, names, reporter)
    images, ids, rows = _small(given)
    marks = sources.labelled(rows, given.classes, names).findings
    judged = finding_hypotheses.judgement(judges, to_unit(images), marks)
    kept = judged.sure.any(axis=1)
    p = np.zeros(marks.shape)
    p[kept] = _answers(victim, _own(given, ids, np.flatnonzero(kept)), len(names))
    found = finding_hypotheses.told(judges, GIVEN, finding_hypotheses.hypotheses(judges, judged, p, marks, names))
    table = pd.DataFrame({"kind": GIVEN, "label_fidelity": judged.fidelity, "distance": judged.distance, "kept": kept})
    for k, name in enumerate(names):
        table[f"label_{name}"], table[f"kept_{name}"] = marks[:, k], judged.sure[:, k]
        table[f"named_{name}"] = np.where(judged.sure[:, k], p[:, k] >= finding_hypotheses.CALLED, -1).astype(np.int8)
    return Synthetic(found | {"left_out": dict(given.left_out)}, table, [])


def _judges(
    learn: Callable[..., Learned], pixels: NDArray[np.uint8], test: Labelled, names: tuple[str, ...], reporter: Reporter
) -> Learned:
    with reporter.progress("judges of synthetic cases", CEILING) as progress:
        return learn(
            Labelled(pixels, test.findings, test.groups),
            names,
            seeds=SEEDS,
            ceiling=CEILING,
            rng=np.random.default_rng(runtime.derive_seed(0, "judges")),
            device=runtime.device(),
            progress=progress,
        )


def _given(synthetic: Path, key: bytes, out: Path, names: Sequence[str], several: bool = False) -> Cases:
    made = sources.opened(synthetic, None, key, out / sources.UNPACKED / "synthetic", names, None, "--synthetic")
    if made.several != several:
        has = ("one class an image", "several findings an image")
        raise InputError(f"--synthetic has {has[made.several]}, and --data {has[several]}: label both alike")
    if strange := [name for name in made.classes if name not in names]:
        raise InputError(f"--synthetic has {len(strange)} classes that the model does not name: sort its images into {', '.join(names)}")
    return made


def _kind(made: Cases, names: Sequence[str]) -> Kind:
    """The cases of a folder, which are read anew when they are asked."""
    images, ids, rows = _small(made)
    labels = np.array([names.index(made.classes[row["findings"].index(1)]) for row in rows])
    return Kind(GIVEN, labels, images, functools.partial(_own, made, ids), np.ones(len(ids), bool))


def _small(made: Cases) -> tuple[NDArray[np.uint8], list[str], list[Mapping[str, Any]]]:
    """The cases of a folder as the judges see them, ``uint8 [n, 1, SIDE, SIDE]``, their names, and what is known of each."""
    found = [(case.image, case.row) for case in sized(made, SIDE, 1).read()]
    if not found:
        raise InputError("--synthetic holds no image that can be used: give a folder of pictures or DICOM, an .npz, or a release")
    return np.stack([image for image, _ in found]), [row["id"] for _, row in found], [row for _, row in found]


def _own(made: Cases, ids: Sequence[str], rows: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
    """Cases of a folder at their own size, by their places among ``ids``, in that order."""
    wanted = {ids[row] for row in rows}
    return (case.image for case in made.read() if case.row["id"] in wanted)


def _answers(victim: Victim, images: Iterable[NDArray[Any]], classes: int) -> Floats:
    """The model's probabilities ``[n, classes]``, a batch at a time."""
    parts: list[Floats] = []
    held: list[NDArray[Any]] = []

    def ask() -> None:
        if held:
            try:
                parts.append(victim.child.ask(held, [seed_of(image) for image in held], [None], victim.contract)[0][0])
            except ModelFailed as failed:
                raise InputError(f"{failed} (on synthetic cases)") from None
            held.clear()

    for image in images:
        held.append(image)
        if len(held) == BATCH:
            ask()
    ask()
    return np.concatenate(parts) if parts else np.zeros((0, classes))


def _control(victim: Victim, sized: NDArray[np.uint8], test: Labelled, names: Sequence[str]) -> dict[str, Any]:
    """The model's sensitivity on the real cases at the size of the run's images, which may be smaller than theirs, by class."""
    named = _answers(victim, sized, len(names)).argmax(axis=1)
    return {name: share_interval(recall_estimate(named, test.labels, test.groups, k)) for k, name in enumerate(names)}


def _table(kind: Kind, judged: Judgement, kept: NDArray[np.bool_], p: Floats, names: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    table = pd.DataFrame(
        {
            "kind": kind.name,
            "label": [names[label] for label in kind.labels],
            "label_fidelity": judged.fidelity,
            "distance": judged.distance,
            "kept": kept,
            "named": "",
        }
    )
    table.loc[kept, "named"] = [names[k] for k in p.argmax(axis=1)]
    return table
