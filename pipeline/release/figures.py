"""The figures that a run is judged by, in one list: report, data card, ``show`` and the stages' summaries take them from here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.release.results import dig, interval, number, planted, planted_copies

ARMS = {
    "real": "real images",
    "real+augmentation": "real images with classical augmentation",
    "real+synthetic": "real and synthetic images",
    "real unweighted": "real images as often as they occur",
    "synthetic": "synthetic images alone",
    "real+synthetic x0.5": "real and half as many synthetic images",
    "real+synthetic x2": "real and twice as many synthetic images",
    "real+synthetic x4": "real and four times as many synthetic images",
    "real+synthetic rare": "real images, and synthetic ones of the rarest class",
    "synthetic then real": "synthetic images, then real ones",
}
"""What the classifiers of an arm of :mod:`evaluation.arms` are trained on."""
CHANGES = {
    "real+augmentation": "Classical augmentation",
    "real+synthetic": "Adding {n} synthetic images",
    "real unweighted": "Drawing real images as often as they occur",
    "synthetic": "Training on {n} synthetic images instead of the real ones",
    "real+synthetic x0.5": "Adding {n} synthetic images, one drawn for two real ones,",
    "real+synthetic x2": "Adding {n} synthetic images, two drawn for each real one,",
    "real+synthetic x4": "Adding {n} synthetic images, four drawn for each real one,",
    "real+synthetic rare": "Adding synthetic images of the rarest class only",
    "synthetic then real": "Training on {n} synthetic images before the real ones",
}
"""What an arm does that the control does not."""


@dataclass(frozen=True)
class Judged:
    """One figure.

    Attributes:
        key: its name in a stage's summary.
        name: its name for people.
        measure: the JSON of its value, as the stage wrote it.
    """

    key: str
    name: str
    measure: Any

    @property
    def text(self) -> str:
        """Value and interval, as they are shown everywhere."""
        return interval(self.measure)

    @property
    def value(self) -> str:
        """The value alone, to the same digits."""
        return self.text.partition(" (")[0]

    @property
    def n(self) -> str:
        """Rows that it rests on; empty where it is no measure."""
        return number(self.measure.get("n")) if isinstance(self.measure, Mapping) and "n" in self.measure else ""


def train_figures(model: Mapping[str, Any]) -> list[Judged]:
    """What training showed of itself."""
    return _measured(Judged("unseen_to_seen", "denoising loss on unseen images ÷ on training images", dig(model, "validation.ratio")))


def recipe_figures(recipe: Mapping[str, Any]) -> list[Judged]:
    """What a training's recipe settled in place of what its configuration left open, with its reason."""
    fitted = found if isinstance(found := recipe.get("fitted"), Mapping) else {}
    chosen = recipe.get("chosen") if "images" in fitted else None
    length = dig(chosen, "images") or fitted.get("images")
    ceiling = dig(recipe, "reasons.images")
    bound = ceiling if "probe" in recipe else f"at most: {ceiling}; less where the losses part"  # timed minutes are no bound
    why = dig(chosen, "why") if chosen else bound
    figures = [Judged("length", f"images in training ({why})", length)]
    for name, title in (("widths", "channels of the network"), ("dropout", "dropout"), ("augment", "augmentation")):
        value = fitted.get(name)
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        figures.append(Judged(name, f"{title} ({dig(recipe, f'reasons.{name}')})", shown))
    return _measured(*figures)


def audit_figures(audit: Mapping[str, Any]) -> list[Judged]:
    """What the audit found."""
    told = found if isinstance(found := audit.get("attributes"), Mapping) else {}
    required, others = (rows[:1] for rows in planted_copies(audit))
    return _measured(
        Judged("flagged", "images flagged as copies", dig(audit, "copies.flagged")),
        Judged("undecided", "images that may be copies or twins", dig(audit, "copies.undecided") or None),
        Judged("twins", "sealed images with a twin among the real ones", dig(audit, "copies.twins") or None),
        Judged("copy_rate", "share of images flagged", dig(audit, "copies.rate")),
        *(Judged("weakest_recall", f"worst recall of a required kind of copies ({planted(row)})", row["recall"]) for row in required),
        *(Judged("uncertified_recall", f"worst recall of copies not certified ({planted(row)})", row["recall"]) for row in others),
        Judged("membership_auc", "membership attack on the weights, AUC", dig(audit, "membership.auc")),
        Judged("membership_tpr", "members found at 1% false alarms", dig(audit, "membership.tpr_at_1pct_fpr")),
        Judged("membership_control", "its control without the weights, AUC", dig(audit, "membership.control_auc")),
        *(
            Judged(f"{subject}_shadows_{key}", f"shadow trainings against the {subject}, {name}", dig(audit, f"shadows.{subject}.{path}"))
            for subject in ("images", "weights")
            for key, name, path in (("auc", "AUC", "auc"), ("tpr", "members found at 1% false alarms", "tpr_at_1pct_fpr"))
        ),
        *(
            Judged(f"{subject}_epsilon", f"ε that one run of the {subject} shows, at least", dig(audit, f"one_run.{subject}.epsilon_low"))
            for subject in ("images", "weights")
        ),
        *(
            Judged(f"{name}_inferred", f"{name.replace('_', ' ')} guessed of training patients − of others", dig(facts, "difference"))
            for name, facts in told.items()
        ),
        Judged(
            "prompts_followed",
            "image of a report nearer to its own patient, of training patients − of others",
            dig(audit, "prompts.difference"),
        ),
    )


