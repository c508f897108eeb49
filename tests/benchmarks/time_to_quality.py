"""How good are the images after so many seconds of training? Our recipe and the peers', judged at several times of one training.

Every recipe trains on the same real images of PneumoniaMNIST, and is judged by the evaluate and audit stages' own measures against the
sealed ``audit`` images, which no generator and no encoder saw. Samples and figures go to ``--out``, where several runs make one table:

    python -m tests.benchmarks.time_to_quality --data FOLDER --peers --seeds 0,1,2 --out results
    python -m tests.benchmarks.time_to_quality --data FOLDER --no-judge --seeds 0 --out results     # train and generate only
    python -m tests.benchmarks.time_to_quality --data FOLDER --judge --workers 3 --out results      # judge what is there
    python -m tests.benchmarks.time_to_quality --out results --table

To compare settings quickly: ``--quick --seconds 30 --variant "wide:train.widths=[192,384]" --variant "steps8:generate.steps=8"``.
Variants that differ only in ``generate`` share one training.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline import runtime
from pipeline.config import Config
from pipeline.images import ImageSet
from tests.benchmarks import judge as judging
from tests.benchmarks import peer_training, quality, report
from tests.benchmarks.quality import Samples, Trained
from tests.benchmarks.quality_table import BENCHMARK, OURS, PEERS, REFERENCE, all_rows, headline, print_tables


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    quality.common_options(parser)
    parser.add_argument("--seconds", type=numbers, default=None, help="times of our snapshots (default 3,6,15,60,300)")
    parser.add_argument("--peer-seconds", type=numbers, default=None, help="times of the peers' snapshots (default 60)")
    parser.add_argument("--seeds", type=numbers, default=[0.0], help="seeds of the generators, such as 0,1,2")
    parser.add_argument("--peers", action="store_true", help="train the peers too")
    parser.add_argument("--only", choices=["ours", *PEERS], help="train this recipe alone")
    parser.add_argument("--variant", action="append", default=[], metavar="NAME:KEY=VALUE;KEY=VALUE", help="our recipe with other settings")
    parser.add_argument("--weights", type=Path, help="also keep our snapshots' weights in this folder, for the other benchmarks")
    parser.add_argument("--quick", action="store_true", help="judge by the Fréchet distance and one small two-sample test only")
    parser.add_argument("--no-judge", action="store_true", help="train and generate, and leave the judging to a later call")
    parser.add_argument("--judge", action="store_true", help="train nothing: judge the samples in --out that are not judged yet")
    parser.add_argument("--workers", type=int, default=1, help="processes that judge, a share of the seeds each")
    parser.add_argument("--no-table", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.seeds = [int(seed) for seed in options.seeds]
    options.seconds = options.seconds or ([2.0, 4.0] if options.tiny else [3.0, 6.0, 15.0, 60.0, 300.0])
    options.peer_seconds = options.peer_seconds or ([4.0] if options.tiny else [60.0])
    return options


def numbers(text: str) -> list[float]:
    """``3,6,15`` as a list."""
    return [float(part) for part in text.split(",")]


def recipes(options: argparse.Namespace) -> list[tuple[str, list[tuple[str, Config]]]]:
    """What to train: ``ours`` or a peer, each with the names and configurations that share the training."""
    wanted: list[tuple[str, list[tuple[str, Config]]]] = []
    if options.only in (None, "ours"):
        named = [(OURS, quality.configuration(options))] if not options.variant else []
        for variant in options.variant:
            name, _, settings = variant.partition(":")
            named.append((name, quality.configuration(options, [one for one in settings.split(";") if one])))
        groups: dict[str, list[tuple[str, Config]]] = {}
        for name, config in named:
            groups.setdefault(config.train.model_dump_json(), []).append((name, config))
        wanted += [("ours", group) for group in groups.values()]
    for key, name in PEERS.items():
        if options.only == key or (options.peers and options.only is None):
            wanted.append((key, [(name, quality.configuration(options))]))
    return wanted


def train_group(
    kind: str, named: list[tuple[str, Config]], train: ImageSet, seed: int, options: argparse.Namespace, device: str
) -> dict[str, Trained]:
    """Train ours or a peer once, with its snapshots; by name, each with its own sampling."""
    config = named[0][1]
    if kind == "ours":
        run = quality.train_ours(config, train, options.seconds, seed, device, warm=(2, 4) if options.tiny else (12, 20))
        if options.weights:
            run.save(options.weights, seed)
        return {name: run.sampled(one.generate) for name, one in named}
    sizes = peer_training.TINY if options.tiny else {}
    peer = {"edm": peer_training.edm, "textbook": peer_training.textbook}[kind]
    trained = peer(
        train,
        options.peer_seconds,
        seed,
        device,
        batch=16 if options.tiny else peer_training.TRAINED,
        compiled=config.train.compile,
        **sizes,
    )
    return {named[0][0]: trained}


def train_and_generate(options: argparse.Namespace, sets: dict[str, ImageSet], record: report.Record, device: str) -> None:
    """Train every recipe with every seed; write samples, and a row of facts for each snapshot."""
    wanted = recipes(options)
    for seed in options.seeds:
        for kind, named in wanted:
            for name, trained in train_group(kind, named, sets["train"], seed, options, device).items():
                generate(name, trained, sets["train"], seed, options, device, record)
            del trained
            gc.collect()
            torch._dynamo.reset()


def generate(
    name: str, trained: Trained, train: ImageSet, seed: int, options: argparse.Namespace, device: str, record: report.Record
) -> None:
    """Generate as many images as there are training images from every snapshot and save them; time the last snapshot's generation."""
    count = min(len(train), 200) if options.tiny else len(train)
    labels, images = quality.asked_for(train, count), {}
    for snapshot in trained.snapshots:
        images[snapshot.asked] = trained.generate(snapshot.state, labels, quality.image_seeds(seed, count))
        row = {"row": "trained", "recipe": name, "seed": seed, "asked": snapshot.asked, "made": quality.digest(images[snapshot.asked])}
        row |= {"seconds": snapshot.seconds, "images": snapshot.images, "facts": trained.facts}
        if snapshot is trained.snapshots[-1] and seed == options.seeds[0]:
            timed = 100 if options.tiny else quality.TIMED
            asked = quality.asked_for(train, timed), quality.image_seeds(seed, timed)
            row |= {"generated": timed, "generate_seconds": quality.time_generation(trained, snapshot.state, *asked, device)}
        record.add(row)
        timing = f", {row['generated']} images in {row['generate_seconds']:.2f} s" if "generated" in row else ""
        print(f"{name}, seed {seed}: trained on {snapshot.images} images in {snapshot.seconds:.1f} s{timing}", flush=True)
    Samples(labels, images).save(options.out, name, seed)


