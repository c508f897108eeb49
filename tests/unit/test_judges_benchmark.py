import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import judges


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A set in MedMNIST's layout."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name, n in (("train", 120), ("val", 20), ("test", 40)):
        labels = np.arange(n) % 2
        arrays[f"{name}_images"] = (rng.integers(0, 120, (n, 16, 16)) + 100 * labels[:, None, None]).astype(np.uint8)
        arrays[f"{name}_labels"] = labels[:, None].astype(np.uint8)
    np.savez(tmp_path / "some.npz", **arrays)
    return tmp_path / "some.npz"


@pytest.mark.parametrize("what", ["panel", "arms", "clock"])
def test_the_benchmark_runs_from_an_archive_alone_and_writes_its_results(
    what: str, archive: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    every = judges.candidates
    monkeypatch.setattr(judges, "candidates", lambda sets, rng: itertools.islice(every(sets, rng), 1))
    out = archive.parent / "results"
    judges.main([what, "--medmnist", str(archive), "--ceiling", "64", "--seeds", "1", "--device", "cpu", "--out", str(out)])
    found = json.loads((out / f"judges_{what}.json").read_text())["found"]
    assert found
    assert "written to" in capsys.readouterr().out
    if what == "panel":
        assert found["other real images (truth: at the floor)"]["n"] >= 10


def test_simulated_intervals_hold_their_truth(tmp_path: Path) -> None:
    judges.main(["coverage", "--draws", "6", "--seeds", "2", "--out", str(tmp_path)])
    cells = json.loads((tmp_path / "judges_coverage.json").read_text())["found"]
    assert np.mean([cell["held"] for cell in cells.values()]) > 0.85
    assert max(cell["truth"] for cell in cells.values()) > 0.25
