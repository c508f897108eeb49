"""The report: one self-contained HTML page, without scripts and without any address outside itself; every plot is SVG.

Raster images appear only when the gate passes; a report of any other verdict holds none.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.release import meaning
from pipeline.release.balance import balance, combinations, explained
from pipeline.release.cards import actions, html_template, software_version
from pipeline.release.curve import distance_curve, noise_curve, training_curve
from pipeline.release.figures import ARMS, audit_figures, evaluation_figures, recipe_figures, sentences, stress_figures, train_figures
from pipeline.release.findings_page import findings_table, together_table
from pipeline.release.making import how_made
from pipeline.release.plots import change_plot, label_plot, legend, power_plot, subgroup_plot
from pipeline.release.results import Results, dig, interval, limitations, number, planted_copies, required_kinds, standing
from pipeline.release.words import glossary, title


def render_report(results: Results, samples: Mapping[str, Sequence[bytes]]) -> str:
    """The report as HTML.

    Args:
        results: the run's verdict and measures; whatever is missing is left out or shown as a dash.
        samples: PNG files of some synthetic images of each class. They are shown only if the images' verdict is ``pass``.
    """
    verdict = str(dig(results.gate, "images.verdict"))
    passed = verdict == "pass"
    found = results.evaluation.get("utility")
    compared = found if isinstance(found, Mapping) and "unfit" not in found else {}
    images = {name: [base64.b64encode(png).decode() for png in pictures] for name, pictures in samples.items()} if passed else {}
    return html_template("report.html.j2").render(
        r=results,
        verdict=verdict,
        headline=meaning.HEADLINES.get(verdict, "No verdict"),
        consequence=meaning.CONSEQUENCES.get(verdict, meaning.CONSEQUENCES["inconclusive"]),
        weights=None if results.config.foreign else meaning.weights_meaning(results.gate),
        certified=meaning.certified(results.gate),
        not_certified=meaning.not_certified(results.gate),
        signed=meaning.signed(results.gate, results.audit.get("n")),
        facts=meaning.facts(results.gate, results.audit.get("n")),
        glossary=glossary(required_kinds(results.audit)),
        arms_names=ARMS,
        tiles=tiles(results),
        power=[power_plot(rows) for rows in planted_copies(results.audit)],
        membership=list(measures(results.audit.get("membership"))),
        shadows=list(measures(results.audit.get("shadows"))),
        one_run=list(measures(results.audit.get("one_run"))),
        attributes=list(measures(results.audit.get("attributes"))),
        prompts=list(measures(results.audit.get("prompts"))),
        copies=list(measures(results.audit.get("copies"))),
        distances=distance_curve(results.audit),
        fidelity=list(against_floor(results.evaluation.get("fidelity"))),
        giveaways=given_away(dig(results.evaluation, "fidelity.two_sample.giveaways")),
        fidelity_classes=class_table(dig(results.evaluation, "fidelity.per_class")),
        label_fidelity=label_plot(results.evaluation.get("label_fidelity"), reference=_chance(results)),
        utility=change_plot(compared),
        legend=legend(compared),
        arms=arm_table(compared),
        by_class=sensitivity_table(compared),
        changes=sentences(results.evaluation),
        change_groups=change_table(compared.get("subgroups")),
        standing=standing(results),
        heat=heat_table(results.stress),
        subgroups=subgroup_plot(results.stress.get("subgroups")),
        worst=worst_drops(results.stress),
        prevalence=prevalence_table(results.stress.get("prevalence")),
        splits=source_splits(results.cohort),
        balance=balance(results),
        combinations=combinations(results),
        explained=explained(results),
        mute=mute(results.evaluation),
        findings=findings_table(results.evaluation),
        together=together_table(results.evaluation),
        samples=images,
        training=training_curve(results.recipe),
        noise=noise_curve(results.model),
        recipe=recipe_figures(results.recipe),
        how_made=how_made(results),
        actions=actions(results),
        limitations=limitations(results),
        version=software_version(),
    )


def source_splits(cohort: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Size of the source cohort as (split, images, patients): totals only, so that no small group of patients is described."""
    units = cohort.get("units") or {}
    return [
        (str(name), number(sum(counts.values())), number(units.get(name)))
        for name, counts in (cohort.get("counts") or {}).items()
        if isinstance(counts, Mapping)
    ]


def mute(evaluation: Mapping[str, Any]) -> list[str]:
    """Classes whose label fidelity no classifier could tell, with the reason, a sentence for all of which it is true."""
    named: dict[str, list[str]] = {}
    for name, fact in (dig(evaluation, "label_fidelity.per_class") or {}).items():
        if isinstance(fact, Mapping) and "unfit" in fact:
            named.setdefault(str(fact["unfit"]), []).append(str(name))
    return [f"{', '.join(names)}: not measured, the classifier {reason}." for reason, names in named.items()]


