"""How good are the images after so many network evaluations, with every sampler? And how long do they take?

One trained model, the same seeds everywhere: the deterministic samplers start each image from the same noise. ``ddpm`` and ``ddim`` also
run on the levels of the linear schedule that they were published with, and the configuration's sampler from the data's mixture of
Gaussians where its levels start there.

    python -m tests.benchmarks.steps_vs_quality --data FOLDER --weights WEIGHTS --out results
"""

from __future__ import annotations

import argparse
import math
from typing import Any

from pipeline.config import GenerateConfig
from pipeline.generate import starts_on_mixture
from tests.benchmarks import curves, report
from tests.benchmarks.curves import COLOURS, PATHS, Bench, cells, middle

BENCHMARK = "steps_vs_quality"
SAMPLERS = ("ddpm", "ddim", "euler", "heun", "dpmpp_2m", "dpmpp_2m_sde", "unipc")
EVALUATIONS = (5, 8, 10, 12, 16, 20, 35, 50, 100, 250)
LINEAR = "ddpm_linear"
MIXTURE = "edm, from a mixture of Gaussians"
FROM_NOISE = GenerateConfig.model_fields["levels"].default
CLASSIC = {("ddpm", LINEAR): 1000, ("ddim", LINEAR): 50}
"""What sampling took when these were published, and what the others' speed is compared with."""
CLOSE = (1.05, 1.10)

Series = tuple[str, str]
Point = dict[str, Any]


def steps_for(sampler: str, evaluations: int) -> int:
    """Steps of a sampler that take at most so many evaluations: Heun's method takes two a step but for the last."""
    return (evaluations + 1) // 2 if sampler == "heun" else evaluations


def series(options: argparse.Namespace, config: GenerateConfig) -> list[tuple[str, str, list[int]]]:
    """Sampler, schedule and evaluations of every line of the picture."""
    lines = [(sampler, config.noise_schedule, list(options.evaluations)) for sampler in options.samplers]
    for sampler in ("ddpm", "ddim"):
        if sampler in options.samplers and config.noise_schedule != LINEAR:
            lines.append((sampler, LINEAR, list(options.evaluations)))
    if config.sampler in options.samplers and starts_on_mixture(config):
        lines.append((config.sampler, MIXTURE, list(options.evaluations)))
    most = max(options.evaluations)
    return [(name, schedule, [*counts, 1000] if name == "ddpm" and most == 250 else counts) for name, schedule, counts in lines]


def measure(bench: Bench, options: argparse.Namespace, record: report.Record) -> None:
    """Generate and judge every point of one seed."""
    state = bench.run.snapshots[-1].state
    config = bench.config.generate
    for sampler, schedule, counts in series(options, config):
        where = {} if schedule == MIXTURE else {"noise_schedule": schedule, "levels": FROM_NOISE}
        for count in counts:
            settings = config.model_dump() | where | {"sampler": sampler, "steps": steps_for(sampler, count), "eta": 0.0}
            section = GenerateConfig(**settings)
            trained = bench.run.sampled(section)
            trained.generate(state, bench.labels, bench.seeds)  # warm: compiled and captured
            point = bench.point(lambda labels, seeds, trained=trained: trained.generate(state, labels, seeds))
            evaluated = curves.evaluations(section, bench.run.denoiser.sigma_data)
            row = {"seed": bench.seed, "sampler": sampler, "schedule": schedule, "evaluations": evaluated}
            record.add(row | point)
            ratio = point["result"]["frechet"]["ratio"]["value"]
            print(
                f"{sampler:<13} {schedule:<12} {row['evaluations']:>5} evaluations {point['seconds']:7.2f} s, FD ratio {ratio:.2f}",
                flush=True,
            )


def fewest(points: list[Point], best: float, share: float) -> Point | None:
    """The point with the fewest evaluations whose distance is at most ``share`` times the best."""
    close = [point for point in points if middle(point["FD"]) <= share * best]
    return min(close, key=lambda point: point["evaluations"], default=None)


def findings(lines: dict[Series, list[Point]]) -> list[str]:
    """What is close to the best, how soon, and how much faster than sampling as published."""
    best = min((middle(point["FD"]), key, point["evaluations"]) for key, points in lines.items() for point in points)
    said = [f"best of all: {name(best[1])} with {best[2]} evaluations, FD {best[0]:.3f}"]
    for share in CLOSE:
        found = {key: fewest(points, best[0], share) for key, points in lines.items()}
        reached = sorted((point["evaluations"], name(key)) for key, point in found.items() if point)
        said.append(f"within {share - 1:.0%} of it: " + ", ".join(f"{who} from {count}" for count, who in reached))
    quick = min((p for ps in lines.values() if (p := fewest(ps, best[0], CLOSE[1]))), key=lambda point: point["evaluations"])
    for key, count in CLASSIC.items():
        for point in lines.get(key, []):
            if point["evaluations"] == count:
                times = point["seconds"] / quick["seconds"]
                said.append(
                    f"{quick['line']} with {quick['evaluations']} evaluations: FD {middle(quick['FD']):.3f}, {times:.1f} times as fast as "
                    f"{name(key)} with {count} (FD {middle(point['FD']):.3f}; {count / quick['evaluations']:.1f} times the evaluations)"
                )
    return said


