"""A finished run with made-up results, for the tests of what comes after the measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from evaluation.intervals import clopper_pearson
from pipeline import artifacts, folders
from pipeline.config import Config
from pipeline.context import Context
from pipeline.images import ImageSet, finding_columns
from pipeline.progress import Reporter
from pipeline.release import stage
from pipeline.stages import Stage, flow, identity
from privacy import gate

CLASSES = ("normal", "cardiomegaly", "effusion", "nodule", "pneumothorax")


def measure(value: float, half: float = 0.02, n: int = 400) -> dict[str, Any]:
    return {"value": value, "low": round(value - half, 4), "high": round(value + half, 4), "n": n}


def change(value: float, half: float = 0.02, stands: bool = False) -> dict[str, Any]:
    return measure(value, half) | {"p": 0.01 if stands else 0.6, "stands": stands}


def config(sign: Path | None = None, several: bool = False) -> Config:
    return Config.model_validate(
        {
            "name": "quickstart",
            "ingest": {"source": "phantom", "size": 32, "several_findings": several},
            "train": {"images": 60_000},
            "generate": {"per_class": IMAGES_PER_CLASS},
            "release": {"title": "Chest phantom <demo> cohort", "licence": "CC0-1.0", "contact": "data steward", "sign": sign},
        }
    )


IMAGES_PER_CLASS = 2
COMMON, RARE = "small left effusion", "large round nodule"
"""Reports of many patients and of one."""
LENIENT = 0.5
"""A bound on the copy rate that ten images can meet, so that the tests' releases are small."""


def audit(verdict: str, images: int = IMAGES_PER_CLASS * len(CLASSES)) -> dict[str, Any]:
    """A made-up ``audit.json`` whose numbers follow from its counts, and lead to the wished verdict on so many images."""
    flagged, held = (3 if verdict == "fail" else 0), (146 if verdict == "inconclusive" else 550)
    recalls = {"identity": 0.99, "flip": 0.98, "shift": 0.99, "intensity": 1.0, "blur": 0.97}
    further = {"rot90": 0.95, "crop": 0.9, "noise_strong": 0.93, "jpeg_15": 0.71}
    power = [
        {"kind": name, "strength": None, "planted": 100, "found": round(100 * value), "recall": measure(value, 0.04, 100)}
        for name, value in (recalls | further).items()
    ]
    return {
        "unit": "patient",
        "drawn": "by this program",
        "pixels": 32,
        "n": {"train": 1100, "audit": held, "synthetic": images, "holdout_units": held},
        "power": power,
        "membership": {
            "auc": measure(0.531, n=1650),
            "tpr_at_1pct_fpr": measure(0.014, 0.008),
            "control_auc": measure(0.502),
            "by_sigma": {"0.5": measure(0.52)},
        },
        "split_bias": measure(0.502),
        "one_run": {name: {"pairs": 500, "guesses": 100, "correct": 52, "epsilon_low": 0.0} for name in ("images", "weights")},
        "prompts": {"pairs": 150, **{name: measure(0.7, 0.05) for name in ("train", "audit")}, "difference": measure(0.01), "p": 0.4},
        "attributes": {"sex": {"values": 2, **{name: measure(0.6) for name in ("train", "audit")}, "difference": measure(0.01)}},
        "copies": {
            "flagged": flagged,
            "undecided": 0,
            "twins": 0,
            "rate": clopper_pearson(flagged, images).to_dict(),
            "repeats": 0,
            "explained": 0,
            "constants": 0,
            "threshold": 0.03,
            "leading_run": 3,
            "run_p": 0.296,
        },
        "attempt": 1,
        "earlier_recall": None,
    }


