"""A training whose length is left to the cohort or to minutes, as a stage: what it writes, resumes, repeats, refuses and shows."""

import dataclasses
import io
import json

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from trainings import SMALL, cohort, context, renamed, stopped_in_the_middle

from pipeline import artifacts, fit_recipe, folders, train
from pipeline.api.runs import recipe_lines
from pipeline.conditions import Conditions
from pipeline.config import TrainConfig
from pipeline.denoiser import build_denoiser, load_denoiser
from pipeline.diffusion.conditioning import Condition
from pipeline.diffusion.training import Training
from pipeline.errors import InputError
from pipeline.fit_recipe import Course
from pipeline.images import ImageSet, finding_columns
from pipeline.release.curve import MOST, training_curve
from pipeline.runner import Step
from pipeline.shadow_training import Shadows
from pipeline.show import show
from pipeline.stages import BY_NAME

AUTO = {key: value for key, value in SMALL.items() if key not in ("images", "dropout", "augment", "checkpoint_images")} | {"images": "auto"}


@pytest.fixture
def brief(monkeypatch):
    """Recipes of some twenty steps, whose losses are looked at from the fourth on."""
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


def planned(reason: str | None, **identity: object) -> Step:
    """What a plan says of the train stage."""
    return Step(BY_NAME["train"], {"stage": "train", **identity}, reason, replaces=False)


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


def to_be_timed(images: int) -> tuple[TrainConfig, ImageSet, Training]:
    """A section that asks for four minutes, its images, and a training of so many in batches of 16."""
    section, seen = TrainConfig.model_validate(SMALL | {"images": None, "minutes": 4}), cohort().split("train")
    settled = section.model_copy(update={"images": images, "minutes": None})
    denoiser = build_denoiser(train.describe(settled, seen, 0.5))
    condition = Condition.of_classes(seen.labels, 2)
    return section, seen, Training(denoiser, torch.from_numpy(np.array(seen.images)), condition, train.recipe(settled), 0)


@pytest.mark.parametrize(("seconds", "most"), [(0.25, 50), (16.0, 4), (64.0, 3)])
@pytest.mark.parametrize("expected", [1, 160, 10**6])
def test_minutes_follow_from_timed_steps_whatever_was_expected_of_them(monkeypatch, seconds, most, expected):
    section, images, training = to_be_timed(expected)
    steps = taken(monkeypatch, seconds)
    probe = fit_recipe.timed(training)
    found = fit_recipe.fit(section, images, "cpu", probe)
    assert found["fitted"]["images"] == pytest.approx(240 / seconds * 16)
    assert found["reasons"]["images"] == f"4 minutes of {16 / seconds:g} images a second"
    assert found["probe"] == {"steps": len(steps) - (9 if seconds < 1 else 2), "images_per_second": 16 / seconds}
    assert len(steps) <= most, "slow steps are not waited for in tens"


def test_a_machine_that_stalls_now_and_then_makes_no_minutes_of_fewer_images(monkeypatch):
    _, _, training = to_be_timed(160)
    steps = taken(monkeypatch, 0.25)
    monkeypatch.setattr(fit_recipe.time, "perf_counter", lambda: 0.25 * len(steps) + 5 * (len(steps) > 12) + 4 * (len(steps) > 30))
    assert fit_recipe.timed(training)["images_per_second"] == 64


def test_what_a_training_draws_is_said_in_whole_steps(tmp_path):
    ctx = auto(tmp_path, images=102, dropout=0.1, augment=0.1)  # seven steps of 16
    train.run(ctx)
    assert written(ctx)["chosen"]["images"] == json.loads((ctx.out / "model.json").read_text())["images"] == 112


def test_minutes_become_images_once_and_change_nothing_else(brief, tmp_path, monkeypatch):
    taken(monkeypatch, 0.5)  # 32 images a second
    monkeypatch.setattr(fit_recipe, "TIMED", 1.0)
    monkeypatch.setattr(fit_recipe, "READINGS", 1)  # fewer steps than those after which it is stopped
    settings = {"images": None, "dropout": 0.1, "augment": 0.1, "decay": 0.4}
    timed = auto(tmp_path / "a", **settings, minutes=0.25)
    stopped_in_the_middle(timed, monkeypatch)
    recipe = written(timed)
    assert (recipe["fitted"]["images"], recipe["probe"]["images_per_second"]) == (480, 32)
    lines = recipe_lines(timed.config, planned(None), out=tmp_path / "a")
    assert lines[0] == "images in training (0.25 minutes of 32 images a second): 480"
    monkeypatch.setattr(fit_recipe, "timed", lambda *given: pytest.fail("timed again"))
    train.run(timed)
    fixed = auto(tmp_path / "b", **settings | {"images": recipe["fitted"]["images"]})
    train.run(fixed)
    for name in ("model.safetensors", "mixture.safetensors"):
        assert (timed.out / name).read_bytes() == (fixed.out / name).read_bytes(), name


