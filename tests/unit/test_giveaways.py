import numpy as np
import pytest

from evaluation.data import Labelled
from evaluation.giveaways import ALIKE, COUNT, giveaways
from evaluation.metrics import auc
from evaluation.plain_features import NEIGHBOURS, feature_names, plain_features


def pool(images: np.ndarray, per_patient: int = 2) -> Labelled:
    unit = np.clip(images, -1, 1).astype(np.float32)
    return Labelled.of_classes(unit, np.zeros(len(unit), np.int64), np.arange(len(unit)) // per_patient, 1)


def found(images: np.ndarray, made: np.ndarray) -> list[dict]:
    """Of images of which ``made`` are synthetic, chosen on every second pair and measured on the others."""
    one = pool(images)
    first = one.groups % 2 == 0
    rows = [(np.flatnonzero(half & made), np.flatnonzero(half & ~made)) for half in (first, ~first)]
    return giveaways(plain_features(one.unit), one, *rows)


def smooth(rng: np.random.Generator, n: int) -> np.ndarray:
    coarse = rng.normal(0, 0.3, (n, 1, 8, 8))
    return coarse.repeat(2, axis=2).repeat(2, axis=3)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_feature_has_a_name_of_its_own(channels: int) -> None:
    names = feature_names(channels)
    assert len(names) == len(set(names)) == plain_features(np.zeros((1, channels, 8, 8), np.float32)).shape[1]


def test_names_say_what_is_counted() -> None:
    """By images of which one thing is known."""
    names = feature_names(1)
    of = dict(zip(names, plain_features(np.full((1, 1, 24, 24), 20 / 127.5 - 1, np.float32))[0]))
    assert [name for name in names if name.startswith("pixels of grey") and of[name] == 1] == ["pixels of grey 16 to 23 of 255"]
    wave = np.cos(2 * np.pi * 5 * np.arange(24) / 24)[None, None, None, :].repeat(24, axis=2).astype(np.float32)
    of = dict(zip(names, plain_features(wave)[0]))
    assert max((name for name in names if name.startswith("power")), key=of.__getitem__) == "power at 0.21 to 0.25 cycles a pixel"
    assert of["spread of horizontal detail of 1 px"] > of["spread of vertical detail of 1 px"], "it changes from left to right"
    assert of["contrast of pixels 0 down and 1 to the right"] > of["contrast of pixels 1 down and 0 to the right"] == 0
    assert sum(name.startswith("entropy of pixels") for name in names) == len(NEIGHBOURS)


def test_what_was_changed_is_named_and_measured_on_the_other_half() -> None:
    rng = np.random.default_rng(0)
    images, made = smooth(rng, 400), np.arange(400) % 8 > 3
    images[made] += rng.normal(0, 0.03, (made.sum(), 1, 16, 16))
    told = found(images, made)
    assert told[0]["synthetic"] == "more"
    assert told[0]["feature"].startswith(("spread of", "power at"))
    assert told[0]["auc"].value == 1.0
    darker = smooth(rng, 400) * 0.2
    darker[made] -= 0.05
    told = found(darker, made)
    assert ("mean of the greys", "less") in {(one["feature"], one["synthetic"]) for one in told}
    mean = next(one for one in told if one["feature"] == "mean of the greys")
    second = np.arange(400) // 2 % 2 == 1
    assert mean["auc"].value == pytest.approx(auc(-darker[second].mean(axis=(1, 2, 3)), made[second]), abs=1e-6)
    assert len(told) <= COUNT


def test_features_that_go_together_stand_once() -> None:
    rng = np.random.default_rng(1)
    images, made = smooth(rng, 400) * 0.2, np.arange(400) % 8 > 3
    images[made] -= 0.1
    names, x = feature_names(1), plain_features(pool(images).unit)
    ranks = x.argsort(axis=0).argsort(axis=0)
    places = [names.index(one["feature"]) for one in found(images, made)]
    related = np.corrcoef(ranks[np.arange(400) // 2 % 2 == 0][:, places].T)
    assert np.abs(related[np.triu_indices(len(places), 1)]).max(initial=0) < ALIKE + 0.02


def test_of_the_same_distribution_nothing_is_told_more_often_than_its_level_allows() -> None:
    rng = np.random.default_rng(2)
    said = [bool(found(smooth(rng, 120), np.arange(120) % 8 > 3)) for _ in range(60)]
    assert np.mean(said) <= 0.1, "5 % are allowed"
