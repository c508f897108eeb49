"""What would other sampling settings make of a finished run's images? By class: how well plain features tell them, and how often they are
recognised; and how their power at each spatial frequency stands to that of real images.

A screen, on the sealed images that the run's own evaluation used: whatever is chosen by it is to be confirmed on another seed. With
``--panel``, how far the whole panel finds them above its floor, on the same halvings for all settings.

    python -m tests.benchmarks.sampling_screen RUN "generate.guidance_scale=4" "generate.guidance_scale=3 generate.steps=40" --out results
"""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation import panel
from evaluation.classifiers import Classifier
from evaluation.data import Labelled
from evaluation.intervals import to_json
from evaluation.metrics import Floats, auc
from evaluation.plain_features import BANDS, feature_names, plain_features
from pipeline import runtime
from pipeline.conditions import Conditions
from pipeline.config import Config
from pipeline.denoiser import load_denoiser
from pipeline.evaluate import JUDGES, labelled, load_judges
from pipeline.generate import Sampling, load_mixture, starts_on_mixture
from pipeline.images import ImageSet
from pipeline.wanted import wanted
from tests.benchmarks import report

BENCHMARK = "sampling_screen"
Row = dict[str, Any]


def screened(real: Labelled, made: Labelled, judges: Sequence[Classifier], names: Sequence[str]) -> Row:
    """What is seen of synthetic images ``made`` beside sealed ones: by class, and the power ratio in :data:`~plain_features.BANDS` rings.

    Told is the AUC of the panel's judge by plain features, within each class, at as many images a side as both have.
    """
    features = plain_features(np.concatenate([real.unit, made.unit]))
    pool = Labelled(
        np.concatenate([real.unit, made.unit]),
        np.concatenate([real.findings, made.findings]),
        np.concatenate([np.unique(real.groups, return_inverse=True)[1], len(real) + np.arange(len(made))]),
    )
    seen = np.mean([one.predict(made.unit) for one in judges], axis=0).argmax(axis=1) if judges else None
    by_class: dict[str, Row] = {}
    powers: list[Floats] = []
    is_power = [name.startswith("power at") for name in feature_names(pool.unit.shape[1])]
    for k, name in enumerate(names):
        sides = [np.flatnonzero(made.labels == k) + len(real), np.flatnonzero(real.labels == k)]
        n = min(map(len, sides))
        rng = np.random.default_rng(k)
        pair = panel.Pair(*(rng.permutation(rows)[:n] for rows in sides))
        (scored,) = panel._linear(features, pool, [pair], panel.FOLDS["plain"], rng)
        by_class[name] = {"n": n, "told": auc(scored.scores, pair.positive)}
        if seen is not None:
            by_class[name]["recognised"] = float((seen[made.labels == k] == k).mean())
        one, other = (np.exp(features[rows][:, is_power]).mean(axis=0) for rows in sides)
        powers.append(one / other)
    return {
        "by_class": by_class,
        "told": float(np.mean([one["told"] for one in by_class.values()])),
        "power": np.mean(powers, axis=0).tolist(),
    }


def made_with(config: Config, run: Path, per_class: int) -> Labelled:
    """Images of a run's model under other sampling settings."""
    section = config.generate.model_copy(update={"per_class": per_class})
    device = runtime.device()
    denoiser, model = load_denoiser(run / "train", device)
    asked = wanted(config.model_copy(update={"generate": section}), Conditions.of_model(model))
    mixture = load_mixture(run / "train") if starts_on_mixture(section) else None
    sampling = Sampling(denoiser, model, section, device, None, mixture, len(asked))
    starts = range(0, len(asked), section.batch)
    images = np.concatenate([sampling.make(asked.take(slice(start, start + section.batch))) for start in starts])
    return Labelled(images.astype(np.float32) / 127.5 - 1, asked.findings, np.arange(len(asked)))


def panelled(real: Labelled, made: Labelled, names: tuple[str, ...], ceiling: int) -> Row:
    """What the panel says of images, and of real halves, on halvings and networks of the same seeds for all settings."""
    rng, device = np.random.default_rng(0), runtime.device()
    found = panel.panel(real, made, names, spaces={"plain": plain_features}, splits=5, ceiling=ceiling, rng=rng, device=device)
    return {key: to_json(found.get(key)) for key in ("synthetic", "floor", "difference", "judges", "unfit")}


def table(rows: Sequence[Row]) -> str:
    """The settings, one a line."""
    names = list(rows[0]["by_class"])
    by_class = [f"{name}: {what}" for what in ("told", "recognised") for name in names]
    header = ["settings", "told (mean)", *by_class, "power, coarse to fine"]
    lines = []
    for row in rows:
        facts = [row["by_class"][name] for name in names]
        cells = [one["told"] for one in facts] + [one.get("recognised", float("nan")) for one in facts]
        lines.append([row["settings"], row["told"], *cells, " ".join(f"{value:.2f}" for value in row["power"])])
    return report.markdown(header, lines)


def main() -> None:
    """Measure every settings, then print them."""
    from pipeline.config import load_config

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run of one class an image; judges recognise where it was evaluated")
    parser.add_argument("settings", nargs="+", help="SECTION.KEY=VALUE, several in one argument")
    parser.add_argument("--config", default="quickstart", help="the run's configuration")
    parser.add_argument("--per-class", type=int, default=150)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE", help="for all of them")
    parser.add_argument("--panel", type=int, default=0, metavar="IMAGES", help="images in training each network of the panel, at the most")
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args()
    runtime.limit_threads()
    everyone = ImageSet.load(options.run / "ingest")
    real, record = labelled(everyone.split("audit")), report.Record(options.out, BENCHMARK, report.facts() | {"bands": BANDS})
    for settings in options.settings:
        config = load_config(options.config, [*options.overrides, *shlex.split(settings)])
        path = options.run / "evaluate" / JUDGES
        judges = load_judges(path, config.evaluate.classifier, runtime.device()) if path.exists() else []
        began = time.perf_counter()
        made = made_with(config, options.run, options.per_class)
        row = {"settings": settings, "seconds": round(time.perf_counter() - began)} | screened(real, made, judges, everyone.classes)
        if options.panel:
            row["panel"] = panelled(real, made, everyone.classes, options.panel)
        record.add(row)
        print(f"{settings}: told {row['told']:.3f}, panel {row.get('panel')}", flush=True)
    print(table(record.content["rows"]))


if __name__ == "__main__":
    main()
