"""The controls of the whole gate are what they are called."""

import numpy as np
import pandas as pd
import pytest
from trainings import SMALL

from evaluation.data import Labelled
from pipeline import fit_recipe
from pipeline.config import Config
from pipeline.config.train import TrainConfig
from pipeline.images import ImageSet, finding_columns
from pipeline.shadow_training import Shadows
from pipeline.train import describe
from tests.benchmarks import gate_controls


@pytest.fixture
def given():
    rng = np.random.default_rng(0)
    train = Labelled.of_classes(rng.integers(0, 256, (40, 1, 32, 32), dtype=np.uint8), np.arange(40) % 2, np.arange(40), 2)
    own, other = ({"synthetic": rng.integers(0, 256, (30, 1, 32, 32), dtype=np.uint8)} for _ in range(2))
    return own, other, train


def nearest(images, train):
    apart = np.abs(images[:, None].astype(float) - train.images[None]).mean(axis=(2, 3, 4))
    return apart.min(axis=1)


def test_every_set_has_as_many_images_and_is_made_of_what_it_says(given):
    own, other, train = given
    made = {name: gate_controls._set(name, own, other, train, np.random.default_rng(1)) for name in gate_controls.SETS}
    assert {images.shape for images in made.values()} == {(30, 1, 32, 32)}
    assert {images.dtype for images in made.values()} == {np.dtype(np.uint8)}
    assert (made["honest"] == own["synthetic"]).all()
    assert ((made["ten copies"] != own["synthetic"]).any(axis=(1, 2, 3))).sum() == 10
    assert sorted(image.tobytes() for image in made["twin"]) == sorted(image.tobytes() for image in other["synthetic"])
    assert nearest(made["kernel density"], train).max() < 0.06 * 255
    weakest = nearest(made["mixup"], train)
    assert weakest.max() <= 0.5 * 256
    assert weakest.mean() < 0.6 * nearest(own["synthetic"], train).mean()


def test_the_table_counts_verdicts_and_what_they_rest_on():
    def row(verdict, flagged=0, run_p=0.5, membership="not judged"):
        return {"verdict": verdict, "flagged": flagged, "run_p": run_p, "checks": {"membership_images": membership}}

    results = [
        {"honest": row("pass"), "mixup": row("fail", flagged=7, run_p=1e-9)},
        {"honest": row("inconclusive"), "mixup": row("fail", membership="fail")},
    ]
    honest, mixup = gate_controls.table(results, ["honest", "mixup"]).splitlines()[1:]
    assert honest.split()[:4] == ["honest", "1", "0", "1"]
    assert mixup.split()[:4] == ["mixup", "0", "2", "0"]
    assert mixup.endswith("1 / 1 / 1")


@pytest.mark.parametrize(("apart", "images"), [(0.0, 64), (1e9, 320)])
def test_a_training_ends_where_its_losses_part_and_at_the_ceiling_at_the_latest(monkeypatch, apart, images):
    rng, labels = np.random.default_rng(0), np.arange(60) % 2
    arrays = {}
    for name, low in (("train", 0), ("others", 60)):
        arrays |= {name: rng.integers(0, 256, (60, 1, 16, 16), np.uint8), f"{name}_labels": labels, f"{name}_patients": np.arange(60) + low}
    rows = pd.DataFrame({"id": [str(n) for n in range(60)], **finding_columns(labels, ("a", "b"))})
    pool = ImageSet(arrays["train"], rows)
    train = TrainConfig.model_validate(SMALL | {"widths": [16]})
    config = Config.model_validate(
        {"name": "t", "ingest": {"source": "phantom"}, "train": train.model_dump(), "generate": {"per_class": 1}}
    )
    shadows = Shadows(config, pool, describe(train, pool, 0.5), "cpu")
    monkeypatch.setattr(fit_recipe, "APART", apart)
    assert gate_controls.train_until_parted(shadows, 3, arrays, first=4) == images
