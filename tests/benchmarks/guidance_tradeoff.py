"""What guidance buys and costs: Fréchet distance, precision, recall and label fidelity against its scale.

Three kinds: classifier-free guidance at every level of noise, the same within the configuration's interval only, and autoguidance, away
from an earlier snapshot of the same training. Everything else is as the generate stage does it; every point has the same noise.

    python -m tests.benchmarks.guidance_tradeoff --data FOLDER --weights WEIGHTS --out results
"""

from __future__ import annotations

import argparse
import copy
import math
from typing import Any

from pipeline.config import GenerateConfig
from pipeline.diffusion.objectives import Denoiser
from tests.benchmarks import curves, report
from tests.benchmarks.curves import COLOURS, PATHS, Bench, cells, middle

BENCHMARK = "guidance_tradeoff"
SCALES = (0.0, 0.5, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0)
EVERYWHERE, INTERVAL, AUTO = "every level", "interval", "autoguidance"
Point = dict[str, Any]


def measure(bench: Bench, options: argparse.Namespace, record: report.Record) -> None:
    """Generate and judge every point of one seed."""
    last = bench.run.snapshots[-1]
    earlier = [one for one in bench.run.snapshots[:-1] if one.asked <= options.guide_share * last.asked]
    guides: dict[str, Denoiser | None] = {EVERYWHERE: None, INTERVAL: None}
    if earlier:
        guides[AUTO] = copy.deepcopy(bench.run.use(earlier[-1].state))
        print(f"autoguidance away from the snapshot of {earlier[-1].seconds:.1f} s", flush=True)
    for kind, guide in guides.items():
        interval = bench.config.generate.guidance_interval if kind == INTERVAL else (0.0, math.inf)
        for scale in options.scales:
            settings = bench.config.generate.model_dump() | {"guidance_scale": scale, "guidance_interval": interval}
            section = GenerateConfig(**settings)
            trained = bench.run.sampled(section, guide)
            point = bench.point(lambda labels, seeds, trained=trained: trained.generate(last.state, labels, seeds))
            evaluations = curves.evaluations(section, bench.run.denoiser.sigma_data, guide is not None)
            record.add({"seed": bench.seed, "kind": kind, "scale": scale, "evaluations": evaluations} | point)
            result = point["result"]
            print(
                f"{kind:<13} scale {scale:<5g} FD ratio {result['frechet']['ratio']['value']:.2f}, label fidelity "
                f"{result['label_fidelity']['value']:.3f}, {evaluations} evaluations an image",
                flush=True,
            )


def lines_of(points: dict[tuple[Any, ...], Point]) -> dict[str, list[Point]]:
    """The points of each kind, by scale."""
    kinds = [kind for kind in (EVERYWHERE, INTERVAL, AUTO) if any(key[0] == kind for key in points)]
    return {kind: [point | {"scale": key[1]} for key, point in sorted(points.items()) if key[0] == kind] for kind in kinds}


def table(lines: dict[str, list[Point]]) -> str:
    """All points."""
    header = ["guidance", "scale", "seeds", *PATHS, "evaluations an image"]
    rows = [
        [kind, f"{point['scale']:g}", point["seeds"], *cells(point), point["evaluations"]]
        for kind, found in lines.items()
        for point in found
    ]
    return report.markdown(header, rows)


def findings(lines: dict[str, list[Point]]) -> list[str]:
    """The best scale of each kind by distance, beside no guidance."""
    plain = next((point for point in lines[EVERYWHERE] if point["scale"] == 1), None)
    said = []
    for kind, points in lines.items():
        best = min(points, key=lambda point: middle(point["FD"]))
        text = f"{kind}: best at scale {best['scale']:g}, FD {middle(best['FD']):.3f}, label fidelity {middle(best['label fidelity']):.3f}"
        if plain:
            text += f" (unguided: FD {middle(plain['FD']):.3f}, label fidelity {middle(plain['label fidelity']):.3f})"
        said.append(text)
    return said


def draw(lines: dict[str, list[Point]], options: argparse.Namespace) -> None:
    """Distance and label fidelity against the scale, and precision against recall."""
    figure, axes = curves.picture(3)
    for number, (kind, points) in enumerate(lines.items()):
        style = {"color": COLOURS[number], "marker": "o", "markersize": 4, "linewidth": 1.4, "label": kind}
        scales = [point["scale"] for point in points]
        axes[0].plot(scales, [middle(point["FD"]) for point in points], **style)
        axes[1].plot(scales, [middle(point["label fidelity"]) for point in points], **style)
        axes[2].plot([middle(point["recall"]) for point in points], [middle(point["precision"]) for point in points], **style)
        for point in (point for point in points if point["scale"] in (0, 1, 2, 4)):
            place = (middle(point["recall"]), middle(point["precision"]))
            axes[2].annotate(f"{point['scale']:g}", place, xytext=(4, 3), textcoords="offset points", fontsize=7, color=COLOURS[number])
    floor = middle(next(iter(lines.values()))[0]["floor"])
    axes[0].axhline(floor, color="#555555", linewidth=1, linestyle=":")
    axes[0].annotate("held-out against held-out", (0.99, floor), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
    curves.logarithmic(axes[0])
    axes[0].set(xlabel="guidance scale", ylabel="Fréchet distance to held-out images")
    axes[1].set(xlabel="guidance scale", ylabel="label fidelity")
    axes[2].set(xlabel="recall", ylabel="precision", title="numbers: scale")
    axes[0].legend(fontsize=8, frameon=False)
    curves.save(figure, options.out, BENCHMARK)


def extra(parser: argparse.ArgumentParser) -> None:
    """This benchmark's own options."""
    parser.add_argument("--scales", type=lambda text: tuple(float(part) for part in text.split(",")), default=SCALES)
    parser.add_argument(
        "--guide-share", type=float, default=0.25, help="autoguidance: the latest snapshot before this share of the training"
    )


def main() -> None:
    """Measure every point, then print and draw what all records say."""
    options = curves.options_of(__doc__, None, extra)
    if not options.table:
        sets, config, record, device = curves.start(options, BENCHMARK)
        at = [options.guide_share / 2 * options.train_seconds, options.train_seconds]
        for bench in curves.benches(options, sets, config, at, device):
            measure(bench, options, record)
    points = curves.collected(options.out, BENCHMARK, ("kind", "scale"), options.tiny)
    if not points:
        raise SystemExit(f"no records of {BENCHMARK} in {options.out}")
    lines = lines_of(points)
    curves.heading(options.out, BENCHMARK, options.tiny)
    print(table(lines))
    print("\n".join(findings(lines)), flush=True)
    draw(lines, options)


if __name__ == "__main__":
    main()