AUDIT = audit("pass")
EVALUATION = {
    "classes": list(CLASSES),
    "unit": "patient",
    "fidelity": {
        "features": "small residual network trained on val",
        "n": 550,
        "repeats": 5,
        "frechet": {"synthetic": measure(2.31, 0.2), "floor": measure(1.12, 0.1), "ratio": measure(2.06, 0.25)},
        "kid": {"synthetic": measure(0.031, 0.004), "floor": measure(0.0004, 0.001)},
        "two_sample": {"synthetic": measure(0.66, 0.03), "floor": measure(0.51, 0.03), "difference": measure(0.15, 0.03)},
        "prdc": {name: {"synthetic": measure(0.8), "floor": measure(0.86)} for name in ("precision", "recall", "density", "coverage")},
        "per_class": {
            name: {
                "n": 60,
                "frechet": {"synthetic": measure(3.0 + i, 0.4), "floor": measure(1.7), "ratio": measure(1.8)},
                "kid": {"synthetic": measure(0.041, 0.004), "floor": measure(0.001, 0.001)},
                "prdc": {
                    key: {"synthetic": measure(0.8), "floor": measure(0.86)} for key in ("precision", "recall", "density", "coverage")
                },
                "two_sample": {"synthetic": measure(0.68, 0.05), "floor": measure(0.5, 0.05)},
            }
            for i, name in enumerate(CLASSES[:4])
        }
        | {"pneumothorax": {"omitted": "22 images a side, fewer than 50"}},
    },
    "label_fidelity": {
        "per_class": {name: measure(value, 0.05, 400) for name, value in zip(CLASSES, (0.93, 0.9, 0.88, 0.55, 0.79), strict=True)},
        "macro": measure(0.81),
    },
    "utility": {
        "seeds": 3,
        "n_test": 420,
        "arms": {
            arm: {
                "auc": measure(base),
                "accuracy": measure(base - 0.1),
                "balanced_accuracy": measure(base - 0.15),
                "brier": measure(0.151 - base / 10, 0.01),
                "calibration_error": {"value": 0.062, "spread": [0.055, 0.071], "repeats": 3, "n": 420},
                "per_class": {
                    name: {key: measure(base - 0.01 * i, 0.03) for key in ("auc", "recall", "sensitivity", "specificity")}
                    for i, name in enumerate(CLASSES)
                },
            }
            for arm, base in {"real": 0.941, "synthetic": 0.912, "real+synthetic": 0.9523}.items()
        },
        "control": "real",
        "specificity": 0.9,
        "synthetic": 2000,
        "differences": {
            arm: {
                "auc": change(gain, 0.018, gain < 0),
                "brier": change(-gain / 3, 0.01),
                "per_class": {
                    name: {"auc": change(gain, 0.03), "sensitivity": change(gain + 0.06 * i, 0.09, i == 3)}
                    for i, name in enumerate(CLASSES[:4])
                }
                | {CLASSES[4]: {key: {"value": None, "low": None, "high": None, "n": 0, "p": None} for key in ("auc", "sensitivity")}},
            }
            for arm, gain in {"synthetic": -0.03, "real+synthetic": 0.0113}.items()
        },
        "subgroups": {
            "sex": {
                "F": {"nodule": {"real+synthetic": {"auc": change(0.0213), "sensitivity": change(0.0821, 0.07, True)}}},
                "M": {"nodule": {"few": 11}},
            }
        },
    },
}
STRESS = {
    "classifier": "resnet18",
    "n": 420,
    "clean": {"auc": measure(0.941), "balanced_accuracy": measure(0.8), "per_class_recall": {name: measure(0.8) for name in CLASSES}},
    "corruptions": {
        name: [
            {
                "severity": s,
                "auc": measure(0.94 - slope * s),
                "balanced_accuracy": measure(0.8 - slope * s),
                "auc_drop": change(slope * s, 0.04, slope * s > 0.1),
            }
            for s in range(1, 6)
        ]
        for name, slope in {"gaussian_noise": 0.05, "motion_blur": 0.02, "gamma": 0.01, "jpeg": 0.004, "bias_field": 0.075}.items()
    },
    "corruption_reference": {"auc": measure(0.94), "balanced_accuracy": measure(0.8)},
    "corruption_images": 400,
    "mean_drop": {"auc": measure(0.0953), "balanced_accuracy": measure(0.1)},
    "shown": 6,
    "worst": [{"corruption": "bias_field", "severity": 5, "auc_drop": change(0.375, 0.04, True)}],
    "subgroups": {"site": {"A": {"n": 200, "auc": measure(0.95)}, "B": {"n": 220, "auc": measure(0.91)}}},
    "prevalence": {
        name: [
            {"factor": f, "prevalence": 0.04 * f, "sensitivity": measure(0.8), "specificity": measure(0.9), "ppv": measure(0.3, 0.1)}
            for f in (0.1, 0.5, 2.0)
        ]
        for name in CLASSES
    },
}


def decide(verdict: str) -> dict[str, Any]:
    """What the gate says of 2 000 images, with the verdict as wished."""
    checks = gate.checks(audit(verdict, 2000))
    return {**gate.decide(checks), "checks": checks}


