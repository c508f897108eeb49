"""What the judges see, how often the panel's interval holds, and what converged classifiers cost. Needs torch, scikit-learn, numpy, pandas.

    python -m tests.benchmarks.judges panel --medmnist pneumoniamnist.npz --out results        # or --run RUN, a finished run's folder
    python -m tests.benchmarks.judges arms --medmnist pneumoniamnist.npz --kind resnet18 --out results
    python -m tests.benchmarks.judges coverage --out results
    python -m tests.benchmarks.judges clock --medmnist pneumoniamnist.npz --out results

``panel`` holds the sealed images against candidates of which the truth is known (other real images, real ones with a small change, samples
of a Gaussian of each class) and, of a run, against its synthetic images. ``clock`` trains the same networks one after the other as before
(one-cycle, a fixed length), one after the other to the plateau, and side by side, in one process.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.arms import DEFAULT, FULL, course, train_arms
from evaluation.comparisons import difference
from evaluation.data import Labelled
from evaluation.intervals import Interval, interval, to_json
from evaluation.judges import fitness
from evaluation.metrics import Floats, macro_auc, macro_auc_estimate
from evaluation.panel import Pair, Scored, _best, _folds, _halving, panel, planted
from evaluation.plain_features import plain_features
from evaluation.training import Task, train

Sets = dict[str, Labelled]


def say(*words: object) -> None:
    """Print at once."""
    print(*words, flush=True)


def medmnist(path: Path, sealed: float = 0.33) -> tuple[Sets, tuple[str, ...]]:
    """The official val and test; train divided into ``train`` and ``audit`` as ingest does. Every image is a patient of its own."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    classes = int(arrays["train_labels"].max()) + 1

    def part(name: str) -> Labelled:
        images = arrays[f"{name}_images"]
        images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
        return Labelled.of_classes(images, arrays[f"{name}_labels"].ravel().astype(np.int64), np.arange(len(images)), classes)

    whole = part("train")
    away = np.random.default_rng(0).random(len(whole)) < sealed
    sets = {"train": whole.take(~away), "audit": whole.take(away), "val": part("val"), "test": part("test")}
    return sets, tuple(f"class {k}" for k in range(classes))


def run_folder(path: Path) -> tuple[Sets, tuple[str, ...]]:
    """A run's real images by split, and its synthetic ones."""
    from pipeline.images import ImageSet

    real, made = ImageSet.load(path / "ingest"), ImageSet.load(path / "generate")
    sets = {name: real.split(name) for name in ("train", "audit", "val", "test")} | {"synthetic": made}
    groups = {name: images.rows["patient" if "patient" in images.rows else "id"].to_numpy(dtype=str) for name, images in sets.items()}
    return {name: Labelled(np.asarray(images.images), images.findings, groups[name]) for name, images in sets.items()}, made.classes


def gaussians(train_set: Labelled, count: int, rng: np.random.Generator) -> Labelled:
    """Samples of a Gaussian of each class of the training images: a poor generator."""
    images, labels = [], []
    for k in range(train_set.classes):
        x = train_set.unit[train_set.labels == k].reshape((train_set.labels == k).sum(), -1)
        mean = x.mean(axis=0)
        draws = rng.normal(size=(count, len(x))).astype(np.float32) @ (x - mean) / np.sqrt(max(1, len(x) - 1)) + mean
        images.append(draws.reshape(count, *train_set.unit.shape[1:]).clip(-1, 1))
        labels.append(np.full(count, k))
    together = np.rint((np.concatenate(images) + 1) * 127.5).astype(np.uint8)
    return Labelled.of_classes(together, np.concatenate(labels).astype(np.int64), np.arange(len(together)), train_set.classes)


