"""What the copy search finds, beside pixel ℓ₂, Carlini's ratio, authenticity and the search of one global NCC; its level; its speed.

    python -m tests.benchmarks.audit_power --set pneumonia --data pneumoniamnist.npz --out results
    python -m tests.benchmarks.audit_power --set phantom --size 64 --model 600000 --out results
    python -m tests.benchmarks.audit_power --level --out results
    python -m tests.benchmarks.audit_power --set phantom --size 32 --sets 40 --planted 60 --out results
    python -m tests.benchmarks.audit_power --speed --sizes 64 128 256 --out results
    python -m tests.benchmarks.audit_power --repeats --data pneumoniamnist.npz breastmnist.npz --out results

**Power.** Images are divided, phantoms by patient, into train, audit, *learn* (of which the score is learned) and honest ones, which nobody
has seen. Every method gets the same threshold rule: the smallest statistic of the honest images against train, so that each has no false
alarm among them. Of each kind, copies of random train images are planted. The product's own threshold, its level split as in an audit, is
reported beside with its false alarms. ``--model`` trains the product's network on train for so many images and makes training images anew
from several noise levels.

**Oracle.** Of kinds whose likelihood is known (:mod:`tests.benchmarks.copy_oracle`), what could be found at the most; its false alarms are
those among honest images of which the same is made.

**Sets** (:mod:`tests.benchmarks.copy_sets`). How the gate judges honest images among which some copies of one kind are, by number and kind.

**Level.** The share of honest sets in which any distance falls below the tail's threshold: power laws, nearest neighbours of Gaussian
points, cohorts of which a share has twins.

**Speed.** Random smooth images; seconds for the index, and for the search of as many queries; peak memory with as many references as
queries and with twice as many.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.intervals import clopper_pearson
from privacy import copies, copy_score, power
from privacy.copy_report import FALSE_ALARM, KINDS, Judge
from tests.benchmarks import report
from tests.benchmarks.copy_baselines import Found, GlobalSearch, Images, Method, pixel_methods
from tests.benchmarks.copy_cohorts import Cohort, phantoms, pneumonia
from tests.benchmarks.copy_level import levels
from tests.benchmarks.copy_oracle import ORACLES
from tests.benchmarks.copy_repeats import real_repeats
from tests.benchmarks.copy_sets import Sets, table

DESCRIPTORS = {"smoothed": 0, "local contrast": 5 * 3, "orientation": 7 * 3}
"""Single descriptors, by their column of the evidence: correlation of the whole."""


class Search:
    """The audit's search over a cohort, calibrated on the honest images."""

    def __init__(self, cohort: Cohort, rng: np.random.Generator, device: str) -> None:
        references = np.concatenate([cohort.train, cohort.audit])
        self.member = np.arange(len(references)) < len(cohort.train)
        self.engine = copies.CopySearch(references, copies.shared_structure(references), device)
        self.score = copy_score.learn(cohort.learn, cohort.learn_groups, rng=rng, device=device)
        self.honest = self.engine.candidates(cohort.honest, self.member, ~self.member)
        larger = len(cohort.train) / len(cohort.audit)
        bare = Judge(self.engine, self.score, (), FALSE_ALARM / len(cohort.honest), larger)
        sealed = [one.distance for one in bare.nearest(self.honest, ~self.member)]
        self.judge = bare.calibrated(sealed, bare.of_real(cohort.audit_groups, len(cohort.train)))

    def methods(self) -> dict[str, Callable[[copies.Candidates], Found]]:
        """Statistics of candidates: ratio, distance, odds, and the smallest of their p-values, which is what the audit judges."""

        def by(measure: int) -> Callable[[copies.Candidates], Found]:
            def method(found: copies.Candidates) -> Found:
                nearest = self.judge.nearest(found, self.member)[measure]
                return nearest.index, nearest.distance

            return method

        def both(found: copies.Candidates) -> Found:
            each = self.judge.nearest(found, self.member)
            # Logarithms, because the smallest p-values are 0 in float64; and distances break ties of those above the edge.
            p = [np.log(tail.p_value(one.distance)) + 1e-9 * one.distance for tail, one in zip(self.judge.tails, each)]
            return each[-1].index, np.min(p, axis=0)

        def single(column: int) -> Callable[[copies.Candidates], Found]:
            def method(found: copies.Candidates) -> Found:
                nearest = found.nearest(self.member, -found.evidence[:, :, column].astype(np.float64))
                return nearest.index, nearest.distance

            return method

        return {
            "the audit": both,
            "its ratio": by(0),
            "its distance": by(1),
            "its score": by(2),
            **{f"only {name}": single(column) for name, column in DESCRIPTORS.items()},
        }

    def flagged(self, found: copies.Candidates) -> NDArray[np.bool_]:
        return self.judge.near(self.judge.nearest(found, self.member))


