import functools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from evaluation.data import Labelled
from evaluation.encoder import make_classifier, one_cycle, shift, train_classifier, train_together
from evaluation.metrics import macro_auc


def blobs(n: int, rng: np.random.Generator, side: int = 16) -> Labelled:
    """Class 1 has a bright spot on the left, class 0 on the right, in noise; two images a patient."""
    labels = (np.arange(n) // 2 % 2).astype(np.int64)
    row, column = np.mgrid[:side, :side]
    centre = np.where(labels == 1, side * 0.25, side * 0.75) + rng.normal(0, 0.7, n)
    spot = np.exp(-((row - side / 2) ** 2 + (column - centre[:, None, None]) ** 2) / side)
    images = (-0.8 + spot + rng.normal(0, 0.15, spot.shape))[:, None].astype(np.float32).clip(-1, 1)
    return Labelled.of_classes(images, labels, np.arange(n) // 2, int(labels.max()) + 1)


@pytest.fixture(scope="module")
def data() -> tuple[Labelled, Labelled]:
    rng = np.random.default_rng(0)
    return blobs(128, rng), blobs(100, rng)


@pytest.mark.parametrize(("kind", "parameters", "width"), [("small", 154_917, 64), ("resnet18", 11_172_805, 512)])
def test_architectures_have_their_documented_sizes(kind: str, parameters: int, width: int) -> None:
    network = make_classifier(kind, 1, 5, torch.Generator().manual_seed(0)).eval()  # type: ignore[arg-type]
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert network.features(torch.zeros(2, 1, 28, 28)).shape == (2, width)


def test_making_a_network_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    make_classifier("small", 1, 2, torch.Generator().manual_seed(0))
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_trained_classifier_names_unseen_images_and_gives_probabilities(data: tuple[Labelled, Labelled]) -> None:
    train, val = data
    classifier = train_classifier(train.images, train.labels, kind="small", images_seen=1280, seed=0, device="cpu", val=val)
    p = classifier.predict(val.images)
    assert p.dtype == np.float64
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert macro_auc(p, val.labels) > 0.98
    assert classifier.features(val.images).shape == (100, 64)
    assert len(np.unique(p[:, 0])) > 95


def test_training_is_a_function_of_its_seed_whether_alone_or_together(data: tuple[Labelled, Labelled]) -> None:
    train, val = data
    job = functools.partial(train_classifier, train.images, train.labels, kind="small", images_seen=256, device="cpu")
    jobs = [functools.partial(job, seed=seed) for seed in (1, 1, 2)]
    first, again, other = (one.predict(val.images) for one in train_together(jobs, "cpu"))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-4
    np.testing.assert_array_equal(train_together(jobs[:1], "cpu")[0].predict(val.images), first)


def test_a_rare_class_is_drawn_as_often_as_a_common_one(data: tuple[Labelled, Labelled]) -> None:
    train, val = data
    few = train.take(np.r_[np.flatnonzero(train.labels == 0), np.flatnonzero(train.labels == 1)[:4]])
    classifier = train_classifier(few.images, few.labels, kind="small", images_seen=1280, seed=0, device="cpu")
    assert (classifier.predict(val.images).argmax(axis=1)[val.labels == 1] == 1).mean() > 0.8


def test_a_short_training_and_a_single_step_are_possible(data: tuple[Labelled, Labelled]) -> None:
    train, val = data
    for seen in (1, 64, 128):
        p = train_classifier(
            train.images[:20], train.labels[:20], kind="small", images_seen=seen, seed=0, device="cpu", val=val, classes=3
        ).predict(val.images)
        assert p.shape == (100, 3)
        assert np.isfinite(p).all()


def test_shift_moves_by_whole_pixels_and_repeats_the_border() -> None:
    x = torch.arange(2 * 3 * 5 * 5, dtype=torch.float32).reshape(2, 3, 5, 5)
    moved = shift(x, torch.tensor([[0, 0], [1, -2]]))
    assert torch.equal(moved[0], x[0])
    assert torch.equal(moved[1, :, 1:, :3], x[1, :, :-1, 2:])
    assert torch.equal(moved[1, :, 0, :3], x[1, :, 0, 2:])
    assert torch.equal(moved[1, :, 1:, 4], x[1, :, :-1, 4])


def test_one_cycle_rises_to_its_peak_and_ends_at_zero() -> None:
    rates: NDArray[np.float64] = np.array([one_cycle(p) for p in np.linspace(0, 1, 101)])
    assert rates.argmax() == 25
    assert rates.max() == pytest.approx(1)
    assert rates[[0, -1]] == pytest.approx([0, 0])


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match="small or resnet18"):
        make_classifier("large", 1, 2, torch.Generator())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no images"):
        train_classifier(np.zeros((0, 1, 8, 8), np.float32), np.zeros(0, np.int64), kind="small", images_seen=1, seed=0, device="cpu")
    with pytest.raises(ValueError, match="do not match"):
        Labelled.of_classes(np.zeros((2, 1, 8, 8), np.float32), np.zeros(3, np.int64), np.zeros(2), 1)
