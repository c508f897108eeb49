"""The recipe that fits itself: starting values, and the length that its losses choose."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import ttest_ind
from trainings import SMALL, cohort, renamed

from evaluation.data import Labelled
from evaluation.intervals import Interval
from pipeline import fit_recipe
from pipeline.config import TrainConfig
from pipeline.diffusion.validation import LEVELS, Validation
from pipeline.errors import InputError
from pipeline.fit_recipe import Course, drawn, regularisation, widths
from pipeline.images import ImageSet

AUTO = {key: value for key, value in SMALL.items() if key not in ("images", "dropout", "augment", "checkpoint_images")} | {"images": "auto"}


def section(**settings: object) -> TrainConfig:
    return TrainConfig.model_validate(settings)


def test_who_leaves_the_length_to_the_cohort_leaves_what_depends_on_it_unless_given():
    auto = section(images="auto", dropout=0.3)
    assert auto.unfitted == ("images", "widths", "augment")
    assert auto.decay == 0, "the end is not known beforehand"
    assert section(minutes=2).unfitted == ("widths", "dropout", "augment")
    assert section(minutes=2).decay == section(images=100).decay == 0.4
    assert section(images=100).unfitted == ()
    assert section(images=100, dropout="auto").unfitted == ("dropout",)


@pytest.mark.parametrize("settings", [{}, {"images": "auto", "minutes": 2}, {"images": 100, "minutes": 2}])
def test_a_length_is_given_in_one_way(settings):
    with pytest.raises(ValueError, match="give one of them, and null for the other"):
        section(**settings)


def test_moments_that_are_shares_of_an_unknown_length_are_refused():
    with pytest.raises(ValueError, match=r"train\.ema_snapshots are moments of a length that is known"):
        section(images="auto", ema_snapshots=4)


def test_settings_that_are_given_are_not_fitted():
    images = cohort().split("train")
    found = fit_recipe.fit(section(images="auto", dropout=0.05, widths=[8]), images, "cpu")
    assert set(found["fitted"]) == set(found["reasons"]) == {"images", "augment"}
    settled = fit_recipe.settled(section(images="auto", dropout=0.05, widths=[8]), found)
    assert (settled.dropout, settled.widths, settled.length) == (0.05, (8,), found["fitted"]["images"])


def test_near_duplicates_count_as_one_image_and_balance_says_who_is_seen_most():
    images = cohort().split("train")
    labels = images.labels
    twins = renamed(images, duplicate_group=np.where(np.arange(15) < 6, 2, -1))
    assert drawn(images, 0.0) == (15, pytest.approx(1 / 15))
    assert drawn(twins, 0.0) == (10, pytest.approx(1 / 10))
    rare = images.take(np.concatenate([np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)[:1]]))
    assert drawn(rare, 1.0) == (len(rare), pytest.approx(0.5))
    pairs = renamed(images.take(np.arange(15).repeat(2)), duplicate_group=np.arange(30) // 2)
    assert drawn(pairs, 0.0) == (15, pytest.approx(1 / 15)), "the first group is one as well, and each is drawn as often as one image"
    three = cohort(("a", "b", "c")).split("train")
    few = three.take(
        np.concatenate([np.flatnonzero(three.labels == 0), np.flatnonzero(three.labels == 1), np.flatnonzero(three.labels == 2)[:2]])
    )
    assert drawn(few, 1.0) == (12, pytest.approx(1 / 3 / 2))


@pytest.mark.parametrize(("rare", "balance"), [(2000, 0.5), (200, 0.5), (20, 0.5), (20, 1.0)])
def test_before_the_first_look_images_are_seen_a_few_times_and_none_very_often(rare, balance):
    images = cohort().split("train")
    labels = images.labels
    many = images.take(np.concatenate([np.resize(np.flatnonzero(labels == 0), 4000), np.resize(np.flatnonzero(labels == 1), rare)]))
    distinct, most = drawn(many, balance)
    batch = 16
    seen = batch * fit_recipe.first_look(many, section(images="auto", balance=balance, batch=batch))
    mean, often = seen / distinct, seen * most
    assert mean <= 8.1
    assert often <= 32.1
    assert mean == pytest.approx(8, rel=0.01) or often == pytest.approx(32, rel=0.01)
    assert fit_recipe.first_look(images, section(images="auto")) == fit_recipe.FEWEST, "in which a network learns something"
    assert fit_recipe.first_look(many, section(images="auto", balance=1.0, batch=4096)) == fit_recipe.FEWEST, "however often one is drawn"


def test_the_ceiling_is_in_repeats_of_the_image_that_is_seen_most_or_in_time():
    images = cohort().split("train")
    many = fit_recipe.fit(section(images="auto", balance=0.0), images.take(np.arange(15).repeat(100)), "cpu")
    assert many["fitted"]["images"] == round(fit_recipe.SECONDS * fit_recipe.SPEED["cpu"] / 16**2)
    assert many["reasons"]["images"] == "about 10 minutes"
    rare = images.take(np.concatenate([np.flatnonzero(images.labels == 0), np.flatnonzero(images.labels == 1)[:1]]))
    few = fit_recipe.fit(section(images="auto", balance=1.0), rare, "cuda")
    assert few["fitted"]["images"] == 1000 * 2, "every second image that is drawn is the only one of its class"
    assert few["fitted"]["dropout"] == regularisation(1000)[0], "which is seen that often"


def test_who_draws_more_at_once_than_the_ceiling_is_not_told_that_an_image_is_seen_less_often():
    two = cohort().split("train").take(np.arange(2))
    found = fit_recipe.fit(section(images="auto", batch=4096), two, "cuda")
    assert (found["fitted"]["images"], found["reasons"]["images"]) == (4096, "one step")
    assert "2,048 times" in found["reasons"]["dropout"]


@pytest.mark.parametrize(
    ("first", "distinct", "times"),
    [
        *[(None, 15, 1000), (None, 499, 1000), (None, 500, 2000), (None, 999, 2000)],
        *[(None, 1000, 1000), (None, 1999, 1000), (None, 2000, 2000), (None, 2700, 2000)],
        *[(16, 31, 1000), (16, 32, 2000), (256, 7999, 1000), (256, 8000, 2000)],
    ],
)
def test_images_are_seen_half_as_often_where_the_network_has_much_room_for_each(first, distinct, times):
    images = cohort().split("train")
    asked = section(images="auto", balance=0.0) if first is not None else section(images="auto", balance=0.0, widths="auto")
    asked = asked if first is None else asked.model_copy(update={"widths": (first, 2 * first)})
    found = fit_recipe.fit(asked, images.take(np.resize(np.arange(15), distinct)), "cuda")
    assert found["fitted"]["images"] == times * distinct
    assert found["fitted"]["dropout"] == regularisation(times)[0]
    told = ", as the network has much room for each" if times == 1000 else ""
    assert found["reasons"]["images"] == f"the image drawn most often is seen {times:,} times{told}"


def test_minutes_that_are_more_images_than_can_be_asked_for_are_as_many_as_can():
    asked, images = section(minutes=100_000), cohort().split("train")
    probe = {"steps": 50, "images_per_second": 25_000.0}
    found = fit_recipe.fit(asked, images, "cpu", probe)
    assert fit_recipe.settled(asked, found).images == 10**9
    assert found["reasons"]["images"] == "the most that can be asked for; less than 100000 minutes of 25,000 images a second"
    assert fit_recipe.settled(asked, fit_recipe.fit(asked, images, "cpu")).images == 10**9
    slow = fit_recipe.fit(asked, images, "cpu", probe | {"images_per_second": 0.2143})
    assert slow["reasons"]["images"] == "100000 minutes of 0.21 images a second", "large pictures on a CPU are not said to take for ever"


def test_the_documentation_tells_the_ceilings_of_the_code():
    text = " ".join((Path(fit_recipe.__file__).parent / "README.md").read_text(encoding="utf-8").split())
    numbers = (fit_recipe.REPEATS, fit_recipe.REPEATS // 2, fit_recipe.ROOMY // 4, fit_recipe.SMALL, fit_recipe.ROOMY)
    most, half, narrow, small, roomy = (f"{number:,}".replace(",", " ") for number in numbers)
    assert f"one image {most} times: {half} times where the network has much room" in text
    assert f"on a GPU with fewer than {narrow} distinct images, or with {small} to {roomy}, whose network is wider" in text


def test_near_duplicates_leave_as_much_room_as_one_image():
    images = cohort().split("train").take(np.resize(np.arange(15), 600))
    found = fit_recipe.fit(
        section(images="auto", balance=0.0), renamed(images, duplicate_group=np.minimum(np.arange(600), 499) - 1), "cuda"
    )
    assert found["cohort"]["distinct"] == 500
    assert "2,000 times" in found["reasons"]["images"]
    fewer = fit_recipe.fit(section(images="auto", balance=0.0), renamed(images, duplicate_group=np.minimum(np.arange(600), 498)), "cuda")
    assert "1,000 times" in fewer["reasons"]["images"]


@pytest.mark.parametrize(
    ("side", "patch", "given", "enough"),
    [(64, 2, None, 2000), (64, 2, [64, 256], 2000), (32, 1, [64], 2000), (64, 4, [64], 500)],
)
def test_room_is_that_of_the_first_level_beside_the_measured_one_of_as_many_levels(side, patch, given, enough):
    square = cohort(side=side).split("train")
    images = ImageSet(square.images[:, :, :16], square.rows)  # so few pixels that ten minutes end nothing
    asked = section(images="auto", balance=0.0) if given is None else section(images="auto", balance=0.0, widths=given)
    asked = asked.model_copy(update={"patch": patch})
    for distinct, seen in ((enough - 1, 1000), (enough, 2000)):
        found = fit_recipe.fit(asked, images.take(np.resize(np.arange(15), distinct)), "cuda")
        assert f" {seen:,} times" in found["reasons"]["images"], distinct


@pytest.mark.parametrize("channels", [1, 3])
def test_minutes_and_their_ceiling_are_of_pixels_however_many_channels_and_the_longer_side_says_how_many_levels(channels):
    square = cohort(side=64).split("train")
    oblong = ImageSet(np.repeat(square.images[:, :, :16], channels, axis=1), square.rows).take(np.resize(np.arange(15), 3000))
    found = fit_recipe.fit(section(images="auto", balance=0.0), oblong, "cpu")["fitted"]
    assert found["images"] == round(600 * fit_recipe.SPEED["cpu"] / (16 * 64))
    assert found["widths"] == (32, 64, 128)
    minutes = fit_recipe.fit(section(minutes=3), oblong, "cpu")
    assert minutes["fitted"]["images"] == round(180 * fit_recipe.SPEED["cpu"] / (16 * 64))
    assert fit_recipe.fit(section(minutes=1e-6), oblong, "cpu")["fitted"]["images"] == section(minutes=1).batch, "a step at the least"


def test_a_given_length_says_what_dropout_fits_it():
    images = cohort().split("train")
    long, short = (fit_recipe.fit(section(images=15 * times, balance=0.0, dropout="auto"), images, "cpu") for times in (3700, 74))
    assert (long["fitted"]["dropout"], short["fitted"]["dropout"]) == (0.3, 0.0)
    assert "3,700 times" in long["reasons"]["dropout"]


def test_a_recipe_settles_what_is_asked_and_no_more():
    asked = section(images="auto", widths=[8])
    found = fit_recipe.fit(asked, cohort().split("train"), "cpu")
    for fitted in ({key: value for key, value in found["fitted"].items() if key != "images"}, found["fitted"] | {"widths": [16]}):
        with pytest.raises(InputError, match=fit_recipe.FILE):
            fit_recipe.settled(asked, found | {"fitted": fitted})


def test_what_a_training_ends_with_does_not_change_whose_checkpoint_is_whose():
    found = fit_recipe.fit(section(images="auto"), cohort().split("train"), "cpu")
    ended = found | {"curve": [{"images": 64}], "chosen": {"images": 64, "why": ""}}
    assert torch.equal(fit_recipe.mark(ended), fit_recipe.mark(found))
    other = found | {"fitted": found["fitted"] | {"dropout": 0.9}}
    assert not torch.equal(fit_recipe.mark(other), fit_recipe.mark(found))


def test_regularisation_is_that_of_the_measured_lengths_and_between_them_grows():
    for repeats, dropout, augment in fit_recipe.MEASURED:
        assert regularisation(repeats) == (dropout, augment)
    assert regularisation(1) == fit_recipe.MEASURED[0][1:]
    assert regularisation(10**6) == fit_recipe.MEASURED[-1][1:]
    path = [regularisation(repeats) for repeats in np.geomspace(50, 5000, 30)]
    assert path == sorted(path)


def test_monais_network_gets_neither_dropout_nor_augmentation():
    asked = section(images="auto", backbone="monai")
    settled = fit_recipe.settled(asked, fit_recipe.fit(asked, cohort().split("train"), "cpu"))
    assert (settled.dropout, settled.augment) == (0, 0)


@pytest.mark.parametrize(
    ("side", "distinct", "device", "expected"),
    [
        (28, 3000, "cuda", (128, 256)),
        (28, 500, "cuda", (64, 128)),
        (64, 3000, "cuda", (64, 128, 256)),
        (128, 3000, "cuda", (64, 128, 256, 256)),
        (32, 3000, "cpu", (48, 96)),
        (32, 500, "cpu", (48, 96)),
        (64, 3000, "cpu", (32, 64, 128)),
        (16, 3000, "cpu", (48, 96)),
    ],
)
def test_the_network_is_as_wide_as_machine_and_cohort_allow(side, distinct, device, expected):
    assert widths(side, 2, distinct, device) == expected


class Scripted:
    """A training that has taken so many steps, and weights that say which."""

    def __init__(self) -> None:
        self.step = 0

    def averaged(self) -> dict[str, torch.Tensor]:
        return {"weight": torch.tensor(self.step)}


def scripted(memory: list[float], patients: int = 40, noise: float = 0.02) -> Course:
    """A course whose training images come to be known by ``memory`` in log loss, one entry a moment."""
    rng = np.random.default_rng(0)
    side = Labelled.of_classes(np.zeros((2 * patients, 1, 2, 2), np.uint8), np.zeros(2 * patients, int), np.arange(2 * patients) // 2, 1)
    validation = Validation(side, side, 0)
    hard = rng.normal(0, 1, (2, len(LEVELS), 2 * patients))

    def losses(number: int):
        logs = hard - number * 0.1 + rng.normal(0, noise, hard.shape)
        logs[0] -= memory[number]
        return validation.losses(*np.exp(logs))

    script = iter([losses(number) for number in range(len(memory))])
    course = Course(validation, 10, 8, 10**6)
    course.moments = course.moments[: len(memory)]
    course.validation = type("Looks", (), {"__call__": lambda self, training: next(script), "parted": validation.parted})()
    return course


def followed(course: Course) -> Course:
    training = Scripted()
    for moment in course.moments:
        training.step = moment
        course.look(training)
        if course.over:
            return course
    raise AssertionError("never over")


def test_the_last_moment_before_the_losses_part_is_kept_however_hard_the_images_are():
    course = followed(scripted([0, 0, 0.01, 0.02, 0.04, 0.3, 0.6, 0.9, 1.2, 1.5]))
    assert course.chosen == 4
    assert course.kept["weight"] == course.steps == course.moments[4]
    assert len(course.looked) == 6, "0.3 is beyond the bound whatever the noise: for good"
    assert "their ratio grew to 1.3" in course.why("an hour")


def test_an_uncertain_ratio_keeps_less_and_is_over_at_twice_what_is_kept():
    sure, unsure = (followed(scripted([0, 0, 0.1, 0.1, 0.1, 0.15] + [0.2] * 9, noise=noise)) for noise in (0.001, 0.2))
    assert unsure.chosen < sure.chosen
    assert "may have parted" in unsure.why("an hour")
    assert "more patients in val would tell" in unsure.why("an hour")
    assert unsure.moments[len(unsure.looked) - 1] >= 2 * unsure.steps > unsure.moments[len(unsure.looked) - 2]


def test_losses_that_never_part_are_kept_to_the_ceiling():
    course = scripted([0.0] * 12)
    assert followed(course).steps == course.moments[-1]
    assert course.why("an hour") == "its ceiling was reached before the losses parted: an hour"


def test_what_earlier_weights_remembered_is_not_taken_for_how_hard_images_are():
    inherited = [0.6] * 8
    blind, seeing = scripted(inherited), scripted(inherited)
    assert followed(blind).steps == blind.moments[-1], "what grew since the first moment is all that others have to look at"
    seeing.remembers = True
    assert followed(seeing).steps == seeing.moments[0] == seeing.kept["weight"], "something is kept, however much it remembers"
    assert seeing.ratio() == Interval(*(pytest.approx(np.exp(bound)) for bound in bounds(seeing.looked[0].gap)), n=80)
    assert "the earlier weights remember training images: at the first look the ratio of the losses was 1." in seeing.why("an hour")


def bounds(gap: Interval) -> tuple[float, float, float]:
    return gap.value, gap.low, gap.high


def test_moments_grow_by_a_quarter_and_end_at_the_ceiling():
    course = Course(scripted([0]).validation, 10, 64, 5000)
    assert (course.moments[0], course.moments[-1]) == (64, 5000)
    grown = np.divide(course.moments[1:], course.moments[:-1])
    assert grown.max() < 1.28
    assert Course(course.validation, 10, 64, 50).moments == [50]


def test_a_course_goes_on_from_its_tensors():
    course = scripted([0, 0, 0.01, 0.02, 0.04, 0.3])
    training = Scripted()
    for moment in course.moments[:4]:
        training.step = moment
        course.look(training)
    again = Course(scripted([0]).validation, 10, 8, 10**6)
    again.validation = course.validation
    side = Labelled.of_classes(np.zeros((80, 1, 2, 2), np.uint8), np.zeros(80, int), np.arange(80) // 2, 1)
    again.validation.losses = Validation(side, side, 0).losses
    again.load({name: value.clone() for name, value in course.state().items()})
    assert (again.steps, again.kept, again.ratio()) == (course.steps, course.kept, course.ratio())


def test_what_parted_is_the_change_of_the_log_losses_by_patient():
    rng = np.random.default_rng(1)
    train_side, val_side = (Labelled.of_classes(np.zeros((n, 1, 2, 2), np.uint8), np.zeros(n, int), np.arange(n) // 2, 1) for n in (12, 12))
    validation = Validation(train_side, val_side, 0)
    before, now = (validation.losses(*rng.uniform(0.1, 1, (2, len(LEVELS), 12))) for _ in range(2))
    found = validation.parted(before, now)
    changes = [
        np.log(side[1] / side[0]).mean(axis=0).reshape(6, 2).mean(axis=1) for side in ((before.val, now.val), (before.train, now.train))
    ]
    assert found.value == pytest.approx(changes[0].mean() - changes[1].mean())
    low, high = ttest_ind(*changes, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