def measure(cohort: Cohort, plants: dict[str, tuple[Images, NDArray[np.int64]]], rng: np.random.Generator, device: str) -> dict[str, Any]:
    """Recall at no false alarm, and own-source rate, by kind and method."""
    started = time.perf_counter()
    search = Search(cohort, rng, device)
    everyone = np.concatenate([cohort.train, cohort.audit])
    others: dict[str, Method] = {**pixel_methods(cohort.train, device), "one global NCC": GlobalSearch(cohort.train, everyone, device)}
    ours = search.methods()
    least = {name: method(search.honest)[1].min() for name, method in ours.items()}
    least |= {name: method(cohort.honest)[1].min() for name, method in others.items()}
    sizes = {name: len(getattr(cohort, name)) for name in ("train", "audit", "learn", "honest")}
    table: dict[str, Any] = {"n": sizes, "false_alarms": int(search.flagged(search.honest).sum()), "kinds": {}}
    oracles = {kind.__name__: (kind, oracle) for kind, oracle in ORACLES.items()}
    table["weights"] = search.score.weight.tolist()
    print(f"{sizes}, {table['false_alarms']} false alarms at the audit's own threshold, {time.perf_counter() - started:.0f} s", flush=True)
    for kind, (made, sources) in plants.items():
        found = search.engine.candidates(made, search.member)
        results = {name: method(found) for name, method in ours.items()} | {name: method(made) for name, method in others.items()}
        hits = int(search.flagged(found).sum())
        row: dict[str, Any] = {"planted": len(made), "audit_threshold": clopper_pearson(hits, len(made)).to_dict()}
        row["candidate"] = float((found.index == sources[:, None]).any(axis=1).mean())
        if kind in oracles:
            fresh = np.stack([power.alter(cohort.honest, number, oracles[kind][0], rng) for number in range(len(cohort.honest))])
            told = [oracles[kind][1](queries, cohort.train) for queries in (made, fresh)]
            results["oracle"], least["oracle"] = told[0], told[1][1].min()
        for name, (index, statistic) in results.items():
            recall = float((statistic < least[name]).mean())
            row[name] = {"recall": recall, "own_source": float((index == sources).mean())}
        table["kinds"][kind] = row
        line = "  ".join(f"{name} {row[name]['recall']:.2f}/{row[name]['own_source']:.2f}" for name in results)
        print(f"{kind:18s} flagged {hits / len(made):.2f}  candidate {row['candidate']:.2f}  {line}", flush=True)
    table["seconds"] = time.perf_counter() - started
    return table


def plants(cohort: Cohort, planted: int, only: list[str], rng: np.random.Generator) -> dict[str, tuple[Images, NDArray[np.int64]]]:
    """Copies of every kind, or of those that are named."""
    return {kind.__name__: power.plant(cohort.train, kind, planted, rng) for kind in KINDS if not only or kind.__name__ in only}


def regenerated(
    cohort: Cohort, planted: int, images: int, rng: np.random.Generator, device: str, seconds: float
) -> dict[str, tuple[Images, NDArray[np.int64]]]:
    """Training images made anew from several noise levels by the product's network, trained on them for ``images`` images."""
    from pipeline.diffusion.conditioning import Condition
    from pipeline.diffusion.guidance import guided
    from pipeline.diffusion.noise import StepNoise
    from pipeline.diffusion.objectives import Denoiser
    from pipeline.diffusion.samplers import heun
    from pipeline.diffusion.schedules import sampling_levels
    from pipeline.diffusion.training import Recipe, Training
    from pipeline.diffusion.unet import UNet

    unit = torch.from_numpy(cohort.train).float().div(127.5).sub(1)
    mean, size, classes = unit.mean(dim=0), cohort.train.shape[-1], int(cohort.labels.max()) + 1
    widths = [64, 128, 192] if device == "cuda" else [16, 32]
    network = UNet(
        channels=unit.shape[1], classes=classes, size=size, widths=widths, blocks=1, attention=(), patch=max(1, size // 32), dropout=0
    )
    denoiser = Denoiser(network, mean, float((unit - mean).std())).to(device).to(memory_format=torch.channels_last)
    how = Recipe(images, 64, 3e-3, 0.1, 0.0, 0.0, 0.1)
    training = Training(denoiser, torch.from_numpy(cohort.train).to(device), Condition.of_classes(cohort.labels, classes), how, 0)
    started = time.perf_counter()
    training.run(stop=lambda: time.perf_counter() - started > seconds)
    denoiser.load_state_dict(training.averaged(), strict=False)
    denoiser.eval()
    print(f"trained on {training.step * how.batch} images in {time.perf_counter() - started:.0f} s", flush=True)
    found = {}
    levels = sampling_levels("edm", 24, denoiser.sigma_data)
    for sigma in power.REGENERATED:
        sources = rng.permutation(len(cohort.train))[:planted]
        condition = Condition.of_classes(cohort.labels[sources], classes, device)
        noise = StepNoise(list(range(len(sources))), mean.shape, device)
        with torch.inference_mode():
            noisy = unit[torch.from_numpy(sources)].to(device) + sigma * noise()
            steps = [sigma, *(level for level in levels if level < sigma)]
            made = heun(guided(denoiser, condition), noisy, steps)
        pixels = made.float().cpu().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).numpy()
        found[f"regenerated {sigma}"] = (pixels, sources)
    return found


