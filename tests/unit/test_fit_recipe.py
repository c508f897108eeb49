"""The recipe that fits itself: starting values, the length that its losses choose, minutes, and exact resumption."""

import dataclasses
import io
import json

import numpy as np
import pytest
import torch
from rich.console import Console
from scipy.stats import ttest_ind
from trainings import SMALL, cohort, context, renamed, stopped_in_the_middle

from evaluation.data import Labelled
from evaluation.intervals import Interval
from pipeline import artifacts, fit_recipe, train
from pipeline.api.runs import recipe_lines
from pipeline.conditions import Conditions
from pipeline.config import TrainConfig
from pipeline.denoiser import build_denoiser, load_denoiser
from pipeline.diffusion.conditioning import Condition
from pipeline.diffusion.training import Training
from pipeline.diffusion.validation import LEVELS, Validation
from pipeline.errors import InputError
from pipeline.fit_recipe import Course, drawn, regularisation, widths
from pipeline.images import ImageSet
from pipeline.release.curve import MOST, training_curve
from pipeline.shadow_training import Shadows
from pipeline.show import show

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
    few = fit_recipe.fit(section(images="auto", balance=0.0), images, "cuda")["fitted"]["images"]
    assert few == fit_recipe.REPEATS * 15
    many = fit_recipe.fit(section(images="auto", balance=0.0), images.take(np.arange(15).repeat(100)), "cpu")["fitted"]["images"]
    assert many == round(fit_recipe.SECONDS * fit_recipe.SPEED["cpu"] / 16**2)


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
    assert "their ratio grew to 1.3" in course.why()


def test_an_uncertain_ratio_keeps_less_and_is_over_at_twice_what_is_kept():
    sure, unsure = (followed(scripted([0, 0, 0.1, 0.1, 0.1, 0.15] + [0.2] * 9, noise=noise)) for noise in (0.001, 0.2))
    assert unsure.chosen < sure.chosen
    assert "may have parted" in unsure.why()
    assert "more patients in val would tell" in unsure.why()
    assert unsure.moments[len(unsure.looked) - 1] >= 2 * unsure.steps > unsure.moments[len(unsure.looked) - 2]


def test_losses_that_never_part_are_kept_to_the_ceiling():
    course = scripted([0.0] * 12)
    assert followed(course).steps == course.moments[-1]
    assert "ceiling" in course.why()


def test_what_earlier_weights_remembered_is_not_taken_for_how_hard_images_are():
    inherited = [0.6] * 8
    blind, seeing = scripted(inherited), scripted(inherited)
    assert followed(blind).steps == blind.moments[-1], "what grew since the first moment is all that others have to look at"
    seeing.remembers = True
    assert followed(seeing).steps == seeing.moments[0]
    assert seeing.ratio() == Interval(*(pytest.approx(np.exp(bound)) for bound in bounds(seeing.looked[0].gap)), n=80)
    assert "the earlier weights remember training images: at the first look the ratio of the losses was 1." in seeing.why()


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


@pytest.fixture
def brief(monkeypatch):
    """Recipes of some forty steps, whose losses are looked at from the fourth on."""
    monkeypatch.setattr(fit_recipe, "REPEATS", 40)
    monkeypatch.setattr(fit_recipe, "FEWEST", 4)
    monkeypatch.setattr(fit_recipe, "FIRST", 4)


def auto(folder, among: ImageSet | None = None, **settings):
    """The train stage of a run that leaves its recipe to the cohort."""
    ctx = context(folder, among if among is not None else cohort())
    given = TrainConfig.model_validate(AUTO | {"widths": [16, 32], "checkpoint_images": 64} | settings)
    return dataclasses.replace(ctx, config=ctx.config.model_copy(update={"train": given}))


def written(ctx):
    return json.loads((ctx.out / "recipe.json").read_text())


def digests(ctx):
    """Of all that training leaves but its log, where a stop shows."""
    found = artifacts.folder_digests(ctx.out)
    return {name: digest for name, digest in found.items() if name != "metrics.jsonl"}


def test_what_was_settled_is_written_and_the_weights_are_those_of_the_chosen_moment(brief, tmp_path, monkeypatch):
    monkeypatch.setattr(fit_recipe, "APART", 1.01)
    kept = {}
    right = Course.look

    def look(self, training):
        facts = right(self, training)
        kept[training.step] = training.averaged()
        return facts

    monkeypatch.setattr(Course, "look", look)
    ctx = auto(tmp_path, learning_rate=5e-3)
    summary = train.run(ctx)
    recipe, model = written(ctx), json.loads((ctx.out / "model.json").read_text())
    chosen = recipe["chosen"]["images"]
    assert chosen == summary["images_seen"] == model["images"] == model["steps"] * 16
    denoiser, _ = load_denoiser(ctx.out, "cpu")
    for name, value in denoiser.state_dict().items():
        assert torch.equal(value, kept[model["steps"]][name]), name
    looked = [line["images"] for line in recipe["curve"]]
    assert chosen in looked
    assert looked == sorted(looked)
    at = recipe["curve"][looked.index(chosen)]
    assert (model["validation"]["train"], model["validation"]["val"]) == (at["train"], at["val"])
    assert set(recipe["fitted"]) == {"images", "dropout", "augment"}
    for line in recipe["curve"][1 : looked.index(chosen) + 1]:
        assert line["parted"]["high"] <= 1.01 or line["images"] < chosen