def shadow_figures(shadows: Mapping[str, Any]) -> list[Judged]:
    """What attacks with shadow trainings found."""
    figures = []
    for key, by in (("weights", "the weights"), ("images", "the released images")):
        worst = dig(shadows, f"{key}.worst.name")
        figures += [
            Judged(f"{key}_auc", f"membership by {by} with shadow trainings, AUC", dig(shadows, f"{key}.auc")),
            Judged(f"{key}_tpr", f"members found by {by} at 1% false alarms", dig(shadows, f"{key}.tpr_at_1pct_fpr")),
            Judged(f"{key}_tpr_rare", f"members found by {by} at 0.1% false alarms", dig(shadows, f"{key}.tpr_at_01pct_fpr")),
            Judged(f"{key}_worst", f"membership by {by}, worst group ({worst}), AUC", dig(shadows, f"{key}.worst.auc")),
            Judged(f"{key}_power", f"the same attack by {by} on the shadows themselves, AUC", dig(shadows, f"control.{key}.auc")),
        ]
    return _measured(*figures, Judged("control", "its control, a shadow in the run's place, AUC", dig(shadows, "control.auc")))


def evaluation_figures(evaluation: Mapping[str, Any]) -> list[Judged]:
    """What the evaluation found."""
    arms, differences = (
        found if isinstance(found := dig(evaluation, f"utility.{key}"), Mapping) else {} for key in ("arms", "differences")
    )
    return _measured(
        Judged("frechet_ratio", "Fréchet distance ÷ floor (n a side)", dig(evaluation, "fidelity.frechet.ratio")),
        Judged("frechet", "Fréchet distance, synthetic to sealed real images (n a side)", dig(evaluation, "fidelity.frechet.synthetic")),
        Judged("frechet_floor", "Fréchet distance between sealed real images (floor; n a side)", dig(evaluation, "fidelity.frechet.floor")),
        Judged(
            "two_sample_auc",
            "two-sample test, synthetic against real (0.5 is chance; n of both sides)",
            dig(evaluation, "fidelity.two_sample.synthetic"),
        ),
        Judged(
            "two_sample_floor", "two-sample test, real against real (floor; n of both sides)", dig(evaluation, "fidelity.two_sample.floor")
        ),
        Judged("two_sample_difference", "two-sample test, difference of the two", dig(evaluation, "fidelity.two_sample.difference")),
        Judged("label_fidelity", "label fidelity, mean of classes", _of_classifier(dig(evaluation, "label_fidelity.macro"))),
        *(
            Judged(f"{arm}_auc", f"AUC on real test images, trained on {ARMS.get(arm, arm)}", dig(facts, "auc"))
            for arm, facts in arms.items()
        ),
        *(
            Judged(f"{arm}_auc", f"AUC on real test images, trained on {ARMS.get(arm, arm)}", _of_classifier({"unfit": reason}))
            for arm, reason in (dig(evaluation, "utility.unfinished") or {}).items()
            if arm != "unfit"
        ),
        *(
            Judged(f"{arm}_gain", f"AUC difference, {ARMS.get(arm, arm)} − real images", dig(facts, "auc"))
            for arm, facts in differences.items()
        ),
    )


def stress_figures(stress: Mapping[str, Any]) -> list[Judged]:
    """What the stress test found; the classifiers' scores on clean images are the evaluation's own and stand there."""
    worst = [
        Judged("worst", f"largest drop of AUC: {step['corruption'].replace('_', ' ')}, severity {step['severity']}", step.get("auc_drop"))
        for step in (stress.get("worst") or [])[:1]
    ]
    return _measured(
        Judged("classifier", "the classifier under stress", {"unfit": stress["unfit"]} if "unfit" in stress else None),
        Judged("mean_drop_auc", "mean drop of AUC over all corruptions", dig(stress, "mean_drop.auc")),
        *worst,
    )


def summary(figures: Iterable[Judged]) -> dict[str, str]:
    """Figures for a stage's record."""
    return {figure.key: figure.text for figure in figures}


def sentences(evaluation: Mapping[str, Any], arms: Iterable[str] | None = None) -> list[str]:
    """What each arm changed over the control, a sentence for each class: of all arms, or of those named."""
    differences = found if isinstance(found := dig(evaluation, "utility.differences"), Mapping) else {}
    count = number(dig(evaluation, "utility.synthetic"))
    return [
        _sentence(str(CHANGES.get(arm, arm)).format(n=count), name, facts)
        for arm, of in differences.items()
        if arms is None or arm in arms
        for name, facts in (dig(of, "per_class") or {}).items()
    ]


def _sentence(what: str, name: str, of: Any) -> str:
    change = dig(of, "sensitivity")
    if not isinstance(dig(change, "low"), int | float):
        if isinstance(dig(of, "auc.low"), int | float):
            return f"{what}: too few held-out images without {name} to set the threshold of a sensitivity."
        return f"{what}: too few test patients with or without {name} to say what it changed."
    if change.get("stands"):
        return f"{what} changed sensitivity for {name} by {interval(change)}."
    if change["low"] > 0 or change["high"] < 0:
        return f"{what}: the change of sensitivity for {name}, {interval(change)}, does not stand among all that were compared."
    return f"{what}: no change of sensitivity for {name} could be shown, {interval(change)}."


def _of_classifier(measure: Any) -> Any:
    """A measure; where it is why a classifier is unfit, with who is meant."""
    return {"unfit": f"its classifier {measure['unfit']}"} if isinstance(measure, Mapping) and "unfit" in measure else measure


def _measured(*figures: Judged) -> list[Judged]:
    """Those that there are, and of several that one unfit judge would have given, the first."""
    found: list[Judged] = []
    for figure in figures:
        unfit = isinstance(figure.measure, Mapping) and "unfit" in figure.measure
        if figure.measure is not None and not (unfit and found and found[-1].measure == figure.measure):
            found.append(figure)
    return found
