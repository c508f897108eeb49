"""The benchmarks' bookkeeping: work counted as torch counts it, equal work enforced, runs merged; and one run through at tiny size."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.diffusion.conditioning import Condition
from pipeline.diffusion.unet import UNet
from tests.benchmarks import denoiser_cpu, denoiser_speed, report, speed_cases
from tests.benchmarks.speed_cases import EQUAL_WORK, Case, UnequalWork, build, check_work, forward_work, parse_spec

TINY = Case("ours", 16, 4, speed_cases.TINY, tiny=True)


def test_a_spec_gives_the_arguments_of_our_network():
    assert parse_spec("widths=256,512;blocks=3;patch=2;attention=16;dropout=0.1") == {
        "widths": (256, 512),
        "blocks": 3,
        "patch": 2,
        "attention": (16,),
        "dropout": 0.1,
    }
    assert parse_spec("widths=16;attention=")["attention"] == ()
    with pytest.raises(ValueError, match="key=value"):
        parse_spec("widths=16;blocks")


def test_work_is_counted_as_by_torch_on_a_real_batch_and_leaves_the_network_where_it_is():
    network = UNet(channels=1, classes=2, size=16, **parse_spec(speed_cases.TINY))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(3, 1, 24, 24), torch.zeros(3), Condition.of_classes(torch.zeros(3), 2))
    assert forward_work(network, 24) * 3 == counter.get_total_flops()
    assert next(network.parameters()).device.type == "cpu"


def test_work_of_one_convolution_is_two_operations_a_multiply_add():
    class One(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 5, 3, padding=1)

        def forward(self, x, c_noise, condition):
            return self.conv(x)

    assert forward_work(One(), 8) == 2 * 8 * 8 * 5 * 9


def test_unequal_work_is_refused_and_so_is_a_size_without_a_peer():
    for size, work in EQUAL_WORK.items():
        check_work(work * 0.951, size)
        check_work(work * 1.049, size)
        with pytest.raises(UnequalWork, match="equal work"):
            check_work(work * 1.051, size)
        with pytest.raises(UnequalWork, match="equal work"):
            check_work(work * 0.949, size)
    with pytest.raises(UnequalWork, match="48 px"):
        check_work(1e9, 48)


@pytest.mark.parametrize(("network", "module"), [("ours", "torch"), ("monai", "einops"), ("diffusers", "diffusers")])
def test_what_is_compared_does_equal_work_at_every_size(network, module):
    pytest.importorskip(module)
    with torch.device("meta"):
        made = build(Case(network, 64, 1))
    for size, expected in EQUAL_WORK.items():
        work = forward_work(made, size)
        check_work(work, size)
        if network == "monai":
            assert work == pytest.approx(expected, rel=0.005)


def record(date, rows):
    return {"facts": {"date": date, "hardware": "a GPU", "torch": "2", "ceiling": {"bf16": 1e15}}, "rows": rows}


def row(network, train, forward=None, size=64, **more):
    speeds = {"train": {"median": train, "low": train - 1, "high": train + 2}}
    if forward is not None:
        speeds["forward"] = {"median": forward, "low": forward - 3, "high": forward + 4}
    fixed = {"batch": 256, "gflop": 50.0, "parameters": 10**6, "precision": "bf16", "compiled": True}
    return {"network": network, "size": size, **fixed, **speeds, **more}


def test_runs_merge_to_medians_with_ratios_taken_within_a_run():
    # The second run's machine is half as fast, which no ratio may show.
    records = [
        record("1", [row("ours", 3000.0, 9000.0), row("monai", 1500.0, 6000.0), row("monai-unfused", 1200.0, 6600.0)]),
        record("2", [row("ours", 1600.0, 4500.0), row("monai", 750.0, 3000.0), {"network": "diffusers", "size": 64, "error": "broke"}]),
    ]
    merged = {one["network"]: one for one in denoiser_speed.merge(records)}
    ours = merged["ours"]
    assert ours["runs"] == 2
    assert ours["train"]["median"] == pytest.approx(2300)
    assert (ours["train"]["low"], ours["train"]["high"]) == (1599, 3002)
    assert ours["train"]["ratio"] == pytest.approx(np.median([3000 / 1500, 1600 / 750]))
    assert ours["forward"]["ratio"] == pytest.approx(np.median([9000 / 6600, 4500 / 3000]))
    assert ours["train"]["share"] == pytest.approx(np.median([3 * 50e9 * 3000 / 1e15, 3 * 50e9 * 1600 / 1e15]))
    assert ours["forward"]["share"] == pytest.approx(np.median([50e9 * 9000 / 1e15, 50e9 * 4500 / 1e15]))
    assert "diffusers" not in merged
    assert "failed: diffusers at 64 px: broke" in denoiser_speed.table(records)


def test_a_ratio_across_runs_is_marked_and_sizes_are_kept_apart():
    records = [record("1", [row("training", 2000.0), row("ours", 10.0, 10.0, size=32)]), record("2", [row("monai", 1000.0, 1000.0)])]
    merged = {(one["network"], one["size"]): one for one in denoiser_speed.merge(records)}
    assert merged["training", 64]["train"]["ratio"] == pytest.approx(2)
    assert merged["training", 64]["train"]["across"]
    assert "forward" not in merged["training", 64]
    assert merged["ours", 32]["train"]["ratio"] is None
    assert "2.00 (other run)" in denoiser_speed.table(records)


def test_records_of_one_folder_are_read_back_by_benchmark_oldest_first(tmp_path):
    for name, date in (("speed", "2030-01-02"), ("other", "2030-01-01")):
        written = report.Record(tmp_path, name, {"date": date})
        written.add({"network": "a"})
        written.add({"network": "b"})
    (tmp_path / "speed_early.json").write_text(json.dumps({"benchmark": "speed", "facts": {"date": "2029-01-01"}, "rows": []}))
    (tmp_path / "speed_notes.json").write_text("[]")
    found = report.load(tmp_path, "speed")
    assert [one["facts"]["date"] for one in found] == ["2029-01-01", "2030-01-02"]
    assert found[1]["rows"] == [{"network": "a"}, {"network": "b"}]


def test_records_begun_within_a_second_by_one_process_stand_side_by_side_in_the_order_of_their_beginning(tmp_path):
    records = [report.Record(tmp_path, "speed", {"date": "2030-01-01"}) for _ in range(3)]
    for number in (1, 0, 2):
        records[number].add({"number": number})
    assert report.rows(tmp_path, "speed") == [{"number": 0}, {"number": 1}, {"number": 2}]


def test_a_table_shows_three_digits_and_a_dash_for_nothing():
    assert report.markdown(["a", "b"], [[1234.56, None], ["x", 0.12345]]).splitlines() == [
        "| a | b |",
        "| --- | --- |",
        "| 1235 | – |",
        "| x | 0.123 |",
    ]


def test_timings_count_the_steps_they_took():
    taken = []

    def steps(count):
        taken.append(count)
        torch.ones(200, 200) @ torch.ones(200, 200)

    found = speed_cases.timings(steps, 8, "cpu", repeats=3, seconds=0.01)
    assert len(taken) == 5  # warm-up, estimate, three timings
    assert len(set(taken[2:])) == 1
    assert 0 < found["low"] <= found["median"] <= found["high"]


def test_a_case_is_counted_and_timed_and_refused_where_its_work_is_unequal():
    case = dataclasses.replace(TINY, check=False, seconds=0.01, repeats=1)
    for network in ("ours", "training"):
        found = speed_cases.measure(case, speed_cases.prepare(dataclasses.replace(case, network=network), "cpu"), "cpu")
        assert found["gflop"] == forward_work(build(TINY), 16) / 1e9
        assert found["parameters"] == sum(p.numel() for p in build(TINY).parameters())
        assert found["train"]["median"] > 0
        assert ("forward" in found) == (network == "ours")
    with pytest.raises(UnequalWork):
        speed_cases.prepare(dataclasses.replace(case, check=True, size=64), "cpu")


def test_what_finds_no_memory_beside_others_is_tried_again(monkeypatch):
    monkeypatch.setattr(speed_cases.time, "sleep", lambda seconds: None)
    left = [2, 0]

    def crowded(count):
        left[0] -= 1
        if left[0] >= 0:
            raise torch.OutOfMemoryError("full")
        left[1] += count

    speed_cases.warm_up(speed_cases.Prepared({}, crowded, None), "cpu")
    assert left == [-1, 5]
    left[0] = 5
    with pytest.raises(torch.OutOfMemoryError):
        speed_cases.warm_up(speed_cases.Prepared({}, crowded, None), "cpu", tries=3)


@pytest.mark.slow
def test_a_case_that_fails_is_reported_and_the_others_stay(tmp_path):
    case = dataclasses.replace(TINY, check=False, seconds=0.01, repeats=1)
    cases = [dataclasses.replace(case, check=True, size=64), case]
    failed = denoiser_speed.run(cases, report.Record(tmp_path, "denoiser_speed", {"date": "now"}), jobs=2)
    assert len(failed) == 1
    assert "equal work" in failed[0]["error"]
    (kept,) = report.load(tmp_path, "denoiser_speed")
    assert [("error" in one, "train" in one) for one in kept["rows"]] == [(True, False), (False, True)]


@pytest.mark.slow
def test_the_benchmark_runs_through_at_tiny_size(tmp_path):
    command = [sys.executable, "-m", "tests.benchmarks.denoiser_speed", "--tiny", "--out", str(tmp_path), "--repeats", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (kept,) = report.load(tmp_path, "denoiser_speed")
    assert [one["network"] for one in kept["rows"]] == ["ours", "training"]
    expected = forward_work(build(TINY), 16) / 1e9
    assert all(one["gflop"] == pytest.approx(expected) for one in kept["rows"])
    assert kept["facts"]["ceiling"]["fp32"] > 0


def test_cpu_speeds_are_taken_in_turn_and_compared_round_by_round():
    order = []
    kinds = {name: lambda count, name=name: order.append(name) for name in ("ours", "peer")}
    rates = denoiser_cpu.in_turn(kinds, 8, rounds=3, seconds=0.0)
    assert order == ["ours"] * 2 + ["peer"] * 2 + ["ours", "peer"] * 3  # warm-up and estimate of each, then the rounds
    assert [len(rates[name]) for name in kinds] == [3, 3]

    def speed(recipe, train):
        return {"kind": "speed", "recipe": recipe, "parameters": 10**6, "gflop": 0.2, "train": train}

    # The machine halves in the second round; the slower MONAI is no yardstick.
    rows = [speed("ours", [400.0, 200.0, 420.0]), speed("MONAI, a", [100.0, 50.0, 100.0]), speed("MONAI, b", [10.0, 10.0, 10.0])]
    printed = denoiser_cpu.table([{"facts": {"date": "1", "hardware": "a CPU", "torch": "2"}, "rows": rows}])
    (line,) = [line for line in printed.splitlines() if line.startswith("| ours |")]
    assert line == "| ours | 1 | 0.2 | 400 (200–420) | 4.00 (4.00–4.20) | – | – |"