def test_resumed_anywhere_it_chooses_the_same_bits(brief, tmp_path, monkeypatch):
    straight, stopped = auto(tmp_path / "a"), auto(tmp_path / "b")
    train.run(straight)
    assert "stopped at image 112" in stopped_in_the_middle(stopped, monkeypatch)
    # Another machine would fit another recipe: the one that was begun with is gone on with.
    monkeypatch.setattr(fit_recipe, "fit", lambda *given: pytest.fail("fitted again"))
    train.run(stopped)
    assert digests(stopped) == digests(straight)


def remembered_otherwise(path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cohort": {"images": 15, "distinct": 1000, "classes": 2}}))


@pytest.mark.slow
@pytest.mark.parametrize("harm", [lambda path: path.unlink(), lambda path: path.write_text("{}"), remembered_otherwise])
def test_a_recipe_that_is_not_the_checkpoints_starts_over_and_ends_the_same(brief, tmp_path, monkeypatch, harm):
    straight, stopped = auto(tmp_path / "a"), auto(tmp_path / "b")
    train.run(straight)
    stopped_in_the_middle(stopped, monkeypatch)
    harm(stopped.out / "recipe.json")
    train.run(stopped)
    assert artifacts.folder_digests(stopped.out) == artifacts.folder_digests(straight.out)


def taken(monkeypatch, seconds: float) -> list[int]:
    """Let a clock go on by so many seconds in every step of a training; the steps that were taken, in their order."""
    right, steps = Training._take_step, []

    def step(self):
        steps.append(self.step)
        return right(self)

    monkeypatch.setattr(Training, "_take_step", step)
    monkeypatch.setattr(fit_recipe.time, "perf_counter", lambda: seconds * len(steps))
    return steps


@pytest.mark.parametrize(("seconds", "most"), [(0.25, 30), (16.0, 3)])
@pytest.mark.parametrize("expected", [1, 160, 10**6])
def test_minutes_follow_from_timed_steps_whatever_was_expected_of_them(monkeypatch, seconds, most, expected):
    images = cohort().split("train")
    asked = section(**SMALL | {"images": None, "minutes": 4})
    recipe = fit_recipe.fit(asked, images, "cpu")
    recipe["fitted"]["images"] = expected
    settled = fit_recipe.settled(asked, recipe)
    denoiser = build_denoiser(train.describe(settled, images, 0.5))
    training = Training(
        denoiser, torch.from_numpy(np.array(images.images)), Condition.of_classes(images.labels, 2), train.recipe(settled), 0
    )
    before = {name: value.clone() for name, value in training.state().items()}
    steps = taken(monkeypatch, seconds)
    found = fit_recipe.timed(recipe, training, 4)
    assert found["fitted"]["images"] == pytest.approx(240 / seconds * 16)
    assert found["probe"]["steps"] >= 1
    assert len(steps) <= most, "slow steps are not waited for in tens"
    assert training.recipe == train.recipe(settled)
    assert all(torch.equal(training.state()[name], value) for name, value in before.items())


def test_minutes_become_images_once_and_change_nothing_else(brief, tmp_path, monkeypatch):
    taken(monkeypatch, 0.5)  # 32 images a second
    monkeypatch.setattr(fit_recipe, "TIMED", 1.0)
    settings = {"images": None, "dropout": 0.1, "augment": 0.1, "decay": 0.4}
    timed = auto(tmp_path / "a", **settings, minutes=0.25)
    stopped_in_the_middle(timed, monkeypatch)
    recipe = written(timed)
    assert (recipe["fitted"]["images"], recipe["probe"]["images_per_second"]) == (480, 32)
    monkeypatch.setattr(fit_recipe, "timed", lambda *given: pytest.fail("timed again"))
    train.run(timed)
    fixed = auto(tmp_path / "b", **settings | {"images": recipe["fitted"]["images"]})
    train.run(fixed)
    for name in ("model.safetensors", "mixture.safetensors"):
        assert (timed.out / name).read_bytes() == (fixed.out / name).read_bytes(), name


def test_a_shadow_repeats_what_was_settled_and_where_it_ended(brief, tmp_path, monkeypatch):
    monkeypatch.setattr(fit_recipe, "APART", 1.01)
    ctx = auto(tmp_path, learning_rate=5e-3)
    train.run(ctx)
    monkeypatch.setattr(fit_recipe, "fit", lambda *given: pytest.fail("decided anew"))
    config = fit_recipe.replayed(ctx.config, ctx.out)
    pool, model = cohort().split("train"), json.loads((ctx.out / "model.json").read_text())
    trainings = Shadows(config, pool, model, "cpu")
    monkeypatch.setattr(train.runtime, "derive_seed", lambda *given: 1)
    shadow = trainings.train(0, np.ones(len(pool), bool))
    assert trainings.training.step == model["steps"]
    torch.manual_seed(1)
    mean, _ = train.mean_and_spread(pool.images)
    alone = build_denoiser(model, mean)
    condition = Condition.of_classes(pool.labels, 2)
    expected = Training(alone, torch.from_numpy(np.array(pool.images)), condition, train.recipe(config.train), 1, pool.duplicates)
    expected.run(until=model["steps"])
    for name, value in expected.averaged().items():
        assert torch.equal(shadow.state_dict()[name], value), name


def with_patients_in_val(count: int) -> ImageSet:
    """The cohort, its 15 images of val from so many patients."""
    images = cohort()
    patient, val = images.rows["patient"].to_numpy(str), np.flatnonzero(images.rows["split"] == "val")
    patient[val] = [f"v{number}" for number in np.arange(len(val)) % max(count, 1)]
    return renamed(images, patient=patient, **({} if count else {"split": images.rows["split"].replace("val", "test")}))


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_length_is_not_chosen_on_fewer_than_two_patients(tmp_path, count):
    with pytest.raises(InputError, match=r"train\.images=auto .* half of val, and needs two patients in each: add"):
        train.run(auto(tmp_path, with_patients_in_val(count)))


def test_one_picture_alone_is_refused_before_it_is_trained_on(tmp_path):
    images = cohort()
    same = ImageSet(np.full_like(np.asarray(images.images), 7), images.rows)
    with pytest.raises(InputError, match="all images of the train split are one picture"):
        train.run(auto(tmp_path, same))


def test_what_is_looked_at_has_two_patients_on_both_sides():
    images = cohort()
    few, enough = with_patients_in_val(3), with_patients_in_val(4)
    assert train._validation(few, few.split("train"), Conditions(few.classes), 0) is None
    assert train._validation(enough, enough.split("train"), Conditions(enough.classes), 0).patients == 2
    one = renamed(images.split("train"), patient="p")
    assert train._validation(images, one, Conditions(images.classes), 0) is None


@pytest.mark.slow
def test_a_fixed_length_needs_nobody_in_val(tmp_path):
    ctx = context(tmp_path, with_patients_in_val(3))
    train.run(ctx)
    assert "validation" not in json.loads((ctx.out / "model.json").read_text())
    assert written(ctx)["curve"] == []


@pytest.mark.slow
def test_plan_and_show_say_what_is_left_to_the_cohort_and_then_what_was_settled(brief, tmp_path):
    ctx = auto(tmp_path)
    before = recipe_lines(ctx.config, out=tmp_path)
    assert before == ["fitted to the cohort when it is trained: images, dropout, augment"]
    train.run(ctx)
    recipe = written(ctx)
    after = recipe_lines(ctx.config, out=tmp_path)
    assert after[0] == f"images in training ({recipe['chosen']['why']}): {recipe['chosen']['images']}"
    assert [line.partition(" (")[0] for line in after[1:]] == ["dropout", "augmentation"]
    assert recipe_lines(context(tmp_path / "fixed").config) == []
    artifacts.publish(ctx.out, {"stage": "train"})
    stream = io.StringIO()
    show(tmp_path, Console(file=stream, width=250))
    assert recipe["chosen"]["why"] in stream.getvalue()


def test_the_curve_has_every_moment_in_order_and_shows_the_kept_one():
    moments = [{"images": 1000 * 2**k, "train": [0.5 / (k + 1)] * 4, "val": [0.6 / (k + 1)] * 4} for k in range(4)]
    curve = training_curve({"curve": moments, "chosen": {"images": 4000}})
    assert curve.chosen == pytest.approx(2 / 3)
    (_, _, train_line), (_, _, val_line) = curve.lines
    assert [x for x, _ in train_line] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    top = float(curve.up[-1][1])
    assert [y * top for _, y in train_line] == pytest.approx([0.5, 0.25, 0.5 / 3, 0.125])
    assert all(unseen > seen for (_, unseen), (_, seen) in zip(val_line, train_line))
    assert training_curve({"curve": moments[:1]}) is None
    assert (
        training_curve({"curve": [*moments, {"images": 5, "train": [None], "val": []}]}).lines == training_curve({"curve": moments}).lines
    )
    assert training_curve({}) is None
    many = training_curve({"curve": [moments[0] | {"images": 1000 + 10 * k} for k in range(2999)]})
    assert [len(points) for _, _, points in many.lines] == [MOST, MOST]
    assert many.lines[0][2][-1][0] == pytest.approx(1)
