"""``stress.html``: one self-contained page without scripts, addresses or pictures of patients, in the style of a release's report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.models import power
from pipeline.release.cards import html_template, software_version
from pipeline.release.plots import subgroup_plot
from pipeline.release.report import heat_table, prevalence_table, worst_drops
from pipeline.release.results import dig, interval, number
from pipeline.release.words import title

MOST_HARM = 20
HEADLINES = {
    0: ("pass", "Every question was answered yes"),
    3: ("fail", "A rule is broken"),
    4: ("inconclusive", "Not enough data to answer every question"),
}
BADGES = {"yes": "pass", "no": "fail", "not enough data": "inconclusive"}


def render(result: Mapping[str, Any], code: int) -> str:
    """The page of a ``stress.json`` and its exit code."""
    verdict, headline = HEADLINES[code]
    known = power.measured(result["version"])
    calibration = {(row["shift"], row["severity"]): row for row in result.get("calibration") or []}
    return html_template("stress.html.j2").render(
        r=result,
        verdict=verdict,
        headline=headline,
        badges=BADGES,
        resolution=resolution(result),
        power=known,
        planted=power.table(known),
        found=power.headline(known),
        unlike=power.unlike(result) if known.get("rows") else [],
        foretold=power.ranking(known),
        heat=heat_table({**result, "corruption_reference": result.get("reference")}),
        worst=worst_drops(result),
        harmed=len(harmful(result)),
        harm=[(row, calibration.get((row["shift"], row["severity"]), {})) for row in harmful(result)[:MOST_HARM]],
        classes=class_rows(result),
        subgroups=subgroup_plot(result.get("subgroups")),
        counted=counted(result.get("subgroups") or {}),
        marker=strongest_markers(result),
        severities=[one for one in dig(result, "synthetic.sets") or [] if "weight" in one],
        changed=[one for one in dig(result, "synthetic.sets") or [] if "same_patient" in one],
        prevalence=prevalence_table(result.get("prevalence")),
        version=software_version(),
    )


def harmful(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The conditions under which silent errors were shown to grow, the most harmful first."""
    return [row for row in dig(result, "harm.conditions") or [] if row["stands"]]


def counted(subgroups: Mapping[str, Any]) -> str:
    """How many images the AUC of each subgroup rests on, in words."""
    sizes = {
        column: ", ".join(f"{value} {number(dig(facts, 'auc.n'))}" for value, facts in values.items())
        for column, values in subgroups.items()
    }
    return "; ".join(f"{title(column)} {said}" for column, said in sizes.items() if said)


def strongest_markers(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Of each class the size of a letter that moves its probability most, those that stand first."""
    rows = sorted(result.get("marker") or [], key=lambda row: (not row["change"]["stands"], -abs(row["change"]["value"])))
    return list({row["class"]: row for row in reversed(rows)}.values())[::-1]


def resolution(result: Mapping[str, Any]) -> str:
    """How small a drop these cases could show, from the intervals that they gave."""
    halves = sorted(
        (row["auc_drop"]["high"] - row["auc_drop"]["low"]) / 2
        for rows in (result.get("corruptions") or {}).values()
        for row in rows
        if isinstance(row["auc_drop"]["low"], float)
    )
    if not halves:
        return ""
    return (
        f"Half of the drops of AUC are known on these {result['n']:,} images to within ±{halves[len(halves) // 2]:.3f}, the least "
        f"well known to within ±{halves[-1]:.3f}: "
        f"a shift that takes less may be harmless or may not, and this test does not tell."
    )


def class_rows(result: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """By class: name, sensitivity as the images are, the largest drop of it that stands, and under which shift."""
    rows = []
    for name, found in (result.get("sensitivities") or {}).items():
        own = interval(dig(result, "clean.per_class_recall").get(name))
        if isinstance(found, Mapping):
            rows.append((str(name), own, f"fewer than {found['few']} patients", "–"))
            continue
        standing = [row for row in found if row["drop"]["stands"] and row["drop"]["value"] > 0]
        if not standing:
            rows.append((str(name), own, "none was shown", "–"))
            continue
        worst = max(standing, key=lambda row: row["drop"]["value"])
        rows.append((str(name), own, interval(worst["drop"]), f"{title(worst['shift'])}, severity {worst['severity']}"))
    return rows
