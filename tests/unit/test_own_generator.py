"""A run's model as a source of synthetic cases: classes, what lies between two, and real images with another finding."""

from pathlib import Path

import numpy as np
import pytest
import trainings

from pipeline.errors import InputError
from pipeline.models import own_generator
from pipeline.models.own_generator import OwnGenerator, is_run


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> OwnGenerator:
    run = trainings.finished(tmp_path_factory.mktemp("maker") / "run")
    assert is_run(run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own_generator, "STEPS", 5)
        return OwnGenerator(run, "cpu", batch=4)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_generator, "STEPS", 5)


def test_an_image_is_a_function_of_its_number_whatever_stands_beside_it(maker: OwnGenerator) -> None:
    assert (maker.classes, maker.side, maker.channels) == (("healthy", "ill"), 16, 1)
    six = maker.images(1, 6, 0)
    assert (six.shape, six.dtype) == ((6, 1, 16, 16), np.uint8)
    assert np.abs(six[:2].astype(int) - maker.images(1, 2, 0)).max() <= 1
    assert (six != maker.images(1, 6, 1)).any(axis=(1, 2, 3)).all()


def test_between_two_classes_are_the_classes_themselves_at_the_ends_and_their_order_within(maker: OwnGenerator) -> None:
    """Ill images are brighter in the cohort; the same noise at every place, so that images move one by one."""
    means = np.stack([maker.between(0, 1, weight, 4, 0).mean(axis=(1, 2, 3)) for weight in (0.0, 0.5, 1.0)])
    assert (np.diff(means, axis=0) > 0).all()
    back = maker.between(1, 0, 1.0, 4, 0).mean(axis=(1, 2, 3))
    assert np.abs(back.mean() - means[0].mean()) < np.abs(back.mean() - means[2].mean())


def test_a_counterfactual_moves_towards_the_other_class_and_more_so_from_more_noise(maker: OwnGenerator) -> None:
    cohort = trainings.cohort()
    real = cohort.images[cohort.labels == 0][:5].astype(np.float32) / 127.5 - 1
    moved = [maker.counterfactuals(real, 0, 1, depth, 1.0).astype(float).mean() - (real.mean() + 1) * 127.5 for depth in (0.5, 4.0, 30.0)]
    assert abs(moved[0]) < moved[1] < moved[2]


def test_the_own_class_leaves_an_image_as_it_is(maker: OwnGenerator) -> None:
    real = trainings.cohort().images[:3].astype(np.float32) / 127.5 - 1
    same = maker.counterfactuals(real, 1, 1, 2.0, 2.0).astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(same, real, atol=1 / 127)


def test_only_greys_of_training_images_are_made_and_a_real_image_keeps_its_own(
    maker: OwnGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, real = maker.images(1, 2, 0), trainings.cohort().images[:3].astype(np.float32) / 127.5 - 1
    monkeypatch.setattr(maker, "lowest", 100)
    monkeypatch.setattr(maker, "highest", 110)
    np.testing.assert_array_equal(maker.images(1, 2, 0), made.clip(100, 110))
    assert set(np.unique(maker.between(0, 1, 0.5, 2, 0))) <= set(range(100, 111))
    same = maker.counterfactuals(real, 1, 1, 2.0, 2.0).astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(same, real, atol=1 / 127)


def test_a_models_greys_are_those_that_its_training_wrote(maker: OwnGenerator) -> None:
    learned = trainings.cohort().split("train").images
    assert (maker.lowest, maker.highest) == (learned.min(), learned.max())


def test_no_images_are_none(maker: OwnGenerator) -> None:
    assert maker.images(0, 0, 0).shape == (0, 1, 16, 16)


def test_a_folder_without_a_model_is_no_run(tmp_path: Path) -> None:
    assert not is_run(tmp_path)
    with pytest.raises(InputError, match="holds no trained model"):
        OwnGenerator(tmp_path, "cpu")
