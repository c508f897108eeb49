"""Counterfactuals of a run's model: does the finding change, and does the patient stay?

The sources are real images that the generator never saw. As in a stress test, judges that learned from real cases (here the split
``audit``) choose the least change at which they all see the wanted finding. What is reported is said by others: *changed* by an independent
judge, trained to its plateau on ``train`` with ``val``, of which it is also said how often it names real images of the class; *same
patient* by the correlation of pixels with one image of every patient of ``audit`` and ``test``, the source among them, and *another
image*, the same with the patient's other images alone in the source's place. ::

    python -m tests.benchmarks.counterfactuals --run runs/phantom --each 40 --out counterfactuals.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.counterfactuals import least_change, own_patient_first
from evaluation.data import Labelled, to_unit
from evaluation.hypotheses import Judges, judgement, learned
from evaluation.intervals import share_interval, to_json
from evaluation.metrics import recall_estimate, share_estimate
from evaluation.training import Task, train, unfinished
from pipeline.evaluate import labelled
from pipeline.images import ImageSet
from pipeline.models.kinds import as_judges_see
from pipeline.models.of_run import TRIES
from pipeline.models.own_generator import OwnGenerator


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print a table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="a finished run of one class an image, with ingest, train and generate")
    parser.add_argument("--each", type=int, default=40, help="patients for each two classes")
    parser.add_argument("--ceiling", type=int, default=400_000, help="images in training a judge, at the most")
    parser.add_argument("--kind", choices=("small", "resnet18"), default="small", help="of the independent judge")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    real = ImageSet.load(options.run / "ingest")
    parts = {name: labelled(real.split(name)) for name in ("train", "val", "audit", "test")}
    maker, names = OwnGenerator(options.run, device, batch=256), real.classes
    choosing = learned(_small(parts["audit"]), names, seeds=2, ceiling=options.ceiling, rng=np.random.default_rng(0), device=device)
    task = Task(parts["train"].unit, parts["train"].labels, len(names), 11, parts["val"])
    [own] = trained = train([task], kind=options.kind, ceiling=options.ceiling, device=device)
    named = own.classifier.predict(parts["test"].unit).argmax(axis=1)
    judge = {
        "unfinished": unfinished(trained),
        "recall": {
            name: share_interval(recall_estimate(named, parts["test"].labels, parts["test"].groups, k)) for k, name in enumerate(names)
        },
    }
    common = int(np.bincount(parts["test"].labels).argmax())
    ways = [way for k in range(len(names)) if k != common for way in ((common, k), (k, common))]
    made = [changed(maker, choosing, parts["test"], way, names, options.each) for way in ways]
    rows = [row_of(one, own.classifier.predict(to_unit(one["images"])), parts, names) for one in made]
    result = to_json({"options": {key: str(value) for key, value in vars(options).items() if key != "out"}, "judge": judge, "rows": rows})
    result["all"] = to_json(row_of({key: np.concatenate([one[key] for one in made]) for key in made[0]}, None, parts, names, rows))
    print(
        f"independent judge: {judge['unfinished'] or 'at its plateau'};",
        *(f"{k} {_shown(v)}" for k, v in result["judge"]["recall"].items()),
    )
    for row in [*result["rows"], result["all"]]:
        print(
            f"{row['way']:32} n {row['n']:<4}",
            *(f"{key} {_shown(row[key])}" for key in ("chosen", "changed", "same_patient", "another_image")),
        )
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    return result


def changed(maker: OwnGenerator, judges: Judges, test: Labelled, way: tuple[int, int], names: Sequence[str], each: int) -> dict[str, Any]:
    """Counterfactuals of an image each of some patients: ``images``, ``rows`` of the sources, ``wanted``, ``first`` (-1: none will do)."""
    one, other = way
    rows = np.flatnonzero(test.labels == one)
    rows = rows[np.unique(test.groups[rows], return_index=True)[1]][:each]
    wanted = np.full(len(rows), other)
    images, first = least_change(
        TRIES,
        lambda left, each: maker.counterfactuals(test.unit[rows[left]], one, other, *each),
        lambda left, made: judgement(judges, to_unit(as_judges_see(made)), wanted[left], tuple(names)).sure,
        len(rows),
    )
    return {
        "images": images,
        "rows": rows,
        "wanted": wanted,
        "first": first,
        "own": np.full(len(rows), one),
    }


def row_of(
    made: dict[str, Any], p: NDArray[np.float64] | None, parts: dict[str, Labelled], names: Sequence[str], before: Sequence[Any] = ()
) -> dict[str, Any]:
    """One line of the table; ``p`` is what the independent judge says, or None for all lines together, which are ``before``."""
    test, audit = parts["test"], parts["audit"]
    rows, kept = made["rows"], made["first"] >= 0
    groups = test.groups[rows]
    hits = np.concatenate([row["hits"] for row in before]) if p is None else p.argmax(axis=1) == made["wanted"]
    others = np.concatenate([audit.unit, test.unit]), np.concatenate([audit.groups, test.groups])
    firsts = np.unique(others[1], return_index=True)[1]
    same = _first(made["images"], groups, *(part[firsts] for part in others), test.unit[rows])
    alone = np.concatenate([np.arange(len(audit)), len(audit) + np.setdiff1d(np.arange(len(test)), rows)])
    several = np.isin(groups, others[1][alone])
    again = own_patient_first(to_unit(made["images"][several]), groups[several], others[0][alone], others[1][alone])

    def share(hit: NDArray[np.bool_], of: NDArray[np.bool_], whose: NDArray[Any] = groups) -> Any:
        return share_interval(share_estimate(hit[of], whose[of]))

    return {
        "way": "all" if p is None else f"{names[made['own'][0]]} given {names[made['wanted'][0]]}",
        "n": len(rows),
        "chosen": share(kept, np.ones(len(rows), bool)),
        "changed": share(hits, kept),
        "same_patient": share(same, kept),
        "another_image": share(again, kept[several], groups[several]),
        "patients": len(firsts),
        "tries": [int((made["first"] == k).sum()) for k in range(len(TRIES))],
        "moved": float(np.abs(to_unit(made["images"]) - test.unit[rows]).mean()),
        "hits": [bool(hit) for hit in hits],
    }


def _first(
    made: NDArray[np.uint8], groups: NDArray[Any], gallery: NDArray[np.float32], of: NDArray[Any], sources: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Whether the source comes before every other patient's image."""
    others = ~np.isin(of, groups)
    return own_patient_first(to_unit(made), groups, np.concatenate([gallery[others], sources]), np.concatenate([of[others], groups]))


def _small(part: Labelled) -> Labelled:
    return Labelled(as_judges_see(part.images), part.findings, part.groups)


def _shown(share: dict[str, Any]) -> str:
    return "–" if share["value"] is None else f"{share['value']:.2f} [{share['low']:.2f}, {share['high']:.2f}]"


if __name__ == "__main__":
    main()