def tiles(results: Results) -> list[tuple[str, str, str]]:
    """The key figures as (name, value, explanation), those that were measured."""
    figures = {figure.key: figure for figure in audit_figures(results.audit)}
    figures |= {figure.key: figure for figure in evaluation_figures(results.evaluation)}
    figures |= {figure.key: figure for figure in (*stress_figures(results.stress), *train_figures(results.model))}
    recall = next((dig(check, "low") for check in results.gate.get("checks") or [] if dig(check, "name") == "power"), None)
    found = [
        ("flagged", "Images flagged as copies", f"of {number(dig(results.audit, 'n.synthetic'))} judged; share of images flagged"),
        ("membership_auc", "Membership attack on weights", "0.5 is chance"),
        ("unseen_to_seen", "Denoising loss, unseen ÷ training", "1 is nothing learned by heart"),
        ("frechet_ratio", "Fréchet distance ÷ floor", "1 is as close as unseen real images"),
        ("two_sample_difference", "Told from real images", "the panel's best AUC above that of real images against each other"),
        ("label_fidelity", "Label fidelity", "synthetic images that a real-trained classifier names right"),
        ("real_auc", "AUC, trained on real images", "on real test images"),
        ("real+synthetic_gain", "AUC, synthetic images added", "difference on real test images"),
        ("worst", "Stress: largest drop of AUC", ""),
    ]
    shown = []
    for key, name, note in found:
        if key not in figures:
            continue
        if not re.match(r"−?\d", figures[key].text):  # a sentence: why there is no figure
            shown.append((name, "–", figures[key].text))
            continue
        figure = figures["copy_rate"] if key == "flagged" and "copy_rate" in figures else figures[key]
        bounds = figure.text.partition(" (")[2].rstrip(")")
        notes = (f"{note} {figure.value}" if key == "flagged" else note or figure.name.partition(": ")[2], bounds)
        shown.append((name, figures[key].value, "; ".join(filter(None, notes))))
    if recall is not None:
        note = "lower bound of recall on planted copies of the worst required kind; the table below has all kinds"
        shown.insert(1, ("Search power", number(recall), note))
    return shown


def arm_table(utility: Any) -> list[tuple[str, ...]]:
    """Every arm's measures over all classes as (arm, AUC, accuracy, Brier, calibration error, difference of AUC, of Brier)."""
    differences = dig(utility, "differences") or {}
    rows = []
    for arm, facts in (dig(utility, "arms") or {}).items():
        own = [interval(dig(facts, key)) for key in ("auc", "accuracy", "brier", "calibration_error")]
        rows.append((ARMS.get(arm, arm), *own, *(interval(dig(differences.get(arm), key)) for key in ("auc", "brier"))))
    return rows


def sensitivity_table(utility: Any) -> list[tuple[str, ...]]:
    """By class and arm: (class, arm, AUC, recall, sensitivity, specificity reached, difference of AUC, of sensitivity)."""
    differences, arms = dig(utility, "differences") or {}, dig(utility, "arms") or {}
    names = list(dict.fromkeys(name for facts in arms.values() for name in (dig(facts, "per_class") or {})))
    rows = []
    for name in names:
        for arm, facts in arms.items():
            own, change = (dig(facts, "per_class") or {}).get(name), (dig(differences.get(arm), "per_class") or {}).get(name)
            cells = [interval(dig(own, key)) for key in ("auc", "recall", "sensitivity", "specificity")]
            rows.append((name, ARMS.get(arm, arm), *cells, *(_told(dig(change, key)) for key in ("auc", "sensitivity"))))
    return rows


def change_table(subgroups: Any) -> list[tuple[str, ...]]:
    """What arms change within subgroups: (subgroup, class, arm, difference of AUC, of sensitivity), or that they are too small."""
    rows: list[tuple[str, ...]] = []
    for column, values in (subgroups or {}).items():
        for value, classes in values.items():
            for name, arms in classes.items():
                if "few" in arms:
                    rows.append((f"{title(column)} {value}", name, f"fewer than {arms['few']} patients with or without it", "–", "–"))
                    continue
                for arm, facts in arms.items():
                    told = (_told(dig(facts, key)) for key in ("auc", "sensitivity"))
                    rows.append((f"{title(column)} {value}", name, ARMS.get(arm, arm), *told))
    return rows


def _told(change: Any) -> str:
    """A difference, marked where it stands among all that were tested with it."""
    return f"{interval(change)}{' *' if dig(change, 'stands') else ''}"


def worst_drops(stress: Mapping[str, Any]) -> list[str]:
    """The largest drops that stand among all, as sentences; or that none does."""
    if "worst" not in stress:
        return []
    found = [
        f"{title(str(step.get('corruption')))}, severity {number(step.get('severity'))}: AUC lower by {interval(step.get('auc_drop'))}."
        for step in stress["worst"]
    ]
    return found or ["No corruption was shown to lower the AUC: no single one can be called the worst."]


