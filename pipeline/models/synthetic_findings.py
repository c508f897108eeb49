"""Synthetic cases beside the real ones where an image can have several findings: read, judged, and asked finding by finding."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evaluation.data import Labelled, to_unit
from evaluation.hypotheses_findings import AT, hypotheses, judgement, learned, told
from pipeline import runtime
from pipeline.errors import InputError
from pipeline.models import synthetic
from pipeline.models.cases import Cases, labelled
from pipeline.models.child import Victim
from pipeline.models.kinds import SIDE, resized, sized

if TYPE_CHECKING:
    from pipeline.progress import Reporter


def asked(victim: Victim, real: Cases, test: Labelled, source: Path | Cases, reporter: Reporter) -> synthetic.Synthetic:
    """What the model misses among the findings of synthetic cases, as :func:`pipeline.models.synthetic.asked` of classes."""
    import pandas as pd

    runtime.limit_threads()
    names = victim.contract.classes
    assert isinstance(source, Cases)
    found = list(sized(source, SIDE, 1).read())
    if not found:
        raise InputError(synthetic.NOTHING)
    with reporter.progress("judges of synthetic cases", synthetic.CEILING) as progress:
        judges = learned(
            Labelled(resized(real, test, SIDE, 1), test.findings, test.groups),
            names,
            seeds=synthetic.SEEDS,
            ceiling=synthetic.CEILING,
            rng=np.random.default_rng(runtime.derive_seed(0, "judges")),
            device=runtime.device(),
            progress=progress,
        )
    marks = labelled([case.row for case in found], source.classes, names).findings
    judged = judgement(judges, to_unit(np.stack([case.image for case in found])), marks, names)
    some = np.flatnonzero(judged.sure.any(axis=1))
    kept = {found[row].row["id"] for row in some}
    p = np.full(marks.shape, np.nan)
    p[some] = synthetic.answers(victim, (case.image for case in source.read() if case.row["id"] in kept), len(names))
    case, finding = np.nonzero(marks >= 0)
    sure = judged.sure[case, finding]
    table = pd.DataFrame(
        {
            "kind": synthetic.GIVEN,
            "case": case,
            "finding": [names[k] for k in finding],
            "present": marks[case, finding] == 1,
            "label_fidelity": judged.fidelity[case, finding],
            "distance": judged.distance[case],
            "kept": sure,
            "called": np.where(sure, np.where(p[case, finding] >= AT, "present", "absent"), ""),
        }
    )
    result = told(judges, {synthetic.GIVEN: hypotheses(judges, judged, p, marks, names)}) | {"left_out": dict(source.left_out)}
    return synthetic.Synthetic(result, table, [])
