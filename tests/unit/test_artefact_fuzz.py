"""Artefacts with random damage, read without the records that would have told: one line, or a value of the right kind, never a traceback.

Thousands of seeded mutations, each with ten seconds, and all together within a gigabyte.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_facts import MODEL
from release_run import config
from rich.console import Console
from safetensors.torch import save_file

from pipeline import artifacts, runner, tensors
from pipeline.denoiser import build_denoiser, load_denoiser
from pipeline.errors import InputError
from pipeline.generate import load_mixture
from pipeline.images import ImageSet, unit_of
from pipeline.show import show

SMALLER = MODEL | {
    "network": {"widths": [16], "blocks": 1, "patch": 4, "attention": [], "dropout": 0.0},
    "upsample": "convolve",
    "ema": {"widths": [0.05, 0.1], "steps": []},
}
TOKENS = [
    b"null",
    b"-1",
    b"1e308",
    b"9" * 25,
    b"NaN",
    b"[]",
    b"{}",
    b'""',
    b"true",
    b"\\ud800",
    b"\x00",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
]


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three of: bits flipped, bytes overwritten, cut, repeated, inserted or swapped, numbers changed, the rest dropped."""
    found = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        start = int(rng.integers(len(found) + 1) if rng.random() < 0.6 else min(len(found), rng.integers(300)))
        length = int(rng.integers(1, 40))
        kind = int(rng.integers(8))
        if kind == 0 and found:
            found[start % len(found)] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            found[start : start + length] = rng.integers(256, size=length, dtype=np.uint8).tobytes()
        elif kind == 2:
            del found[start : start + length]
        elif kind == 3:
            found[start:start] = found[start : start + length] * int(rng.integers(1, 20))
        elif kind == 4:
            found[start : start + int(rng.integers(6))] = TOKENS[int(rng.integers(len(TOKENS)))]
        elif kind == 5:
            del found[start:]
        elif kind == 6:
            digits = [place for place, byte in enumerate(found[:4000]) if 48 <= byte <= 57]
            if digits:
                found[digits[int(rng.integers(len(digits)))]] = 48 + int(rng.integers(10))
        else:
            found[start : start + length] = found[start : start + length][::-1]
    return bytes(found)


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Ten seconds; what takes longer raises TimeoutError."""

    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(10)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def refusal(read: Callable[[], Any]) -> str:
    try:
        read()
    except InputError as error:
        return str(error)
    return ""


def fuzz(path: Path, read: Callable[[], Any], count: int, seed: int) -> tuple[int, int]:
    """Read ``count`` mutations of a file; how many were refused, and how many were read."""
    original, rng = path.read_bytes(), np.random.default_rng(seed)
    outcomes = [0, 0]
    for _ in range(count):
        path.write_bytes(mutated(original, rng))
        with bounded():
            said = refusal(read)
        assert "\n" not in said
        outcomes[not said] += 1
    path.write_bytes(original)
    return outcomes[0], outcomes[1]


@pytest.fixture(autouse=True)
def within_a_gigabyte() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20


@pytest.fixture
def run(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "run"))


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    folder = tmp_path / "train"
    folder.mkdir()
    torch.manual_seed(0)
    save_file({name: value.contiguous() for name, value in build_denoiser(SMALLER).state_dict().items()}, folder / "model.safetensors")
    (folder / "model.json").write_text(json.dumps(SMALLER, indent=1))
    mixture = {"first": torch.zeros(2, dtype=torch.int64), "bounds": torch.zeros(2, 2), "means": torch.zeros(2, 1, 4, 4)}
    mixture |= {
        "components": torch.zeros(1, 1, 4, 4),
        "axes": torch.zeros(2, 1, 1),
        "deviations": torch.zeros(2, 1),
        "rest": torch.ones(()),
    }
    save_file(mixture, folder / "mixture.safetensors")
    return folder


def pixels(folder: Path) -> None:
    """Read images as the stages do."""
    images = ImageSet.load(folder)
    np.asarray(images.images[:4])
    images.classes, images.findings, images.labels  # noqa: B018


@pytest.mark.parametrize(("name", "count"), [("images-00000.npy", 400), ("rows.parquet", 500)])
@pytest.mark.parametrize("stage", ["ingest"])
def test_images_and_rows(run: Path, stage: str, name: str, count: int) -> None:
    refused, _ = fuzz(run / stage / name, functools.partial(pixels, run / stage), count, 1)
    assert refused > 20


@pytest.mark.parametrize(("name", "count"), [("model.json", 400), ("model.safetensors", 250)])
def test_a_model(trained: Path, name: str, count: int) -> None:
    refused, _ = fuzz(trained / name, functools.partial(load_denoiser, trained, "cpu"), count, 2)
    assert refused > 20


def test_a_mixture_and_other_tensors(trained: Path) -> None:
    refused, _ = fuzz(trained / "mixture.safetensors", functools.partial(load_mixture, trained), 200, 3)
    assert refused > 20
    fuzz(trained / "mixture.safetensors", functools.partial(tensors.read, trained / "mixture.safetensors"), 100, 4)


def test_records(run: Path) -> None:
    refused, taken = fuzz(run / "audit" / "record.json", functools.partial(artifacts.load_record, run / "audit"), 500, 5)
    assert refused > 450
    assert taken < 20  # blanks between the entries


def test_a_plan_over_a_damaged_record(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fuzz(run / "train" / "record.json", functools.partial(runner.plan, config(), run, {"ingest": {"source": "source-digest"}}), 100, 6)


def test_facts(run: Path) -> None:
    fuzz(run / "ingest" / "cohort.json", functools.partial(unit_of, run / "ingest"), 200, 7)


@pytest.mark.parametrize("name", ["audit/audit.json", "evaluate/evaluation.json", "stress/stress.json"])
def test_what_is_shown_of_results_that_were_edited_with_their_record(run: Path, name: str) -> None:
    stage, file = name.split("/")
    record = json.loads((run / stage / "record.json").read_text())

    def look() -> None:
        facts = {name: record[name] for name in ("summary", "seconds")}
        artifacts.publish(run / stage, record["identity"], **facts)
        show(run, Console(file=io.StringIO(), width=150))

    fuzz(run / stage / file, look, 60, 8)


VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    10**30,
    1e308,
    "",
    "x" * 500,
    "[bold",
    "[/]",
    "\x1b[2J",
    [],
    {},
    [None],
    [[]],
    {"value": []},
    {"low": "x"},
]


def places(tree: Any) -> list[tuple[Any, Any]]:
    """Every container and key of a JSON value."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else []
    return [(tree, key) for key in keys] + [place for key in keys for place in places(tree[key])]


@pytest.mark.parametrize(
    "name", ["audit/audit.json", "evaluate/evaluation.json", "stress/stress.json", "ingest/cohort.json", "train/record.json"]
)
def test_what_is_shown_of_values_of_the_wrong_kind(run: Path, name: str) -> None:
    stage, file = name.split("/")
    record = json.loads((run / stage / "record.json").read_text())
    rng = np.random.default_rng(9)
    original = (run / stage / file).read_text() if file != "record.json" else json.dumps({"summary": record["summary"], "seconds": 1.5})
    for _ in range(80):
        tree = json.loads(original)
        for _ in range(int(rng.integers(1, 4))):
            found = places(tree)
            if found:
                container, key = found[int(rng.integers(len(found)))]
                container[key] = VALUES[int(rng.integers(len(VALUES)))]
        facts = tree if file == "record.json" else {"summary": record["summary"], "seconds": 1.5}
        if file != "record.json":
            (run / stage / file).write_text(json.dumps(tree))
        artifacts.publish(run / stage, record["identity"], **facts)
        with bounded():
            assert "\n" not in refusal(functools.partial(show, run, Console(file=io.StringIO(), width=150)))