def name(key: Series) -> str:
    """A line's name."""
    return key[0] + {LINEAR: ", linear schedule", MIXTURE: ", from a mixture of Gaussians"}.get(key[1], "")


def lines_of(points: dict[tuple[Any, ...], Point]) -> dict[Series, list[Point]]:
    """The points of each line, by evaluations."""
    lines: dict[Series, list[Point]] = {}
    for (sampler, schedule, _), point in sorted(points.items()):
        lines.setdefault((sampler, schedule), []).append(point | {"line": name((sampler, schedule))})
    return {key: sorted(found, key=lambda point: point["evaluations"]) for key, found in lines.items()}


def table(lines: dict[Series, list[Point]]) -> str:
    """All points."""
    header = ["sampler", "evaluations", "seeds", *PATHS, "seconds"]
    rows = [
        [name(key), point["evaluations"], point["seeds"], *cells(point), f"{point['seconds']:.2f}"]
        for key, found in lines.items()
        for point in found
    ]
    return report.markdown(header, rows)


def draw(lines: dict[Series, list[Point]], options: argparse.Namespace) -> None:
    """Distance against evaluations and against seconds, and recall against evaluations."""
    figure, axes = curves.picture(3)
    panels = (("evaluations", "FD", "network evaluations"), ("seconds", "FD", "seconds"), ("evaluations", "recall", "network evaluations"))
    for number, (key, points) in enumerate(lines.items()):
        dashes = {LINEAR: "--", MIXTURE: "-."}.get(key[1], "-")
        style = {"color": COLOURS[number % len(COLOURS)], "linestyle": dashes, "marker": "o", "markersize": 3.5}
        style |= {"linewidth": 4.0, "alpha": 0.45} if key[0] == "ddim" and key[1] != LINEAR else {"linewidth": 1.4}  # euler lies on it
        for axis, (across, up, _) in zip(axes, panels):
            axis.plot([p[across] for p in points], [middle(p[up]) for p in points], label=name(key), **style)
    floor = next(iter(lines.values()))[0]["floor"]
    for axis, (_, up, label) in zip(axes, panels):
        axis.set_xscale("log")
        axis.set_xlabel(label if label != "seconds" else f"seconds for {options.count} images")
        if up == "FD":
            curves.logarithmic(axis)
            axis.set_ylabel("Fréchet distance to held-out images")
            highest = max(middle(point["FD"]) for points in lines.values() for point in points)
            axis.set_ylim(0.85 * middle(floor), min(1.2 * highest, 60 * middle(floor)))  # what is worse is noise
            axis.axhline(middle(floor), color="#555555", linewidth=1, linestyle=":")
            axis.annotate("held-out against held-out", (0.01, middle(floor)), xycoords=("axes fraction", "data"), va="top", fontsize=8)
        else:
            axis.set_ylabel(up)
    most = max(point["evaluations"] for points in lines.values() for point in points)
    curves.ticks((axes[0], axes[2]), [count for count in (5, 10, 20, 50, 100, 250, 1000) if count <= most])
    times = [point["seconds"] for points in lines.values() for point in points]
    marks = [digit * 10**power for power in range(-3, 5) for digit in (1, 2, 5)]
    curves.ticks(axes[1:2], [mark for mark in marks if min(times) <= mark <= max(times)])
    axes[2].legend(fontsize=8, frameon=False, loc="lower right")
    curves.save(figure, options.out, BENCHMARK)


def extra(parser: argparse.ArgumentParser) -> None:
    """This benchmark's own options."""
    parser.add_argument("--samplers", type=lambda text: tuple(text.split(",")), default=SAMPLERS)
    parser.add_argument("--evaluations", type=lambda text: tuple(int(part) for part in text.split(",")), default=EVALUATIONS)


def main() -> None:
    """Measure every point, then print and draw what all records say."""
    options = curves.options_of(__doc__, None, extra)
    if options.tiny:
        options.evaluations = tuple(count for count in options.evaluations if count <= 12)
    if not options.table:
        sets, config, record, device = curves.start(options, BENCHMARK)
        for bench in curves.benches(options, sets, config, [options.train_seconds], device):
            measure(bench, options, record)
    points = curves.collected(options.out, BENCHMARK, ("sampler", "schedule", "evaluations"), options.tiny)
    if not points:
        raise SystemExit(f"no records of {BENCHMARK} in {options.out}")
    lines = lines_of({key: point for key, point in points.items() if math.isfinite(middle(point["FD"]))})
    curves.heading(options.out, BENCHMARK, options.tiny)
    print(table(lines))
    print("\n".join(findings(lines)), flush=True)
    draw(lines, options)


if __name__ == "__main__":
    main()
