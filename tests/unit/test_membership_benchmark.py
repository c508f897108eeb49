"""The benchmark of shadow trainings, through at tiny size; and its plainer attack."""

import numpy as np
import pandas as pd
import pytest

from evaluation.metrics import auc
from pipeline.images import ImageSet, finding_columns
from tests.benchmarks import membership_power, report


@pytest.fixture
def pool(monkeypatch):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (90, 1, 8, 8), dtype=np.uint8), np.arange(90) % 2
    rows = pd.DataFrame({"id": [f"i{n}" for n in range(90)], **finding_columns(labels, ("healthy", "ill"))})
    monkeypatch.setattr(membership_power, "pool_of", lambda config: (ImageSet(images, rows), np.arange(90), 60))
    monkeypatch.setattr(membership_power, "LEVELS", (0.05, 0.1, 0.2, 0.35, 0.6, 1.0))
    monkeypatch.setattr(membership_power, "DRAWS", {"plain": 1, "null": 1, "mirrored": 1})
    monkeypatch.setattr(membership_power, "searched", lambda *given: "0 of 10")


@pytest.mark.slow
def test_it_trains_attacks_and_prints_and_goes_on_with_what_is_there(pool, tmp_path, capsys):
    words = ["--tiny", "--out", str(tmp_path), "--set", "train.widths=[16]", "--set", "train.attention=[]"]
    membership_power.main([*words, "--trainings", "2", "--no-attack"])
    assert "others: AUC" not in capsys.readouterr().out
    membership_power.main([*words, "--first", "2", "--trainings", "3"])
    out = capsys.readouterr().out
    assert "without shadows: AUC" in out
    assert "5 targets" in out
    assert out.count("| 30 | ") == 2
    assert out.count("leaks from sigma") == len(membership_power.LEAKS)
    rows = [row for one in report.load(tmp_path, membership_power.BENCHMARK) for row in one["rows"]]
    assert sorted(row["training"] for row in rows if "training" in row) == [0, 1, 2, 3, 4]
    seen = [np.load(path) for path in sorted(tmp_path.glob("seen_*.npz"))]
    assert [int(one["inside"].sum()) for one in seen] == [60] * 5
    assert len({one["inside"].tobytes() for one in seen}) == 5
    for number, (count, _) in enumerate(membership_power.LEAKS):
        assert seen[0]["inside"][seen[0][f"planted_{number}"]].sum() == count
    membership_power.main(["--out", str(tmp_path), "--table"])
    assert "weights, fixed shrinkage" in capsys.readouterr().out


def test_the_plainer_attack_knows_images_that_all_or_none_saw():
    rng = np.random.default_rng(0)
    inside = rng.random((7, 500)) < 2 / 3
    inside[1:, 0], inside[1:, 1] = True, False
    features = 5 * rng.standard_normal((500, 3)) + inside[:, :, None] + rng.standard_normal((7, 500, 3))
    guessed = membership_power.fixed_shrinkage(features[0], features[1:], inside[1:])
    assert np.isfinite(guessed).all()
    assert auc(guessed, inside[0]) > 0.75
