"""The quality benchmarks' own arithmetic: the clock, the records, the judge and the findings."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.config import GenerateConfig
from pipeline.images import ImageSet
from tests.benchmarks import curves, quality, quality_table, report, steps_vs_quality, time_to_quality
from tests.benchmarks import judge as judging
from tests.benchmarks.quality import Samples, take_snapshots


class Fake:
    """A training on a clock of its own: the first step compiles for 100 s, a step takes 0.1 s, a snapshot 50 s."""

    def __init__(self, end: int = 10**9) -> None:
        self.now, self.steps, self.end, self.planned = 0.0, 0, end, [0]

    def clock(self) -> float:
        return self.now

    def advance(self, steps: int) -> int:
        steps = min(steps, self.end - self.steps)
        self.now += 0.1 * steps + (100 if self.steps == 0 else 0)
        self.steps += steps
        return steps

    def snapshot(self) -> quality.State:
        self.now += 50
        return {"steps": torch.tensor(self.steps)}

    def run(self, at: list[float]) -> tuple[list[quality.Snapshot], float]:
        return take_snapshots(
            self.advance, self.snapshot, at, batch=8, device="cpu", plan=self.planned.append, warm=(3, 5), clock=self.clock
        )


def test_the_clock_counts_training_alone_and_steps_that_compile_at_the_rate_of_the_others() -> None:
    training = Fake()
    snapshots, rate = training.run([3.0, 6.0, 15.0])
    assert rate == pytest.approx(80)
    for snapshot, asked in zip(snapshots, (3, 6, 15)):
        assert snapshot.asked == asked
        assert asked <= snapshot.seconds + 1e-9 <= asked + 0.2
        assert snapshot.images == 8 * int(snapshot.state["steps"])
        assert snapshot.images == pytest.approx(80 * snapshot.seconds)
    assert training.planned[-1] == training.steps


def test_a_training_that_ends_early_still_gives_its_snapshots() -> None:
    snapshots, _ = Fake(end=40).run([3.0, 6.0])
    assert [snapshot.images for snapshot in snapshots] == [8 * 30, 8 * 40]
    assert snapshots[-1].seconds == pytest.approx(4.0)


@pytest.fixture(scope="module")
def sets() -> dict[str, ImageSet]:
    """Two classes of blobs, one image a patient; train and audit are alike."""
    rng = np.random.default_rng(0)

    def split(name: str, n: int) -> ImageSet:
        labels = np.arange(n) % 2
        places = rng.uniform(4, 12, (n, 2, 1, 1))
        y, x = np.mgrid[:16, :16]
        blobs = np.exp(-((y - places[:, 0]) ** 2 + (x - places[:, 1]) ** 2) / (6 + 12 * labels[:, None, None]))
        images = np.clip(40 + 180 * blobs + rng.normal(0, 12, blobs.shape), 0, 255).astype(np.uint8)[:, None]
        ids = [f"{name}{number}" for number in range(n)]
        rows = {"id": ids, "patient": ids, "split": name, "finding_small": labels == 0, "finding_large": labels == 1}
        return ImageSet(images, pd.DataFrame(rows))

    return {name: split(name, n) for name, n in (("train", 100), ("audit", 100), ("val", 60), ("test", 60))}


@pytest.mark.slow
def test_the_judge_tells_real_images_from_noise_and_finds_copies(sets: dict[str, ImageSet], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "ENCODER_IMAGES", 640)
    monkeypatch.setattr(judging, "PLANTED", 10)
    order = quality.shuffled(sets["train"])
    protocol = judging.Protocol(kind="small", images_seen=640, utility_seeds=2, tests=1, halvings=6, encoders=2)
    judge = judging.Judge(sets, quality.asked_for(sets["train"], 100), 0, protocol, "cpu")
    real = judge(np.asarray(sets["train"].images[order]))
    noise = np.random.default_rng(1).integers(0, 256, sets["train"].images.shape).astype(np.uint8)
    bad = judge(noise)
    assert real["frechet"]["ratio"]["value"] < 3 < bad["frechet"]["ratio"]["value"]
    assert bad["two_sample"]["synthetic"]["value"] > 0.95 > real["two_sample"]["synthetic"]["value"]
    excess = bad["two_sample"]["excess"]
    assert excess["low"] <= excess["value"] == pytest.approx(bad["two_sample"]["synthetic"]["value"] - bad["two_sample"]["floor"]["value"])
    assert real["two_sample"]["floor"] == bad["two_sample"]["floor"]
    assert (real["copies"]["flagged"], real["copies"]["verdict"]) == (100, "fail")
    assert bad["copies"]["flagged"] == 0
    assert judge.features_only(noise)["frechet"] == bad["frechet"]
    json.dumps(bad, allow_nan=False)


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 10}


def rows_of(recipe: str, asked: float, seed: int, fd: float, auc: float, protocol: str = "p", made: str = "a", **more: Any) -> list[Any]:
    key = {"recipe": recipe, "asked": asked, "seed": seed, "made": made}
    result = {
        "frechet": {"synthetic": interval(fd), "ratio": interval(fd / 0.3), "floor": interval(0.3)},
        "two_sample": {"synthetic": interval(auc), "excess": interval(auc - 0.5), "floor": interval(0.5)},
        "copies": {"flagged": 0, "of": 10, "verdict": "pass"},
    }
    judged = {"row": "judged", "protocol": {"name": protocol, "full": True}, "result": result}
    return [{"row": "trained", "seconds": asked, "images": 100} | key | more, judged | key]


def test_seeds_from_several_runs_are_merged_with_their_t_interval(tmp_path: Path) -> None:
    for seed, fd in enumerate((0.3, 0.6, 0.9)):
        record = report.Record(tmp_path, "time_to_quality", report.facts() | {"n": {}})
        record.path = record.path.with_name(f"time_to_quality_{seed}.json")
        for row in rows_of("synthcohort", 60.0, seed, fd, 0.55):
            record.add(row)
    found = quality_table.merged(quality_table.all_rows(tmp_path))
    mean, low, high = quality_table.measure(found["synthcohort", 60.0], ("frechet", "synthetic")) or (0, 0, 0)
    assert (mean, high - mean) == pytest.approx((0.6, 4.302653 * 0.3 / 3**0.5), rel=1e-5)
    assert mean - low == pytest.approx(high - mean)
    two = {seed: known for seed, known in found["synthcohort", 60.0].items() if seed < 2}
    assert quality_table.measure(two, ("frechet", "synthetic")) == pytest.approx((0.45, 0.35, 0.55))


def test_a_judgement_counts_only_for_the_images_and_the_protocol_it_was_made_of() -> None:
    rows = [*rows_of("synthcohort", 60.0, 0, 0.3, 0.5), rows_of("synthcohort", 60.0, 0, 0.9, 0.9, made="b")[0]]
    assert "result" not in quality_table.merged(rows)["synthcohort", 60.0][0]
    other = quality_table.merged(rows_of("synthcohort", 60.0, 0, 0.3, 0.5, protocol="q"), {"name": "p", "full": True})
    assert "result" not in other["synthcohort", 60.0][0]


def test_targets_are_said_to_be_reached_or_missed_or_not_measured() -> None:
    rows = rows_of("synthcohort", 6.0, 0, 0.5, 0.55) + rows_of("synthcohort", 60.0, 0, 0.36, 0.59)
    said = quality_table.targets(quality_table.merged(rows))
    assert any("after 60 s, FD ratio" in one and "reached" in one for one in said)
    assert any("after 60 s, two-sample" in one and "missed" in one for one in said)
    assert sum("after 300 s" in one and "not measured" in one for one in said) == 2
    assert "best peer" in said[4]
    assert "not measured" in said[4]
    peer = rows_of(quality_table.PEERS["edm"], 60.0, 0, 0.52, 0.56)
    assert "reached, after 6 s" in quality_table.catching_up(quality_table.merged(rows + peer))
    better = rows_of(quality_table.PEERS["edm"], 60.0, 0, 0.4, 0.59)
    assert "missed, after 60 s" in quality_table.catching_up(quality_table.merged(rows + better))
    copied = rows_of("synthcohort", 15.0, 0, 0.5, 0.55)
    copied[1]["result"]["copies"]["flagged"] = 2
    assert "missed, 2 flagged after 15 s" in quality_table.targets(quality_table.merged(rows + copied))[-1]


def test_samples_come_back_as_they_were_and_are_told_apart(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 1, 4, 4)).astype(np.uint8)
    Samples(np.arange(6), {3.0: images, 60.0: images[::-1]}).save(tmp_path, "MONAI, EDM", 2)
    found = Samples.load(tmp_path, "MONAI, EDM", 2)
    assert list(found.images) == [3.0, 60.0]
    assert (found.images[60.0] == images[::-1]).all()
    assert quality.digest(found.images[3.0]) == quality.digest(images) != quality.digest(images[::-1])


def test_batches_have_one_size_and_every_image_its_own_seed() -> None:
    sizes = []

    def make(labels: quality.Labels, seeds: list[int]) -> quality.Images:
        sizes.append(len(labels))
        return (10 * labels + np.array(seeds) % 10).astype(np.uint8)[:, None, None, None]

    made = quality.in_batches(make, np.arange(11), list(range(11)), 4)
    assert sizes == [4, 4, 4]
    assert made.ravel().tolist() == [10 * n + n % 10 for n in range(11)]
    assert quality.in_batches(make, np.arange(3), [0, 1, 2], 4).shape == (3, 1, 1, 1)
    assert sizes[-1] == 3
    assert (quality.even_batch(1500), quality.even_batch(10**6)) == (1178, quality.TIMED)


def test_variants_that_differ_in_sampling_alone_share_a_training() -> None:
    arguments = ["--tiny", "--variant", "few:generate.steps=6", "--variant", "more:generate.steps=9", "--variant", "wide:train.blocks=2"]
    options = time_to_quality.parse(arguments)
    groups = [[name for name, _ in named] for _, named in time_to_quality.recipes(options)]
    assert groups == [["few", "more"], ["wide"]]
    steps = [config.generate.steps for _, named in time_to_quality.recipes(options) for _, config in named]
    assert steps == [6, 9, 5]


@pytest.mark.parametrize("sampler", steps_vs_quality.SAMPLERS)
def test_no_sampler_takes_more_evaluations_than_it_is_asked_to(sampler: str) -> None:
    for wanted in (1, 5, 8):
        steps = steps_vs_quality.steps_for(sampler, wanted)
        counted = curves.evaluations(GenerateConfig(per_class=1, sampler=sampler, steps=steps), 0.5)
        assert wanted - 1 <= counted <= wanted


def test_a_guided_step_counts_twice_within_its_interval() -> None:
    plain = GenerateConfig(per_class=1, steps=10)
    assert curves.evaluations(plain, 0.5) == 10
    guided = plain.model_copy(update={"guidance_scale": 2.0, "guidance_interval": (0.0, float("inf"))})
    assert curves.evaluations(guided, 0.5) == curves.evaluations(guided, 0.5, guide=True) == 20
    assert 10 < curves.evaluations(guided.model_copy(update={"guidance_interval": (0.3, 30.0)}), 0.5) < 20


def test_findings_name_the_fewest_evaluations_near_the_best_and_the_gain_over_sampling_as_published() -> None:
    def point(evaluations: int, fd: float, seconds: float) -> dict[str, Any]:
        return {"evaluations": evaluations, "FD": (fd, fd, fd), "seconds": seconds}

    lines = steps_vs_quality.lines_of(
        {
            ("dpmpp_2m", "edm", 8): point(8, 0.42, 1.0),
            ("dpmpp_2m", "edm", 50): point(50, 0.40, 6.0),
            ("ddim", "ddpm_linear", 50): point(50, 0.60, 6.0),
            ("ddpm", "ddpm_linear", 1000): point(1000, 0.43, 120.0),
        }
    )
    said = "\n".join(steps_vs_quality.findings(lines))
    assert "best of all: dpmpp_2m with 50 evaluations" in said
    assert "within 5% of it: dpmpp_2m from 8" in said
    assert "ddpm, linear schedule from 1000" in said.splitlines()[2]
    assert "120.0 times as fast as ddpm, linear schedule with 1000" in said
    assert "6.0 times as fast as ddim, linear schedule with 50" in said


def test_phantoms_stand_in_for_data_only_where_tiny_sizes_are_asked_for() -> None:
    asked = argparse.Namespace(data=None, tiny=False, overrides=[])
    with pytest.raises(SystemExit, match="--data FOLDER is needed"):
        quality.configuration(asked)