def candidates(sets: Sets, rng: np.random.Generator) -> Iterator[tuple[str, Labelled]]:
    """What the panel is shown, with the truth in its name."""
    real = sets["train"]
    if "synthetic" in sets:
        yield "the run's synthetic images", sets["synthetic"]
    yield "other real images (truth: at the floor)", real

    def changed(images: NDArray[np.float32]) -> Labelled:
        exact = np.rint((images.clip(-1, 1) + 1) * 127.5).astype(np.uint8)
        return Labelled(exact, real.findings, real.groups)

    yield "real, the control's change", changed(planted(real.unit, rng))
    yield "real, noise of 1 % of the range", changed(real.unit + rng.normal(0, 0.02, real.unit.shape).astype(np.float32))
    yield "real, contrast + 5 %", changed(real.unit * 1.05)
    yield "Gaussian of each class", gaussians(real, 1000, rng)


def panel_table(options: argparse.Namespace, sets: Sets, names: tuple[str, ...]) -> dict[str, Any]:
    """Every candidate before the panel."""
    from pipeline.imagenet import imagenet_space

    spaces = {"plain": plain_features, "imagenet": imagenet_space(options.weights, options.device)}
    found = {}
    for name, candidate in candidates(sets, np.random.default_rng(1)):
        started = time.time()
        rng = np.random.default_rng(options.seed)
        one = to_json(
            panel(
                sets["audit"],
                candidate,
                names,
                spaces=spaces,
                splits=options.seeds,
                ceiling=options.ceiling,
                rng=rng,
                device=options.device,
            )
        )
        one["seconds"] = time.time() - started
        found[name] = one
        judges = "  ".join(f"{judge} {_short(facts)}" for judge, facts in one.get("judges", {}).items())
        say(f"{name}: n {one['n']}, {one['seconds']:.0f} s\n   {judges}\n   {_verdict(one)}")
        for label, facts in one.get("per_class", {}).items():
            say(f"   {label}: n {facts['n']}, {_verdict(facts)}")
    return found


def _short(facts: dict[str, Any]) -> str:
    if "synthetic" not in facts:
        return str(facts.get("skipped") or facts.get("unfit"))
    return f"{facts['synthetic']['value']:.3f} (floor {facts['floor']['value']:.3f}, control {facts['control']['value']:.3f})"


def _verdict(facts: dict[str, Any]) -> str:
    if "unfit" in facts:
        return str(facts["unfit"])
    made, floor, apart = (facts[key] for key in ("synthetic", "floor", "difference"))
    if None in (made["value"], apart["low"]):
        return "no number"
    return (
        f"best {made['value']:.3f}, floor {floor['value']:.3f}, difference {apart['value']:+.3f} ({apart['low']:+.3f} … "
        f"{apart['high']:+.3f}), standard error {facts['standard_error']:.3f}: {facts['verdict']}"
    )


def arms_table(options: argparse.Namespace, sets: Sets, names: tuple[str, ...]) -> dict[str, Any]:
    """Arms on the run's synthetic images, or on half of the sealed ones in their place."""
    val = sets["val"].halves(0)[1]
    made, started = sets.get("synthetic", sets["audit"]), time.time()
    rng = np.random.default_rng(options.seed)
    arms = FULL if options.full else DEFAULT
    trained = train_arms(
        sets["train"],
        made,
        val,
        arms=arms,
        seeds=options.seeds,
        kind=options.kind,
        ceiling=options.ceiling,
        rng=rng,
        device=options.device,
    )
    seconds = time.time() - started
    say(f"{len(arms)} arms of {options.seeds} {options.kind}: {seconds:.1f} s on {options.device}")
    scored = {arm: np.stack([one.classifier.predict(sets["test"].unit) for one in found]) for arm, found in trained.items()}
    test = sets["test"]
    estimates = {arm: macro_auc_estimate(p, test.labels, test.groups) for arm, p in scored.items()}
    result: dict[str, Any] = {"seconds": seconds, "judge": fitness(scored["real"], test, names).to_dict(), "arms": {}}
    for arm, estimate in estimates.items():
        went = course(trained[arm])
        result["arms"][arm] = {"auc": interval(estimate), "gain": difference(estimate, estimates["real"]), "training": went}
        gain = result["arms"][arm]["gain"]
        say(
            f"   {arm}: AUC {_interval(interval(estimate))}, gain {_interval(gain)}; best after {went['images']} images of "
            f"{went['curve'][-1][0]}, plateau {all(went['plateau'])}"
        )
    return result


