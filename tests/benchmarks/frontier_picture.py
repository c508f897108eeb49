"""What the frontier's trainings say together: the attack of each with the others, a table along the length, and the picture of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from privacy import shadows
from tests.benchmarks import curves, quality, report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BENCHMARK = "frontier"
ACROSS = {"membership": "shadow membership AUC of the weights", "copies": "images flagged as copies, %"}
SEEN = "images seen in training; none that was made is flagged as a copy"
UP = {"above_floor": "panel's AUC above its floor", "worth": "test AUC of training on synthetic"}
AUTO = "auto"
Point = dict[str, Any]
Row = dict[str, Any]


def trained_path(folder: Path, number: int) -> Path:
    """Where what is kept of a training lies: which images it saw, and what an attack sees of its weights along the way."""
    return folder / f"{BENCHMARK}_{number:03d}.npz"


def points_of(folder: Path) -> tuple[list[Point], dict[str, Any]]:
    """By length, and last of what `auto` kept of each training: what was judged, by training, and the attack on each with all others; and
    what holds for all lengths.

    Raises:
        SystemExit: there are no trainings, or such as cannot be attacked together.
    """
    records = report.load(folder, BENCHMARK)
    rows = [row for one in records for row in one["rows"]]
    seen = {number: dict(np.load(path)) for number in range(1000) if (path := trained_path(folder, number)).exists()}
    if not seen or not records:
        raise SystemExit(f"no trainings in {folder}")
    first = next(iter(seen.values()))
    if any(str(one["pool"]) != str(first["pool"]) or one["images"].tolist() != first["images"].tolist() for one in seen.values()):
        raise SystemExit(
            f"the trainings in {folder} are of different images, of images in another order, or of other lengths: keep them apart"
        )
    inside = np.stack([one["inside"] for one in seen.values()])
    judged = {(row["training"], row["images"]): row for row in rows if "training" in row}
    points = []
    for place in range(len(first["images"]) + 1):
        auto = place == len(first["images"])
        lengths = {number: int(one["kept"] if auto else one["images"][place]) for number, one in seen.items()}
        here = {number: judged[number, images] for number, images in lengths.items() if (number, images) in judged}
        point: Point = {"length": AUTO if auto else f"{lengths[min(lengths)]:,}", "images": list(lengths.values()), "rows": here}
        point["ratio"] = None if auto else float(np.mean([one["parted"][place] for one in seen.values()]))
        for key in UP:
            known = [value for row in here.values() if (value := _value(row, key)) is not None]
            point[key] = float(np.mean(known)) if known else None
        point["copies"] = 100 * float(np.mean([row["copies"] / row["of"] for row in here.values()])) if here else None
        point["membership"] = None
        if len(seen) > shadows.FEWEST:
            features = np.stack([one["features"][place] for one in seen.values()]).astype(np.float64)
            attack = shadows.power(features, inside)
            point["membership"], point["tpr"] = attack["auc"]["value"], attack["tpr_at_1pct_fpr"]["value"]
        points.append(point)
    real = [row["real"]["value"] for row in rows if "real" in row]
    facts = records[-1]["facts"] | {"real": real[-1] if real else None, "trainings": len(seen)}
    return points, facts


def findings(points: list[Point]) -> list[str]:
    """How what `auto` keeps compares with the nearest length, of the same trainings, at which no image of any of them is flagged.

    That length is chosen by the numbers that it is compared by, which favours it.
    """
    *fixed, auto = points
    of_auto = {number: value for number, row in auto["rows"].items() if (value := _value(row, "above_floor")) is not None}
    if not of_auto:
        return ["auto: not judged yet"]
    flagged = ", ".join(str(row["copies"]) for row in auto["rows"].values())
    bounds = [auto["rows"][number]["above_floor"] for number in of_auto]
    told = "; ".join(f"{one['value']:+.3f} [{_signed(one['low'])}, {_signed(one['high'])}]" for one in bounds)
    said = [f"auto: {flagged} flagged as copies; above the floor by {told}"]
    apart: dict[str, list[float]] = {}
    for point in fixed:
        here = {number: value for number, row in point["rows"].items() if (value := _value(row, "above_floor")) is not None}
        if set(of_auto) <= set(here) and not any(row["copies"] for row in point["rows"].values()):
            apart[point["length"]] = [value - here[number] for number, value in of_auto.items()]
    if not apart:
        return [*said, "auto: no length without a copy to compare it with"]
    nearest = max(apart, key=lambda length: float(np.mean(apart[length])))
    one = apart[nearest]
    error = f" (standard error over trainings {np.std(one, ddof=1) / len(one) ** 0.5:.3f})" if len(one) > 1 else ""
    return [*said, f"auto: farther from the floor than {nearest} images, the nearest without a copy, by {np.mean(one):+.3f}{error}"]


def draw(points: list[Point], facts: dict[str, Any], folder: Path, beside: tuple[list[Point], dict[str, Any]] | None = None) -> Path:
    """Fidelity and worth against membership and copies along the length, of each judged training and on average; a star for `auto`, and
    beside them another recipe's trainings of the same cohort (with what holds for those). Where nobody was copied at any length, the
    length takes the copies' place.
    """
    figure, axes = curves.picture(len(ACROSS) * len(UP), rows=len(UP))
    pairs = [(across, up) for up in UP for across in ACROSS]
    recipes = [(points, "ours"), *(() if beside is None else ((beside[0], named(beside[1])),))]
    judged = [point for recipe, _ in recipes for point in recipe if point["copies"] is not None]
    most = max((point["copies"] for point in judged), default=0.0)
    for axis, (across, up) in zip(axes, pairs):
        across = "images" if across == "copies" and most == 0 else across
        for number, (recipe, told) in enumerate(recipes):
            *fixed, auto = [point for point in recipe if point[across] is not None and point[up] is not None] or [None]
            if auto is not None and auto["length"] == AUTO:
                _recipe(axis, told, fixed, auto if number == 0 else None, across, up)
        if across == "copies":
            axis.set_xscale("symlog", linthresh=0.1, linscale=0.5)
            axis.set_xlim(left=-0.02, right=max(0.2, 1.5 * most))
            curves.ticks([axis], [mark for mark in (0, 0.1, 0.3, 1, 3, 10, 30, 100) if mark <= axis.get_xlim()[1]])
        if up == "worth" and facts["real"] is not None:
            axis.axhline(facts["real"], color="#555555", linestyle=":", label="of training on one half's real images")
        if up == "above_floor":
            axis.axhline(0, color="#555555", linestyle=":", label="the floor: real from real")
        if across == "images":
            axis.set_xscale("log")
            low, high = axis.get_xlim()
            marks = [mark for power in range(3, 9) for mark in (10**power, 3 * 10**power) if low <= mark <= high]
            axis.set_xticks(marks, [f"{mark / 1000:,.0f}k" for mark in marks])
            axis.minorticks_off()
        axis.set_ylabel(UP[up])
        axis.set_xlabel(ACROSS.get(across, SEEN), fontsize=None if across in ACROSS else 9)
        axis.legend(fontsize=8, frameon=False)
    held = f"{facts['pool'] // 2} images a training; {facts['trainings']} trainings, {len(points[-1]['rows'])} of them judged (dots)"
    figure.suptitle(f"{facts['name']}: {held}", fontsize=11)
    path = folder / f"{BENCHMARK}_{quality.slug(facts['name'])}.png"
    figure.savefig(path, dpi=110)
    return path


def named(facts: dict[str, Any]) -> str:
    """In words, whose recipe is drawn beside another."""
    if facts["recipe"] == "edm":
        return "MONAI's network, EDM"
    settings = [f"{name} {facts['fitted'][name]}" for name in ("dropout", "augment") if name in facts["fitted"]]
    return ", ".join(["ours", *settings]) if settings else "ours, other settings"


def _recipe(axis: Axes, told: str, fixed: list[Point], auto: Point | None, across: str, up: str) -> None:
    """One recipe's lengths; those of another that are drawn beside, without `auto`, in another colour."""
    colour = curves.COLOURS[2 if auto is None else 0]
    axis.plot([_place(p, across) for p in fixed], [p[up] for p in fixed], marker="o", color=colour, label=f"{told}: mean of those judged")
    for point in fixed if auto is None else [*fixed, auto]:
        each = [np.nan if (value := _value(row, up)) is None else value for row in point["rows"].values()]
        at = [_place(point, across) if across != "copies" else 100 * row["copies"] / row["of"] for row in point["rows"].values()]
        axis.plot(at, each, ".", color=curves.COLOURS[1] if point is auto else colour, alpha=0.45, markersize=5)
    if auto is not None:
        star = {"markersize": 15, "color": curves.COLOURS[1], "zorder": 3}
        axis.plot(_place(auto, across), auto[up], "*", label="what train.images: auto keeps", **star)
    if across != "images":
        _lengths(axis, [(p[across], p[up], p["images"][0]) for p in fixed])


