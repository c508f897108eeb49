"""The frontier benchmark, through at tiny size, and where it says that `auto` stops."""

import numpy as np
import pytest
from trainings import cohort

from tests.benchmarks import frontier, report

WORDS = ["--config", "quickstart", "--tiny", "--images", "320", "--per-class", "4", "--classifier-images", "64", "--set"]
WORDS += ["generate.guidance_scale=1"]


@pytest.mark.slow
def test_it_trains_on_halves_in_place_attacks_each_with_the_others_and_draws(tmp_path, monkeypatch, capsys):
    images = cohort()
    monkeypatch.setattr(
        frontier.quality, "load_sets", lambda config: {name: images.split(name) for name in ("train", "audit", "val", "test")}
    )
    monkeypatch.setattr(frontier.fit_recipe, "FEWEST", 4)
    out = ["--out", str(tmp_path)]
    for first in ("0", "1"):  # as two devices share them
        frontier.main([*WORDS, *out, "--first", first, "--every", "2", "--trainings", "2", "--judged", "1"])
    rows = [row for one in report.load(tmp_path, frontier.BENCHMARK) for row in one["rows"] if "training" in row]
    lengths = sorted({row["images"] for row in rows})
    assert lengths[-1] == 320
    assert sorted((row["training"], row["images"]) for row in rows) == [(n, length) for n in range(4) for length in lengths]
    assert all(("copies" in row) == (row["training"] == 0) for row in rows)
    assert all(row["kept"] <= row["images"] for row in rows)
    capsys.readouterr()
    frontier.main(["--table", *out])
    told = capsys.readouterr().out
    assert told.count("\n| 320 |") == 1
    points, facts = frontier.points_of(tmp_path)
    assert facts["trainings"] == 4
    assert all(0 <= point["membership"] <= 1 for point in points)
    assert (tmp_path / "frontier_cohort.png").stat().st_size > 10_000
    one = dict(np.load(tmp_path / "frontier_003.npz"))
    np.savez(tmp_path / "frontier_003.npz", **one | {"pool": "another"})
    with pytest.raises(SystemExit, match="of different images"):
        frontier.points_of(tmp_path)