def _interval(one: Interval) -> str:
    return f"{one.value:.4f} ({one.low:.4f} … {one.high:.4f})"


def clock(options: argparse.Namespace, sets: Sets, names: tuple[str, ...]) -> dict[str, Any]:
    """The same networks as before, one by one, and side by side."""
    real, choose = sets["train"], sets["val"].halves(0)[1]
    tasks = [Task(real.unit, real.labels, len(names), seed, choose) for seed in range(options.seeds * len(DEFAULT))]
    test, found = sets["test"], {}

    def timed(name: str, work: Callable[[], list[tuple[Any, int]]]) -> None:
        if options.device == "cuda":
            torch.cuda.synchronize()
        started = time.time()
        networks = work()
        seconds, images = time.time() - started, sum(seen for _, seen in networks)
        scores = [macro_auc(one.predict(test.unit), test.labels) for one, _ in networks]
        found[name] = {"seconds": seconds, "images": images, "auc": float(np.mean(scores)), "auc_sd": float(np.std(scores))}
        rate, auc = images / seconds, float(np.mean(scores))
        say(
            f"{name}: {len(networks)} networks, {images} images, {seconds:.1f} s, {rate:.0f} a second, AUC {auc:.4f} ± {np.std(scores):.4f}"
        )

    def plateau(each: list[Task], ceiling: int) -> list[tuple[Any, int]]:
        trained = train(each, kind=options.kind, ceiling=ceiling, device=options.device)
        return [(one.classifier, one.curve[-1][0]) for one in trained]

    plateau(tasks[:1], 640)
    if options.old is not None:
        timed("before: one-cycle, 8 000 images", lambda: _before(options, real, sets["val"], 8_000, tasks))
        timed("before: one-cycle, 60 000 images", lambda: _before(options, real, sets["val"], 60_000, tasks))
    timed("to the plateau, one by one", lambda: [one for task in tasks for one in plateau([task], options.ceiling)])
    timed("to the plateau, side by side", lambda: plateau(tasks, options.ceiling))
    timed("three times the ceiling, side by side", lambda: plateau(tasks, 3 * options.ceiling))
    return found