def measures(tree: Any, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """The measures in nested mappings as (name, value with interval, n), depth first; lists are left out."""
    for key, value in tree.items() if isinstance(tree, Mapping) else ():
        name = f"{prefix} · {key}" if prefix else str(key)
        if isinstance(value, Mapping) and "value" not in value:
            yield from measures(value, name)
        elif not isinstance(value, list):
            yield name, interval(value), number(value.get("n")) if isinstance(value, Mapping) else ""


def against_floor(fidelity: Any, prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Fidelity measures as (name, synthetic, floor, ratio): every mapping with a key ``synthetic``, but for the per-class ones.

    A judge that is unfit, or was not there, has its reason instead.
    """
    for key, value in fidelity.items() if isinstance(fidelity, Mapping) else ():
        if key in ("per_class", "encoder") or not isinstance(value, Mapping):
            continue
        name = f"{prefix} · {key}" if prefix else str(key)
        if "synthetic" in value:
            made, floor, ratio = (interval(value.get(side)) for side in ("synthetic", "floor", "ratio"))
            yield name, made, floor, ratio
            yield from against_floor(value.get("judges"), name)
        elif reason := value.get("unfit") or value.get("skipped"):
            yield name, str(reason), "–", "–"
        else:
            yield from against_floor(value, name)


def given_away(found: Any) -> list[tuple[str, str]] | None:
    """What the panel's plain features differ in as (more or less of what, in how many pairs); None where it was not looked for."""
    if not isinstance(found, list):
        return None
    rows = [one for one in found if isinstance(one, Mapping)]
    return [(f"{dig(one, 'synthetic')} {dig(one, 'feature')}", interval(one.get("auc"))) for one in rows]


def class_table(per_class: Any) -> dict[str, Any]:
    """Fidelity by class: ``{"columns": [...], "rows": {class: [(synthetic, floor), ...]}, "omitted": {class: reason}}``."""
    facts = {str(name): value for name, value in (per_class or {}).items() if isinstance(value, Mapping)}
    table = {name: {key: (made, floor) for key, made, floor, _ in against_floor(value)} for name, value in facts.items()}
    measured = (key for cells in table.values() for key, cell in cells.items() if set(cell) != {"–"})
    columns = list(dict.fromkeys(measured))
    return {
        "columns": columns,
        "rows": {name: [cells.get(key, ("–", "–")) for key in columns] for name, cells in table.items() if cells},
        "omitted": {name: str(value["omitted"]) for name, value in facts.items() if "omitted" in value},
    }


def prevalence_table(prevalence: Any) -> dict[str, Any]:
    """Positive predictive value at changed prevalence: ``{"factors": [...], "rows": {class: [(ppv, prevalence), ...]}}``."""
    lines = {str(name): [line for line in steps if isinstance(line, Mapping)] for name, steps in (prevalence or {}).items()}
    factors = sorted({line["factor"] for steps in lines.values() for line in steps if isinstance(line.get("factor"), float | int)})
    rows = {}
    for name, steps in lines.items():
        by_factor = {line.get("factor"): (interval(line.get("ppv")), number(line.get("prevalence"), 2)) for line in steps}
        rows[name] = [by_factor.get(factor, ("–", "–")) for factor in factors]
    return {"factors": factors, "rows": rows}


def heat_table(stress: Mapping[str, Any]) -> dict[str, Any]:
    """AUC by corruption and severity: ``{"severities": [...], "rows": {corruption: [(text, heat), ...]}}``, heat 0..7.

    The drop is from the same images uncorrupted; every .05 of it is one step of heat. A star marks a drop that stands,
    and no rise.
    """
    clean = dig(stress, "corruption_reference.auc.value")
    rows: dict[str, list[tuple[str, int]]] = {}
    severities: list[Any] = []
    for name, steps in (stress.get("corruptions") or {}).items():
        severities = severities or [dig(step, "severity") for step in steps]
        rows[str(name)] = [
            (
                f"{interval(dig(step, 'auc')).partition(' (')[0]}{' *' if _dropped(step) else ''}",
                _heat(clean, dig(step, "auc.value")),
            )
            for step in steps
        ]
    return {"severities": severities, "rows": rows}


def _dropped(step: Any) -> bool:
    """Whether a drop of AUC stands. Changes are tested on both sides, and a rise may stand too."""
    return bool(dig(step, "auc_drop.stands") and dig(step, "auc_drop.value") > 0)


def _heat(clean: Any, value: Any) -> int:
    if not isinstance(clean, float | int) or not isinstance(value, float | int):
        return 0
    return int(min(max((clean - value) / 0.05, 0), 7))


def _chance(results: Results) -> float | None:
    classes = results.evaluation.get("classes") or results.cohort.get("classes")
    return 1 / len(classes) if classes else None
