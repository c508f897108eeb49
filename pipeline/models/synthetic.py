"""Synthetic cases beside the real ones: read or made, judged, and asked; see :mod:`evaluation.hypotheses`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluation.data import Labelled, to_unit
from evaluation.hypotheses import Judgement, Judges, hypotheses, judgement, learned, told
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

SEEDS = 2
CEILING = 60_000
BATCH = 32
GIVEN = "as given"
NOTHING = "--synthetic holds no image that can be used: give a folder of pictures or DICOM, an .npz, or a release"


@dataclass(frozen=True)
class Synthetic:
    """What was found: ``result`` for ``stress.json``; ``cases``, one row each; ``pairs``, real images above what was made of them."""

    result: dict[str, Any]
    cases: pd.DataFrame
    pairs: list[tuple[str, NDArray[np.uint8]]]


def asked(victim: Victim, real: Cases, test: Labelled, source: Path | Cases, reporter: Reporter) -> Synthetic:
    """What the model misses among the synthetic cases of a folder, or of a run's model, of which only those count whose label is sure.

    Args:
        source: of :func:`opened`.

    Raises:
        InputError: they cannot be read or made.
    """
    runtime.limit_threads()
    names = victim.contract.classes
    if isinstance(source, Path):
        run = OfRun(source, real, test, names)
        for note in run.notes:
            reporter.note(note)
        judges = _judges(run.small, test, names, reporter)
        kinds, left_out, pairs, control = run.kinds(judges, reporter), {}, run.pairs, _control(victim, run.sized, test, names)
    else:
        judges = _judges(resized(real, test, SIDE, 1), test, names, reporter)
        kinds, left_out, pairs, control = [_kind(source, names)], dict(source.left_out), [], {}
    sets, tables = {}, []
    for kind in kinds:
        judged = judgement(judges, to_unit(kind.small), kind.labels, names)
        kept = judged.sure & kind.fit
        p = answers(victim, kind.own(np.flatnonzero(kept)), len(names))
        sets[kind.name] = hypotheses(judges, judged, kept, p, kind.labels, names) | kind.facts
        tables.append(_table(kind, judged, kept, p, names))
    import pandas as pd

    result = told(judges, sets) | {"left_out": left_out} | ({"real_at_that_size": control} if control else {})
    return Synthetic(result, pd.concat(tables, ignore_index=True), pairs)


def _judges(pixels: NDArray[np.uint8], test: Labelled, names: tuple[str, ...], reporter: Reporter) -> Judges:
    with reporter.progress("judges of synthetic cases", CEILING) as progress:
        return learned(
            Labelled(pixels, test.findings, test.groups),
            names,
            seeds=SEEDS,
            ceiling=CEILING,
            rng=np.random.default_rng(runtime.derive_seed(0, "judges")),
            device=runtime.device(),
            progress=progress,
        )


def opened(synthetic: Path, real: Cases, key: bytes, out: Path, names: Sequence[str]) -> Path | Cases:
    """The cases of a folder, an archive or a release; or the folder of a run, whose model is to make them.

    Raises:
        InputError: they cannot be read, or are of other classes than the model's, or not as the real ones are.
    """
    if is_run(synthetic):
        if real.several:
            raise InputError(
                "--synthetic is a run, and --data has several findings an image: give images of it, such as its release folder"
            )
        return synthetic
    made = sources.opened(synthetic, None, key, out / sources.UNPACKED / "synthetic", names, None, "--synthetic")
    if made.several != real.several:
        one, other = ("--data", "--synthetic") if real.several else ("--synthetic", "--data")
        raise InputError(
            f"{one} has several findings an image, and {other} one class: give both in one way, by a table with the same columns"
        )
    if strange := [name for name in made.classes if name not in names]:
        raise InputError(
            f"--synthetic has classes that the model does not name ({', '.join(strange)}): sort its images into {', '.join(names)}"
        )
    return made


def _kind(made: Cases, names: Sequence[str]) -> Kind:
    """The cases of a folder, which are read anew when they are asked."""
    found = [(case.image, case.row["id"], case.row["findings"].index(1)) for case in sized(made, SIDE, 1).read()]
    if not found:
        raise InputError(NOTHING)
    images, ids, classes = zip(*found)

    def own(rows: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
        wanted = {ids[row] for row in rows}
        return (case.image for case in made.read() if case.row["id"] in wanted)

    labels = np.array([names.index(made.classes[k]) for k in classes])
    return Kind(GIVEN, labels, np.stack(images), own, np.ones(len(ids), bool))


def answers(victim: Victim, images: Iterable[NDArray[Any]], classes: int) -> Floats:
    """The model's probabilities ``[n, classes]`` of images as they are, a batch at a time. Raises InputError where it gives none."""
    parts: list[Floats] = []
    held: list[NDArray[Any]] = []

    def ask() -> None:
        if held:
            try:
                parts.append(victim.child.ask(held, [seed_of(image) for image in held], [None], victim.contract, {})[0][0])
            except ModelFailed as failed:
                raise InputError(f"{victim.name}: {failed} (on synthetic cases)") from None
            held.clear()

    for image in images:
        held.append(image)
        if len(held) == BATCH:
            ask()
    ask()
    return np.concatenate(parts) if parts else np.zeros((0, classes))


def _control(victim: Victim, sized: NDArray[np.uint8], test: Labelled, names: Sequence[str]) -> dict[str, Any]:
    """The model's sensitivity on the real cases at the size of the run's images, which may be smaller than theirs, by class."""
    named = answers(victim, sized, len(names)).argmax(axis=1)
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