def _place(point: Point, across: str) -> float:
    return float(np.mean(point[across]))


def _value(row: Row, key: str) -> float | None:
    return None if row[key] is None else row[key]["value"]


def _signed(bound: float | None) -> str:
    return "–" if bound is None else f"{bound:+.3f}"


def _lengths(axis: Axes, marks: list[tuple[float, float, int]]) -> None:
    """How many thousand images each point has seen, above and below it in turn."""
    for number, (x, y, images) in enumerate(marks):
        told = f"{images / 1000:,.0f}k" if images >= 10_000 else f"{images / 1000:.1f}k"
        place = {"xytext": (5, 5 if number % 2 == 0 else -12), "textcoords": "offset points", "fontsize": 8}
        axis.annotate(told, (x, y), **place)


def show(folder: Path, beside: Path | None = None) -> None:
    """Print and draw what is there, and what another recipe's folder holds beside it."""
    tell(folder)
    points, facts = points_of(folder)
    print("\n".join(findings(points)))
    if beside is not None:
        tell(beside)
    print(f"drawn: {draw(points, facts, folder, None if beside is None else points_of(beside))}", flush=True)


def tell(folder: Path) -> None:
    """Print the table of one recipe."""
    points, facts = points_of(folder)
    print(f"{facts['date']}, {facts['hardware']}: {facts['command']}")
    kept = ", ".join(f"{images:,}" for images in points[-1]["images"])
    worth = "not judged yet" if facts["real"] is None else f"worth {facts['real']:.3f}"
    print(f"recipe {facts['recipe']}, {facts['fitted']}; {facts['pool']} images; {facts['trainings']} trainings")
    print(f"real halves are {worth}; auto keeps {kept}")
    keys = ("length", "ratio", "above_floor", "worth", "copies", "membership", "tpr")
    header = ("images", "ratio of the losses", "above the floor", "worth", "copies, %", "membership AUC", "TPR at 1 % FPR")
    print(report.markdown(header, [[point.get(key) for key in keys] for point in points]))