def judge_all(options: argparse.Namespace, sets: dict[str, ImageSet], record: report.Record, device: str) -> None:
    """Judge every sample in ``--out`` of the seeds asked for that has no judgement by the same protocol yet."""
    protocol = judging.TINY if options.tiny else judging.QUICK if options.quick else judging.Protocol()
    if options.classifier_images:
        protocol = dataclasses.replace(protocol, images_seen=options.classifier_images)
    rows = all_rows(options.out, options.tiny)
    by = dataclasses.asdict(protocol)
    done = {(row["recipe"], row["seed"], row["made"]) for row in rows if row["row"] == "judged" and row["protocol"] == by}
    for seed in options.seeds:
        waiting = [one for one in samples_of(options.out, rows, seed) if (one[0], seed, quality.digest(one[2])) not in done]
        if not waiting:
            continue
        began = time.perf_counter()
        judge = judging.Judge(sets, quality.asked_for(sets["train"], len(waiting[0][2])), seed, protocol, device)
        print(f"judge of seed {seed} ready after {time.perf_counter() - began:.1f} s", flush=True)
        real = np.asarray(sets["train"].images[quality.shuffled(sets["train"])[: len(judge.labels)]])
        for name, asked, images in [(REFERENCE, 0.0, real), *waiting]:
            began = time.perf_counter()
            result = judge(images, copies=name != REFERENCE)
            took = time.perf_counter() - began
            row = {"row": "judged", "recipe": name, "seed": seed, "asked": asked, "made": quality.digest(images), "protocol": by}
            record.add(row | {"judged_in": took, "result": result})
            print(f"judged {name}, seed {seed}, {asked:g} s, in {took:.1f} s: {headline(result)}", flush=True)


def samples_of(folder: Path, rows: list[dict[str, Any]], seed: int) -> Iterator[tuple[str, float, np.ndarray]]:
    """Recipe, time and images of all samples of a seed in the folder."""
    for name in sorted({row["recipe"] for row in rows if row["row"] == "trained" and row["seed"] == seed}):
        if Samples.path(folder, name, seed).exists():
            for asked, images in Samples.load(folder, name, seed).images.items():
                yield name, asked, images


def spread_out(options: argparse.Namespace) -> None:
    """Judge in several processes, each with a share of the seeds, all on the same device."""
    shares = [options.seeds[number :: options.workers] for number in range(min(options.workers, len(options.seeds)))]
    # The last of repeated options counts.
    command = [sys.executable, "-m", "tests.benchmarks.time_to_quality", *sys.argv[1:], "--judge", "--workers", "1", "--no-table"]
    running = [subprocess.Popen([*command, "--seeds", ",".join(map(str, share))]) for share in shares]
    if any([process.wait() for process in running]):
        raise SystemExit("a judging process failed; what the others judged is kept")


def main() -> None:
    """Train, generate, judge, and print what all records say."""
    options = parse()
    runtime.limit_threads()
    device = runtime.device()
    if not options.table:
        sets = quality.load_sets(quality.configuration(options))
        about = report.facts() | {"n": {name: len(images) for name, images in sets.items()}, "tiny": options.tiny}
        record = report.Record(options.out, BENCHMARK, about)
        if not options.judge:
            train_and_generate(options, sets, record, device)
        if not options.no_judge and options.workers > 1 and len(options.seeds) > 1:
            spread_out(options)
        elif not options.no_judge:
            judge_all(options, sets, record, device)
    if not options.no_table:
        print_tables(options.out, options.tiny)


if __name__ == "__main__":
    main()
