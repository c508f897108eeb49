"""The frontier benchmark: through at tiny size by processes that share its tasks, and what is said of `auto`."""

import itertools

import numpy as np
import pytest
import torch
from trainings import cohort

from tests.benchmarks import frontier, frontier_picture, report
from tests.benchmarks.claims import claimed

WORDS = ["--config", "quickstart", "--tiny", "--images", "320", "--per-class", "4", "--classifier-images", "64", "--set"]
WORDS += ["generate.guidance_scale=1", "--judged", "1"]


@pytest.fixture
def few(monkeypatch):
    """A small cohort, whose losses are looked at soon."""
    images = cohort()
    monkeypatch.setattr(
        frontier.quality, "load_sets", lambda config, kept: {name: images.split(name) for name in ("train", "audit", "val", "test")}
    )
    monkeypatch.setattr(frontier.fit_recipe, "FEWEST", 4)


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_it_trains_on_halves_in_place_attacks_each_with_the_others_and_draws(tmp_path, capsys):
    out = ["--out", str(tmp_path)]
    frontier.main([*WORDS, *out, "--trainings", "2"])
    before = frontier.trained_path(tmp_path, 1).read_bytes()
    frontier.main([*WORDS, *out, "--trainings", "5", "--judge-first"])
    assert frontier.trained_path(tmp_path, 1).read_bytes() == before
    rows = [row for one in report.load(tmp_path, frontier.BENCHMARK) for row in one["rows"]]
    judged = [(row["training"], row["images"]) for row in rows if "training" in row]
    one = dict(np.load(frontier.trained_path(tmp_path, 0)))
    assert sorted(judged) == [(0, images) for images in sorted({*one["images"].tolist(), int(one["kept"])})]
    assert sum("real" in row for row in rows) == 1
    assert one["images"][-1] == 320
    assert len(one["features"]) == len(one["images"]) + 1
    capsys.readouterr()
    frontier.main(["--table", *out])
    told = capsys.readouterr().out
    assert told.count("\n| 320 |") == 1
    assert told.count("\n| auto |") == 1
    points, facts = frontier_picture.points_of(tmp_path)
    assert facts["trainings"] == 5
    assert all(0 <= point["membership"] <= 1 for point in points)
    assert (tmp_path / "frontier_cohort.png").stat().st_size > 10_000
    np.savez(frontier.trained_path(tmp_path, 3), **one | {"pool": "another"})
    with pytest.raises(SystemExit, match="of different images"):
        frontier_picture.points_of(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_a_peers_recipe_is_trained_on_the_same_halves_from_new_weights_each_time_and_drawn_beside_ours(tmp_path, capsys):
    one_training = ["--trainings", "1"]
    frontier.main([*WORDS, "--out", str(tmp_path / "ours"), *one_training])
    frontier.main([*WORDS, "--out", str(tmp_path / "peer"), *one_training, "--recipe", "edm"])
    one, other = (dict(np.load(frontier.trained_path(tmp_path / name, 0))) for name in ("ours", "peer"))
    assert np.array_equal(one["inside"], other["inside"])
    assert one["images"].tolist() == other["images"].tolist()
    assert not np.allclose(one["features"], other["features"])
    frontier.main(["--table", "--out", str(tmp_path / "ours"), "--beside", str(tmp_path / "peer")])
    told = capsys.readouterr().out
    assert "recipe ours, " in told
    assert "recipe edm, " in told
    options = frontier.parse([*WORDS, "--out", str(tmp_path / "again"), "--recipe", "edm"])
    again = frontier.Frontier(options)
    first, second = ([value.clone() for value in again.trainings.begin(number, again.inside(0)).averaged().values()] for number in (0, 1))
    again.trainings.begin(1, again.inside(0)).run(until=2)
    assert any(not torch.equal(a, b) for a, b in zip(first, second))
    assert all(torch.equal(a, b) for a, b in zip(first, again.trainings.begin(0, again.inside(0)).averaged().values()))


def test_a_recipe_beside_another_is_called_what_it_is():
    ours = {"recipe": "ours", "fitted": {"dropout": 0.26, "augment": 0.46}}
    assert frontier_picture.named(ours) == "ours, dropout 0.26, augment 0.46"
    assert frontier_picture.named({"recipe": "ours", "fitted": {}}) == "ours, other settings"
    assert frontier_picture.named({"recipe": "edm", "fitted": {"images": 1}}) == "MONAI's network, EDM"


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_trainings_go_on_beyond_what_auto_allows_and_are_looked_at_there(tmp_path, monkeypatch):
    monkeypatch.setattr(frontier.fit_recipe, "REPEATS", 1)
    frontier.main([*WORDS, "--out", str(tmp_path), "--trainings", "1", "--judged", "0", "--images", "2000"])
    one = dict(np.load(frontier.trained_path(tmp_path, 0)))
    lengths, kept = one["images"].tolist(), int(one["kept"])
    within = [images for images in lengths if images <= 1000]
    assert kept <= within[-1]
    beyond = [images for images in lengths if images > kept]
    assert beyond, "longer ones are what auto is compared with"
    assert all(later == 2 * earlier for earlier, later in itertools.pairwise(beyond))
    assert lengths[-1] <= 2000 < 2 * lengths[-1]


def test_a_task_is_had_by_one_at_a_time_and_free_again_afterwards(tmp_path):
    with claimed(tmp_path, "task") as ours, claimed(tmp_path, "task") as theirs, claimed(tmp_path, "other") as another:
        assert (ours, theirs, another) == (True, False, True)
    with claimed(tmp_path, "task") as again:
        assert again


def point(length: str, apart: list[float | None], copies: int = 0) -> frontier_picture.Point:
    found = [None if value is None else {"value": value, "low": value - 0.1, "high": value + 0.1} for value in apart]
    return {"length": length, "rows": {n: {"above_floor": one, "copies": copies} for n, one in enumerate(found)}}


def test_auto_is_compared_with_the_nearest_length_of_the_same_trainings_that_copied_nobody():
    auto = point("auto", [0.10, 0.20])
    said = frontier_picture.findings([point("1,000", [0.3, 0.3]), point("2,000", [0.09, 0.17]), point("4,000", [0.0, 0.0], 1), auto])
    assert said[0] == "auto: 0, 0 flagged as copies; above the floor by +0.100 [+0.000, +0.200]; +0.200 [+0.100, +0.300]"
    assert "than 2,000 images, the nearest without a copy, by +0.020 (standard error over trainings 0.010)" in said[1]
    assert "no length without a copy" in frontier_picture.findings([point("4,000", [0.0, 0.0], 1), auto])[1]
    assert frontier_picture.findings([point("4,000", [0.0]), point("auto", [None])]) == ["auto: not judged yet"]
