"""A made-up ``stress.json`` of somebody's model, with every part that its page can show."""

from __future__ import annotations

from typing import Any

from release_run import change, measure

SHIFTS = {"blur": 0.01, "motion_blur": 0.06, "quantum_noise": 0.02, "brightness": 0.004}
CLASSES = ("normal", "tension pneumothorax")
MODEL = {
    **{"name": "chest_radiograph_classifier.onnx", "size": [224, 224], "channels": 1, "layout": "NCHW", "dtype": "float32"},
    **{"range": [0.0, 1.0], "mean": [0.5], "std": [0.25], "fit": "stretch", "output": "probabilities", "exclusive": True},
    "files": {"chest_radiograph_classifier.onnx": "0123456789abcdef" * 4, "chest_radiograph_classifier.yaml": "fedcba9876543210" * 4},
    **{"classes": list(CLASSES), "guessed": ["size [224, 224], from the images", "range 0 to 1, by default"]},
}


def stress_result() -> dict[str, Any]:
    """The content of the file."""
    conditions = [(name, severity, slope) for name, slope in SHIFTS.items() for severity in range(1, 6)]
    drops = {
        name: [{"severity": s, "auc": measure(0.94 - slope * s), "auc_drop": change(slope * s, 0.03, slope * s > 0.1)} for s in range(1, 6)]
        for name, slope in SHIFTS.items()
    }
    return {
        **{"model": MODEL, "against": MODEL | {"name": "an_older_model.onnx"}, "classes": list(CLASSES), "modality": "DX"},
        "date": "2026-11-26",
        **{"unit": "patient", "n": 420, "patients": 210, "counts": dict.fromkeys(CLASSES, 210), "left_out": {"no label": 3}},
        "shifts": {name: {"strengths": [0.01, 0.02, 0.03, 0.04, 0.05], "meaning": "share of the width"} for name in SHIFTS},
        "fit": {"answer": "yes", "why": "AUC 0.940 (0.920 to 0.960) on clean images"},
        "answers": [
            {"rule": f"sensitivity(tension pneumothorax) >= 0.85 at {name} 2", "answer": answer, "why": "0.840 (0.800 to 0.880)"}
            for name, answer in zip(SHIFTS, ("yes", "no", "not enough data"))
        ],
        "clean": {
            **{"auc": measure(0.94), "balanced_accuracy": measure(0.85), "calibration_error": 0.061},
            "per_class_recall": dict.fromkeys(CLASSES, measure(0.85)),
        },
        "reference": {"auc": measure(0.94)},
        "corruptions": drops,
        "mean_drop": {"auc": measure(0.05)},
        "worst": [{"corruption": "motion_blur", "severity": 5, "auc_drop": change(0.3, 0.03, True)}],
        "sensitivities": {
            CLASSES[0]: {"few": 11},
            CLASSES[1]: [
                {"shift": n, "severity": s, "sensitivity": measure(0.8), "drop": change(k * s, 0.03, True)} for n, s, k in conditions
            ],
        },
        "harm": {
            **{"abstained": 0.2, "threshold": 0.912},
            "clean": {"silent": measure(0.04), "kept": measure(0.8), "accuracy": measure(0.93)},
            "conditions": [
                {"shift": n, "severity": s, "more": measure(k * s), "kept": measure(0.7), "accuracy": measure(0.8), "stands": k > 0.05}
                for n, s, k in conditions
            ],
        },
        "calibration": [
            {"shift": n, "severity": s, "more": change(k * s, 0.03, True), "calibration_error": 0.08} for n, s, k in conditions
        ],
        "compared": [
            {"shift": n, "severity": s, "auc": measure(0.9), "against": measure(0.88), "gain": change(0.02)} for n, s, _ in conditions
        ],
        "version": 2,
        "marker": [
            {"class": name, "severity": s, "change": change(0.03 * s, 0.02, s > 2), "patch": measure(0.01)}
            for name in CLASSES
            for s in range(1, 6)
        ],
        "synthetic": {
            **{"note": "A synthetic case shows where to look, and proves nothing.", "left_out": {"blank": 2}},
            "real_at_that_size": dict.fromkeys(CLASSES, measure(0.83)),
            "sets": [
                made("every class alike"),
                *(made(f"normal to tension pneumothorax, {weight:g}", weight=weight) for weight in (0.25, 0.75)),
                made("normal given tension pneumothorax", changed=measure(0.9), same_patient=measure(0.95), among=210, few=False),
                made("tension pneumothorax given normal", changed=measure(0.8), same_patient=measure(0.9), among=150, few=True),
            ],
        },
        "subgroups": {"acquisition": {"portable bedside unit": {"auc": measure(0.9)}, "upright": {"auc": measure(0.95)}}},
        "gaps": [
            {"column": "acquisition", "value": "portable bedside unit", "class": CLASSES[1]}
            | {"sensitivity": measure(0.7), "gap": change(0.12, 0.05, True)}
        ],
        "prevalence": {name: [{"factor": f, "prevalence": 0.05 * f, "ppv": measure(0.3, 0.1)} for f in (0.1, 1, 2.0)] for name in CLASSES},
        "time": {"seconds": 12.3, "model": 4.5, "images": 8820},
    }


def made(name: str, **facts: Any) -> dict[str, Any]:
    """What the model did on synthetic cases of one kind."""
    classes = {one: {"images": 64, "kept": 40, "sensitivity": measure(0.7)} for one in CLASSES}
    low = {"kept": 9, "right": measure(0.5, 0.2)}
    return {"name": name, "images": 128, "kept": 80, "right": measure(0.7), "distance": 0.6, "low_density": low, "classes": classes} | facts