def speed(size: int, count: int, device: str) -> dict[str, Any]:
    """Seconds for ``count`` queries against as many references and against twice as many, ratio included; peak memory of either."""
    generator = torch.Generator().manual_seed(0)
    queries, references = _smooth(count, size, generator), _smooth(2 * count, size, generator)
    found = {}
    for n in (count, 2 * count):
        if device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        sealed = np.arange(n) % 3 == 0
        started = time.perf_counter()
        engine = copies.CopySearch(references[:n], copies.shared_structure(references[:n]), device)
        indexed = time.perf_counter()
        engine.candidates(queries[:256], ~sealed, sealed)
        warm = time.perf_counter()
        done = engine.candidates(queries, ~sealed, sealed)
        searched = time.perf_counter()
        assert np.isfinite(done.nearest(~sealed, done.ratio).distance).all()
        engine.candidates(references[: min(256, n)], ~sealed, itself=np.arange(min(256, n)))
        tables = (engine.described, engine.patches, engine.plain, engine.own, *engine.near)
        result: dict[str, Any] = {"index": indexed - started, "warm_up": warm - indexed, "search": searched - warm}
        result["tables_megabytes"] = sum(table.numel() * table.element_size() for table in tables) / 1e6
        if device == "cuda":
            result["peak_gigabytes"] = torch.cuda.max_memory_allocated() / 1e9
        else:
            result["process_peak_gigabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print({"size": size, "queries": count, "references": n, **result}, flush=True)
        found[f"{n} references"] = result
        del engine
    return {"size": size, "queries": count, **found}


def _smooth(count: int, size: int, generator: torch.Generator) -> Images:
    parts = []
    for start in range(0, count, 1000):
        coarse = torch.randn(min(1000, count - start), 1, 12, 12, generator=generator)
        parts.append(torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").mul(40).add(128).clamp(0, 255).byte())
    return torch.cat(parts).numpy()


def main() -> None:
    """Measure what is asked for, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=("pneumonia", "phantom"), dest="cohort")
    parser.add_argument("--data", type=Path, nargs="+", help="pneumoniamnist.npz; with --repeats, any of MedMNIST's files")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--audit", type=int, default=1000)
    parser.add_argument("--honest", type=int, default=1500)
    parser.add_argument("--learn", type=int, default=280)
    parser.add_argument("--planted", type=int, default=200)
    parser.add_argument("--kinds", nargs="*", default=[], help="all, where none is named")
    parser.add_argument("--model", type=int, default=0, help="images that a model is trained on, which makes training images anew")
    parser.add_argument("--seconds", type=float, default=240, help="at most for that training")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--sets", type=int, default=0, help="sets drawn with each number of copies of each kind, instead of recalls")
    parser.add_argument("--level", action="store_true")
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--repeats", action="store_true")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=Path("."))
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    machine = torch.cuda.get_device_name() if device == "cuda" else platform.processor()
    results: dict[str, Any] = {"facts": report.facts(), "device": machine, "arguments": {k: str(v) for k, v in vars(options).items()}}
    options.out.mkdir(parents=True, exist_ok=True)

    def write(name: str) -> None:
        (options.out / f"audit_power_{name}.json").write_text(json.dumps(results, indent=1))

    if options.level:
        results["level"] = levels(options.draws, np.random.default_rng(0))
        write("level")
    if options.repeats:
        results["repeats"] = real_repeats(options.data or [], device)
        write("repeats")
    if options.speed:
        results["speed"] = [speed(size, options.count, device) for size in options.sizes]
        write("speed")
    if options.cohort:
        name = f"{options.cohort}{28 if options.cohort == 'pneumonia' else options.size}"
        for seed in range(options.seeds):
            rng = np.random.default_rng(seed)
            if options.cohort == "pneumonia":
                cohort = pneumonia(options.data[0], options.train, options.audit, options.honest, rng)
            else:
                cohort = phantoms(options.size, options.train, options.audit, options.honest, options.learn, seed)
            if options.sets:
                sets = Sets(cohort, options.planted, options.kinds, rng, device)
                print(f"{len(sets.images)} honest images, {sets.twins} left out as pictures of patients who are searched", flush=True)
                for row in sets.rows(options.sets):
                    results.setdefault("sets", []).append({"seed": seed, "honest": len(sets.images), "left_out": sets.twins, **row})
                    write(f"{name}_sets")
                print(table(results["sets"]), flush=True)
                continue
            made = plants(cohort, options.planted, options.kinds, rng)
            if options.model:
                made |= regenerated(cohort, options.planted, options.model, rng, device, options.seconds)
            results.setdefault("power", []).append(measure(cohort, made, rng, device))
            write(name)


if __name__ == "__main__":
    main()
