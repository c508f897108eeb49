from collections.abc import Iterator
from unittest import mock

import numpy as np
import pytest
import torch

from evaluation import training
from evaluation.classifiers import make_classifier
from evaluation.data import Labelled
from evaluation.metrics import macro_auc
from evaluation.training import BATCH, Task, equal_classes, train


@pytest.fixture(scope="module", autouse=True)
def soon() -> Iterator[None]:
    """Blobs are learned at once: plateaus are looked for within hundreds of images."""
    with mock.patch.object(training, "CHECK", 512), mock.patch.object(training, "LEAST", 2048):
        yield


def blobs(n: int, rng: np.random.Generator, side: int = 16) -> Labelled:
    """Class 1 has a bright spot on the left, class 0 on the right, in noise; two images a patient."""
    labels = (np.arange(n) // 2 % 2).astype(np.int64)
    row, column = np.mgrid[:side, :side]
    centre = np.where(labels == 1, side * 0.25, side * 0.75) + rng.normal(0, 0.7, n)
    spot = np.exp(-((row - side / 2) ** 2 + (column - centre[:, None, None]) ** 2) / side)
    images = (-0.8 + spot + rng.normal(0, 0.15, spot.shape))[:, None].astype(np.float32).clip(-1, 1)
    return Labelled.of_classes(images, labels, np.arange(n) // 2, int(labels.max()) + 1)


def task(data: Labelled, choose: Labelled, seed: int = 0, **more: object) -> Task:
    return Task(data.unit, data.labels, data.classes, seed, choose, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def data() -> tuple[Labelled, Labelled]:
    rng = np.random.default_rng(0)
    return blobs(128, rng), blobs(100, rng)


@pytest.mark.parametrize(("kind", "parameters", "width"), [("small", 76_837, 64), ("resnet18", 11_172_805, 512)])
def test_architectures_have_their_documented_sizes(kind: str, parameters: int, width: int) -> None:
    network = make_classifier(kind, 1, 5, torch.Generator().manual_seed(0)).eval()  # type: ignore[arg-type]
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert network.features(torch.zeros(2, 1, 28, 28)).shape == (2, width)


def test_making_a_network_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    make_classifier("small", 1, 2, torch.Generator().manual_seed(0))
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_trained_classifier_names_unseen_images_and_ends_at_its_plateau(data: tuple[Labelled, Labelled]) -> None:
    learn, choose = data
    one = train([task(learn, choose)], kind="small", ceiling=10_000, device="cpu")[0]
    unseen = blobs(100, np.random.default_rng(9))
    p = one.classifier.predict(unseen.images)
    assert p.dtype == np.float64
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert macro_auc(p, unseen.labels) > 0.98
    assert one.classifier.features(unseen.images).shape == (100, 64)
    assert one.plateau
    assert one.curve[-1][0] < 10_000
    assert one.images in [seen for seen, _ in one.curve]


def test_noise_without_anything_to_learn_keeps_the_state_that_is_least_wrong(data: tuple[Labelled, Labelled]) -> None:
    _, choose = data
    noise = np.random.default_rng(1).uniform(-1, 1, (64, 1, 16, 16)).astype(np.float32)
    wrong = Labelled.of_classes(noise, (np.arange(64) % 2).astype(np.int64), np.arange(64), 2)
    one = train([task(wrong, choose)], kind="small", ceiling=10_000, device="cpu")[0]
    losses = dict(one.curve)
    assert losses[one.images] == min(losses.values())
    assert one.plateau


def test_the_kept_state_has_the_temperature_that_suits_the_held_out_images_best(data: tuple[Labelled, Labelled]) -> None:
    """Of labels wrong in one in four, a network learns to be sure; the held-out loss told is that of the classifier as it is returned."""
    learn, choose = data
    rng = np.random.default_rng(3)
    wrong = np.where(rng.random(len(choose)) < 0.25, 1 - choose.labels, choose.labels)
    doubtful = Labelled.of_classes(choose.images, wrong, choose.groups, 2)
    one = train([task(learn, doubtful)], kind="small", ceiling=8192, device="cpu")[0]
    p = one.classifier.predict(doubtful.unit)
    by_class = [-np.log(p[wrong == k, k]).mean() for k in (0, 1)]
    assert np.mean(by_class) == pytest.approx(dict(one.curve)[one.images], rel=0.02)
    assert 0.5 < p.max(axis=1).mean() < 0.9, "no surer than it is right"


def test_the_ceiling_is_kept_and_said(data: tuple[Labelled, Labelled]) -> None:
    for ceiling in (1, 64, 130):
        one = train([task(*data)], kind="small", ceiling=ceiling, device="cpu")[0]
        assert one.curve[-1][0] == max(1, ceiling // BATCH) * BATCH
        assert not one.plateau
        assert np.isfinite(one.classifier.predict(data[1].images)).all()


def test_training_is_a_function_of_its_seed_whether_alone_or_together(data: tuple[Labelled, Labelled]) -> None:
    learn, choose = data
    tasks = [task(learn, choose, seed) for seed in (1, 1, 2)]
    first, again, other = (one.classifier.predict(choose.images) for one in train(tasks, kind="small", ceiling=256, device="cpu"))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-4
    alone = train(tasks[:1], kind="small", ceiling=256, device="cpu")[0]
    np.testing.assert_array_equal(alone.classifier.predict(choose.images), first)


def test_three_trainings_on_two_cores_are_what_each_is_alone(data: tuple[Labelled, Labelled]) -> None:
    """They take turns, each core with whichever comes next, and every one has its steps and its looks."""
    tasks, threads = [task(*data, seed) for seed in (1, 2, 3)], torch.get_num_threads()
    alone = [train([one], kind="small", ceiling=1024, device="cpu")[0] for one in tasks]
    try:
        torch.set_num_threads(2)
        together = train(tasks, kind="small", ceiling=1024, device="cpu")
    finally:
        torch.set_num_threads(threads)
    for one, other in zip(alone, together):
        assert [seen for seen, _ in other.curve] == [512, 1024]
        np.testing.assert_allclose(one.classifier.predict(data[1].images), other.classifier.predict(data[1].images), atol=1e-3)


@pytest.mark.slow
def test_together_nobody_stops_before_the_last(data: tuple[Labelled, Labelled]) -> None:
    learn, choose = data
    tasks = [task(learn, choose, before=(equal_classes(learn.labels), 2048)), task(learn, choose)]
    apart = train(tasks, kind="small", ceiling=10_000, device="cpu")
    both = train(tasks, kind="small", ceiling=10_000, device="cpu", together=True)
    assert len(apart[0].curve) > len(apart[1].curve)
    assert len(both[0].curve) == len(both[1].curve) == len(apart[0].curve)


def test_of_a_training_in_two_parts_a_state_of_the_second_is_kept(data: tuple[Labelled, Labelled]) -> None:
    """Even where the first part, of both classes, is the better one: the second draws one class alone."""
    images, choose = data
    both, one = equal_classes(images.labels), (images.labels == 0).astype(np.float64)
    [found] = train([task(images, choose, weights=one, before=(both, 1024))], kind="small", ceiling=2048, device="cpu")
    losses = dict(found.curve)
    assert losses[1024] < losses[2048]
    assert found.images > 1024


def test_a_rare_class_is_drawn_as_often_as_a_common_one(data: tuple[Labelled, Labelled]) -> None:
    learn, choose = data
    few = learn.take(np.r_[np.flatnonzero(learn.labels == 0), np.flatnonzero(learn.labels == 1)[:4]])
    assert equal_classes(few.labels)[few.labels == 1].sum() == pytest.approx(1)
    classifier = train([task(few, choose)], kind="small", ceiling=2048, device="cpu")[0].classifier
    assert (classifier.predict(choose.images).argmax(axis=1)[choose.labels == 1] == 1).mean() > 0.8


def test_images_of_no_weight_are_never_learned_from(data: tuple[Labelled, Labelled]) -> None:
    learn, choose = data
    both = np.concatenate([learn.unit, learn.unit])
    labels = np.concatenate([learn.labels, 1 - learn.labels])
    weights = (np.arange(len(both)) < len(learn)).astype(np.float64)
    one = train([Task(both, labels, 2, 0, choose, weights)], kind="small", ceiling=2048, device="cpu")[0]
    assert macro_auc(one.classifier.predict(choose.images), choose.labels) > 0.98


def test_wrong_input_is_named(data: tuple[Labelled, Labelled]) -> None:
    with pytest.raises(ValueError, match="small or resnet18"):
        make_classifier("large", 1, 2, torch.Generator())  # type: ignore[arg-type]
    nothing = data[0].take(slice(0, 0))
    for learn, choose in ((nothing, data[1]), (data[0], nothing)):
        with pytest.raises(ValueError, match="no images"):
            train([task(learn, choose)], kind="small", ceiling=64, device="cpu")