def _before(options: argparse.Namespace, real: Labelled, val: Labelled, images: int, tasks: list[Task]) -> list[tuple[Any, int]]:
    """Networks as an earlier checkout's ``evaluation/encoder.py`` trains them."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("earlier_encoder", options.old / "evaluation" / "encoder.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["earlier_encoder"] = module
    spec.loader.exec_module(module)
    kept = {"kind": options.kind, "images_seen": images, "device": options.device, "val": val, "classes": real.classes}
    return [(module.train_classifier(real.unit, real.labels, seed=task.seed, **kept), images) for task in tasks]


def coverage(options: argparse.Namespace) -> dict[str, Any]:
    """How often the interval of the panel's difference holds its expectation; two linear judges, ridge instead of logistic for speed.

    Images are Gaussian vectors; synthetic ones are moved by ``effect``. The expectation is the mean over all simulations.
    """
    found = {}
    for n, per_patient, effect in ((60, 1, 0.0), (200, 1, 0.0), (400, 2, 0.0), (200, 1, 0.5), (400, 2, 0.5), (400, 1, 1.5)):
        rng = np.random.default_rng(options.seed)
        drawn = [_one_simulation(n, per_patient, effect, options.seeds, rng) for _ in range(options.draws)]
        truth = float(np.mean([one.value for one in drawn]))
        held = float(np.mean([one.low <= truth <= one.high for one in drawn if np.isfinite(one.low)]))
        width = float(np.mean([one.high - one.low for one in drawn]))
        varied = float(np.std([one.value for one in drawn]))
        found[f"n {n}, {per_patient} a patient, effect {effect}"] = {
            "truth": truth,
            "held": held,
            "width": width,
            "sd": varied,
            "draws": len(drawn),
        }
        cell = f"sealed {n} ({per_patient} a patient), effect {effect}"
        say(f"{cell}: difference {truth:+.3f}, sd {varied:.3f}, held {held:.3f}, width {width:.3f}")
    return found


def _one_simulation(n: int, per_patient: int, effect: float, splits: int, rng: np.random.Generator) -> Interval:
    width = 12
    patients = rng.normal(size=(n // per_patient, width)) * 0.7
    x = patients[np.arange(n) // per_patient] + rng.normal(size=(n, width)) * 0.7
    made = rng.normal(size=(n // 2, width)) + effect * np.eye(width)[0]
    blank = np.zeros((len(x) + len(made), 1, 1, 1), np.float32)
    audit = Labelled.of_classes(blank[:n], np.zeros(n, np.int64), np.arange(n) // per_patient, 1)
    synthetic = Labelled.of_classes(blank[n:], np.zeros(len(made), np.int64), np.arange(len(made)), 1)
    pool = np.concatenate([x, made])
    groups = np.concatenate([audit.groups, synthetic.groups + n])
    universe = Labelled(blank, np.concatenate([audit.findings, synthetic.findings]), groups)
    scored: dict[str, list[list[Scored]]] = {"synthetic": [], "floor": []}
    for _ in range(splits):
        a, b, drawn = _halving(audit, synthetic, ("one",), rng)
        for side, pair in (("synthetic", Pair(drawn + n, a)), ("floor", Pair(b, a))):
            scored[side].append([_ridge(pool[:, dims], pair, groups, count, rng) for dims, count in ((slice(0, 8), 2), (slice(4, 12), 5))])
    is_made = np.arange(len(universe)) >= n
    best = {side: _best(judges, universe, is_made, None) for side, judges in scored.items()}
    return difference(best["synthetic"], best["floor"])


def _ridge(x: Floats, pair: Pair, groups: NDArray[np.int64], count: int, rng: np.random.Generator) -> Scored:
    fold, scores = _folds(pair, groups, count, rng), np.empty(len(pair.rows))
    for f in range(count):
        learn, y = x[pair.rows[fold != f]], pair.positive[fold != f] - 0.5
        middle = learn.mean(axis=0)
        weights = np.linalg.solve((learn - middle).T @ (learn - middle) + 5 * np.eye(x.shape[1]), (learn - middle).T @ y)
        scores[fold == f] = x[pair.rows[fold == f]] @ weights
    return Scored(pair, scores, fold)


def main(arguments: list[str] | None = None) -> None:
    """Run one of the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["panel", "arms", "clock", "coverage"])
    parser.add_argument("--medmnist", type=Path, help="an .npz file of MedMNIST")
    parser.add_argument("--run", type=Path, help="a run whose ingest and generate are finished")
    parser.add_argument("--old", type=Path, help="an earlier checkout, for clock")
    parser.add_argument("--weights", type=Path, help="torchvision's ResNet weights, for panel")
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--kind", choices=["small", "resnet18"], default="small")
    parser.add_argument("--full", action="store_true", help="all arms")
    parser.add_argument("--ceiling", type=int, default=200_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draws", type=int, default=1000, help="simulations of each cell of coverage")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    where = torch.cuda.get_device_name() if options.device == "cuda" else f"{torch.get_num_threads()} threads"
    say(f"{options.what} on {where}, torch {torch.__version__}")
    if options.what == "coverage":
        found = coverage(options)
    else:
        if (options.medmnist is None) == (options.run is None):
            parser.error("give --medmnist FILE or --run FOLDER")
        sets, names = medmnist(options.medmnist) if options.medmnist else run_folder(options.run)
        say(", ".join(f"{name} {len(part)}" for name, part in sets.items()))
        found = {"panel": panel_table, "arms": arms_table, "clock": clock}[options.what](options, sets, names)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"judges_{options.what}.json"
    path.write_text(json.dumps(to_json({"command": sys.argv[1:], "where": where} | {"found": found}), indent=1))
    say(f"written to {path}")


if __name__ == "__main__":
    main()
