"""The data flow on one screen: each stage, its version, what it reads, and what it writes.

    source ──> ingest ──> train ──> generate ──┬──> shadows ──> audit ───┬──> review
                 │                             ├──> evaluate ──> stress ─┼──> release
                 └─────────────────────────────┴─────────────────────────┘

``shadows`` is there where trainings are asked for. A foreign set has no ``train``: ``generate`` imports it instead (:func:`flow`). A stage
is a function of a :class:`~pipeline.context.Context` that reads the folders of the stages it needs, writes into its own, and returns a flat
summary without patient data. :mod:`pipeline.runner` decides what has to run, and publishes what ran.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline import artifacts
from pipeline.config import Config
from pipeline.given import Given

UNIDENTIFIED = {
    *("path", "holdout", "label_table", "import_from", "start_from", "autoguidance", "text_encoder", "imagenet", "checkpoint_images"),
    *("sign", "model", "against", "contract", "against_contract", "rules", "memory", "seconds"),
}
"""Settings that stay out of a stage's identity: paths, whose content counts, and what changes no result."""


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline.

    Attributes:
        name: its folder's name, and the configuration section that it reads.
        version: raised when the same inputs would give another output; older records are then redone.
        needs: the stages whose folders it reads.
        function: ``module:function`` (imported when it runs, so that nothing else pays for its imports).
        resumable: whether an interrupted attempt goes on where it was, instead of starting over.
        private: whether its folder holds patient data, or what counts as such until a verdict passes.
        writes: what a reader finds in its folder.
    """

    name: str
    version: int
    needs: tuple[str, ...]
    function: str
    resumable: bool
    private: bool
    writes: str


STAGES = (
    Stage("ingest", 17, (), "pipeline.ingest.stage:run", True, True, "images, rows, quarantine.csv and .parquet, deidentification.json"),
    Stage("train", 17, ("ingest",), "pipeline.train:run", True, True, "model.safetensors, model.json, mixture.safetensors, metrics.jsonl"),
    Stage("generate", 4, ("train",), "pipeline.generate:run", True, True, "images, rows"),
    Stage(
        "shadows",
        2,
        ("ingest", "train", "generate"),
        "pipeline.shadows:run",
        True,
        True,
        "shadows.json, scores.parquet, exposed.png (local eyes only)",
    ),
    Stage(
        "audit",
        8,
        ("ingest", "train", "generate", "shadows"),
        "pipeline.audit:run",
        False,
        True,
        "audit.json, pairs.png and pairs.json (local eyes only)",
    ),
    Stage("evaluate", 7, ("ingest", "generate"), "pipeline.evaluate:run", False, True, "evaluation.json, judges.safetensors"),
    Stage(
        "stress",
        7,
        ("ingest", "generate", "evaluate"),
        "pipeline.stress:run",
        False,
        True,
        "stress.json, failures.json (local eyes only), model/",
    ),
    Stage(
        "review",
        4,
        ("ingest", "generate", "shadows", "audit", "stress"),
        "pipeline.review:run",
        False,
        True,
        "review.html (local eyes only): what a person looks at before images leave",
    ),
    Stage(
        "release",
        12,
        ("ingest", "train", "generate", "shadows", "audit", "evaluate", "stress"),
        "pipeline.release.stage:run",
        False,
        False,
        "gate.json, report.html; when the gate passes: images, cards, SHA256SUMS",
    ),
)
BY_NAME = {stage.name: stage for stage in STAGES}


def flow(config: Config) -> tuple[Stage, ...]:
    """The stages of a configuration. Who needs one that is left out needs what that one needs.

    ``shadows`` is there where trainings are asked for. A foreign set has no ``train``, and ``evaluate`` and ``stress`` only where it leaves
    them labels and patients of their own.
    """
    absent = ({"train"} if config.foreign else set()) | (set() if config.judged_by_classifiers else {"evaluate", "stress"})
    absent |= set() if config.shadows.trainings else {"shadows"}
    found: list[Stage] = []
    for stage in STAGES:
        if stage.name in absent:
            continue
        function = "pipeline.imported:run" if config.foreign and stage.name == "generate" else stage.function
        if stage.name == "evaluate" and config.ingest.multi_label:
            function = "pipeline.evaluate_findings:run"
        found.append(dataclasses.replace(stage, needs=tuple(dict.fromkeys(_needs(stage, absent))), function=function))
    return tuple(found)


def _needs(stage: Stage, absent: set[str]) -> Iterator[str]:
    for name in stage.needs:
        yield from _needs(BY_NAME[name], absent) if name in absent else (name,)


def identity(stage: Stage, config: Config, given: Given, records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The identity of a stage's output, in which files are named by content: ``given`` as :func:`pipeline.given.digests` has them.

    What leaves names all that it was made from by one digest: those of single inputs are the same in every release of a cohort.
    """
    section = getattr(config, stage.name).model_dump(mode="json", exclude=UNIDENTIFIED)
    inputs = {name: records[name]["digest"] for name in stage.needs} | dict(given.get(stage.name, {}))
    if not stage.private:
        inputs = {"all": artifacts.fingerprint(inputs)}
    return {"stage": stage.name, "version": stage.version, "seed": config.seed, "config": section, "inputs": inputs}