@pytest.mark.parametrize("slow", [False, True])
def test_minutes_that_became_more_are_told_of_the_images_that_were_drawn_since(brief, tmp_path, monkeypatch, slow):
    taken(monkeypatch, 0.5)  # 32 images a second
    monkeypatch.setattr(fit_recipe, "TIMED", 1.0)
    monkeypatch.setattr(fit_recipe, "READINGS", 1)  # fewer steps than those after which it is stopped
    ctx = auto(tmp_path, images=None, dropout=0.1, augment=0.1, minutes=0.25)
    stopped_in_the_middle(ctx, monkeypatch)
    notes: list[str] = []
    monkeypatch.setattr(ctx.reporter, "note", notes.append)
    run, clock = Training.run, [0.0]

    def drawn_slowly(self, **given):
        before = self.step
        run(self, **given)
        clock[0] += (self.step - before) * (2.0 if slow else 0.5)

    def written_slowly(*given):
        kept(*given)
        clock[0] += 100.0  # which no step took

    kept = train._keep
    monkeypatch.setattr(train, "_keep", written_slowly)
    monkeypatch.setattr(Training, "run", drawn_slowly)
    monkeypatch.setattr(train.time, "monotonic", lambda: clock[0])
    begun = 16 * train._resumed(ctx, "cpu")[0]["step"].item()
    train.run(ctx)
    assert 0 < begun < 480
    left = 480 - begun
    told = f"{left} images took {left / 8 / 60:.1f} minutes where {left / 32 / 60:.1f} were expected: steps were slower"
    assert len(notes) == slow
    assert all(note.startswith(told) for note in notes)


@pytest.mark.parametrize(
    ("images", "seconds", "told"), [(6400, 249, False), (6400, 251, True), (320, 24, False), (320, 26, True), (0, 9, False)]
)
def test_a_little_longer_than_was_asked_for_is_not_told(images, seconds, told):
    assert (fit_recipe.late({"probe": {"steps": 9, "images_per_second": 32.0}}, images, seconds) is not None) == told


def test_what_fits_a_length_fits_that_which_was_timed_and_not_that_which_was_expected(brief, tmp_path, monkeypatch):
    taken(monkeypatch, 0.5)  # 32 images a second, where some 250 are expected
    monkeypatch.setattr(fit_recipe, "TIMED", 1.0)
    asked = {"images": None, "dropout": "auto", "augment": "auto", "balance": 0.0}
    ctx = auto(tmp_path / "a", **asked, minutes=1)
    train.run(ctx)
    found, images = json.loads((ctx.out / "recipe.json").read_text()), cohort().split("train")
    assert found["fitted"]["images"] == 60 * 32
    assert (found["fitted"]["dropout"], found["fitted"]["augment"]) == fit_recipe.regularisation(60 * 32 / len(images))
    assert found["fitted"]["dropout"] != fit_recipe.fit(ctx.config.train, images, "cpu")["fitted"]["dropout"], "as was expected"
    assert found["reasons"]["dropout"] == f"the image drawn most often is seen {60 * 32 / len(images):,.0f} times"
    assert json.loads((ctx.out / "model.json").read_text())["network"]["dropout"] == found["fitted"]["dropout"]
    fixed = auto(tmp_path / "b", **asked | found["fitted"])
    train.run(fixed)
    assert (ctx.out / "model.safetensors").read_bytes() == (fixed.out / "model.safetensors").read_bytes()


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


def test_near_duplicates_are_looked_at_as_one_image():
    images = cohort()
    groups = np.full(60, -1)
    groups[:10], groups[30:36] = 0, 1  # of train, and of val
    twins = renamed(images, duplicate_group=groups)
    found = train._validation(twins, twins.split("train"), Conditions(images.classes), 0)
    assert sum(patient in {f"p{n}" for n in range(10)} for patient in found.train.groups) <= 1
    assert sum(patient in {f"p{n}" for n in range(30, 36)} for patient in found.val.groups) <= 1
    whole = train._validation(images, images.split("train"), Conditions(images.classes), 0)
    assert set(found.val.groups) < set(whole.val.groups), "the half of val is the same"