def synthetic_images(
    channels: int = 1, per_class: int = IMAGES_PER_CLASS, side: int = 32, seed: int = 0, several: bool = False
) -> ImageSet:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(CLASSES)), per_class)
    noise = rng.normal(0, 12, (len(labels), channels, side, side))
    grid = np.hypot(*np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side)))
    images = np.clip(200 - 140 * grid + 10 * labels[:, None, None, None] + noise, 0, 255).astype(np.uint8)
    rows = pd.DataFrame({"id": [f"synthetic-{seed:06d}" for seed in range(len(labels))], **finding_columns(labels, CLASSES)})
    if several:
        rows[list(finding_columns(labels, CLASSES))] = rng.integers(-1, 2, (len(labels), len(CLASSES)), dtype=np.int8)
        side_of, severity = np.resize(["left", "", "right"], len(rows)), np.resize(np.float32([0.8, np.nan]), len(rows))
        texts = np.resize([COMMON, RARE, "no such report"], len(rows))
        rows = rows.assign(attribute_side=side_of, attribute_severity=severity, attribute_text=texts, unseen=np.arange(len(rows)) == 3)
    return ImageSet(images, rows.assign(seed=np.arange(len(labels)), guidance=1.0))


def make_context(
    run: Path, channels: int = 1, verdict: str = "pass", sign: Path | None = None, seed: int = 0, several: bool = False
) -> Context:
    """A run folder with every stage finished but the release, and the release's context; images by ``seed`` of one cohort and model."""
    settings = config(sign, several)
    images = synthetic_images(channels, seed=seed, several=several)
    content: dict[str, dict[str, Any]] = {
        "ingest": {
            "cohort.json": {
                "classes": list(CLASSES),
                "unit": "patient",
                "source": {"kind": "phantom", "licence": "CC0-1.0", "title": "Chest phantom"},
                "modality": ["CR", "DX"],
                "counts": {name: dict.fromkeys(CLASSES, 220) for name in ("train", "audit", "val", "test")},
                "units": {"train": 480, "audit": 240, "val": 110, "test": 140},
            },
            "deidentification.json": {
                "actions": ["Kept 9 attributes by name; removed all others.", "Replaced patient ids by keyed pseudonyms."]
            },
        },
        "train": {"model.json": {"parameters": 2_400_000, "images": 60_000}},
        "generate": {},
        "audit": {"audit.json": audit(verdict), "pairs.json": {"pairs": []}},
        "evaluate": {"evaluation.json": EVALUATION},
        "stress": {"stress.json": STRESS, "failures.json": {"failures": []}},
        "review": {},
    }
    records: dict[str, dict[str, Any]] = {}
    for name, files in content.items():
        if name not in planned(settings):
            continue
        folder = run / name
        wanted = identity(planned(settings)[name], settings, {"ingest": {"source": "source-digest"}}, records)
        folders.open_stage(folder, wanted, resumable=False, private=True)
        for file, value in files.items():
            artifacts.write_json(folder / file, value)
        if name == "train":
            (folder / "model.safetensors").write_bytes(b"weights")
        if name in ("ingest", "generate"):
            images.save(folder) if name == "generate" else ingested(channels).save(folder)
        facts = {"summary": {"images": len(images)}, "seconds": 12.3, "finished": "2026-01-02T03:04:05+0000", "contains_patient_data": True}
        records[name] = artifacts.publish(folder, wanted, **facts)
    out = run / "release"
    folders.open_stage(out, identity(planned(settings)["release"], settings, {}, records), resumable=False, private=False)
    reporter = Reporter(run / "log.jsonl", Console(quiet=True))
    needed = {name: records[name] for name in planned(settings)["release"].needs}
    return Context(settings, run, out, reporter, needed)


def planned(settings: Config) -> dict[str, Stage]:
    """The stages of a configuration, by name."""
    return {stage.name: stage for stage in flow(settings)}


def ingested(channels: int = 1) -> ImageSet:
    """Real images whose ids and pseudonyms must not occur in a release."""
    images = synthetic_images(channels)
    rows = images.rows.assign(
        id=[f"realimage{i:04d}" for i in range(len(images))], patient=[f"pseudonym{i:04d}" for i in range(len(images))]
    )
    reports = np.where(np.arange(len(images)) < len(images) - 1, COMMON, RARE)
    return ImageSet(255 - images.images, rows.assign(split="train", attribute_text=reports))


def released(run: Path, verdict: str = "pass", channels: int = 1, sign: Path | None = None) -> Context:
    """A run folder with a finished release of the wished verdict; the gate's bound on the copy rate must be LENIENT."""
    return finished(make_context(run, channels, verdict, sign))


def finished(ctx: Context, when: str = "2026-01-02T03:04:05+0000") -> Context:
    """The context after its release was made and recorded."""
    summary = stage.run(ctx)
    wanted = identity(planned(ctx.config)["release"], ctx.config, {}, ctx.records)
    artifacts.publish(ctx.out, wanted, summary=summary, seconds=1.0, finished=when, contains_patient_data=False)
    return ctx