def test_many_copies_of_one_image_are_no_memory(brief, tmp_path):
    """Of 30 training images 20 are one picture, of other patients: its loss is lower from the first step on, and is no image's more."""
    rng = np.random.default_rng(0)
    pixels, groups = rng.integers(0, 255, (120, 1, 16, 16), dtype=np.uint8), np.full(120, -1)
    pixels[:20], groups[:20] = pixels[0], 0
    rows = {"id": [f"i{n}" for n in range(120)], "split": np.repeat(["train", "audit", "val", "test"], 30), "duplicate_group": groups}
    table = pd.DataFrame(rows | {"patient": rows["id"]} | finding_columns(np.arange(120) % 2, ("healthy", "ill")))
    ctx = auto(tmp_path, ImageSet(pixels, table))
    train.run(ctx)
    found = json.loads((ctx.out / "model.json").read_text())["validation"]["ratio"]
    assert found["value"] < 1.2


@pytest.mark.slow
def test_a_fixed_length_needs_nobody_in_val(tmp_path):
    ctx = context(tmp_path, with_patients_in_val(3))
    train.run(ctx)
    assert "validation" not in json.loads((ctx.out / "model.json").read_text())
    assert written(ctx)["curve"] == []


@pytest.mark.slow
def test_plan_and_show_say_what_is_left_to_the_cohort_and_then_what_was_settled(brief, tmp_path):
    ctx = auto(tmp_path)
    before = recipe_lines(ctx.config, planned("not finished yet"), out=tmp_path)
    assert before == ["fitted to the cohort when it is trained: images, dropout, augment"]
    train.run(ctx)
    recipe = written(ctx)
    after = recipe_lines(ctx.config, planned(None), out=tmp_path)
    assert after[0] == f"images in training ({recipe['chosen']['why']}): {recipe['chosen']['images']}"
    assert [line.partition(" (")[0] for line in after[1:]] == ["dropout", "augmentation"]
    assert recipe_lines(context(tmp_path / "fixed").config, planned(None)) == []
    artifacts.publish(ctx.out, {"stage": "train"})
    stream = io.StringIO()
    show(tmp_path, Console(file=stream, width=250))
    assert recipe["chosen"]["why"] in stream.getvalue()


def test_plan_says_of_another_configuration_nothing_that_was_settled(tmp_path):
    config, recipe = auto(tmp_path).config, {"fitted": {"images": 480}, "reasons": {"images": "so"}}
    left = ["fitted to the cohort when it is trained: images, dropout, augment"]
    artifacts.write_json(tmp_path / "train" / "recipe.json", recipe)
    assert recipe_lines(config, planned("train.batch changed"), out=tmp_path) == left
    attempt = tmp_path / artifacts.UNFINISHED / "train"
    folders.open_stage(attempt, {"stage": "train", "seed": 1}, resumable=True, private=True)
    artifacts.write_json(attempt / "recipe.json", recipe)
    assert recipe_lines(config, planned("not finished yet", seed=2), out=tmp_path) == left
    assert recipe_lines(config, planned("not finished yet", seed=1), out=tmp_path) == [
        "images in training (at most: so; less where the losses part): 480"
    ]
    waits = Step(BY_NAME["train"], None, "ingest runs first", replaces=True)
    assert recipe_lines(config, waits, out=tmp_path) == left


def test_a_ceiling_at_the_first_look_does_not_say_that_the_losses_did_not_part(brief, tmp_path):
    ctx = auto(tmp_path, batch=256)
    train.run(ctx)
    recipe = written(ctx)
    assert len(recipe["curve"]) == 1
    assert "first look" in recipe["chosen"]["why"]
    assert recipe["chosen"]["why"].endswith(f": {recipe['reasons']['images']}"), "which ceiling that is"
    assert "before the losses parted" not in recipe["chosen"]["why"]


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
    astray = training_curve({"curve": [moment | {"train": [4e6] * 4} for moment in moments]})
    assert float(astray.up[-1][1]) >= 4e6, "a training that went astray has a curve too"
    many = training_curve({"curve": [moments[0] | {"images": 1000 + 10 * k} for k in range(2999)]})
    assert [len(points) for _, _, points in many.lines] == [MOST, MOST]
    assert many.lines[0][2][-1][0] == pytest.approx(1)
