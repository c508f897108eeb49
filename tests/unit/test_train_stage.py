"""The train stage: stopping on request, snapshots, MONAI's backbone, damaged checkpoints, and what its errors say."""

import dataclasses
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from trainings import SMALL, cohort, context, put_trained, renamed, spoiled, stopped_in_the_middle

from pipeline import artifacts, generate, tensors, train
from pipeline.conditions import Combination, Conditions
from pipeline.config import Config
from pipeline.denoiser import build_denoiser, load_denoiser
from pipeline.diffusion import validation
from pipeline.diffusion.training import BatchTooLarge, Training
from pipeline.errors import InputError
from pipeline.images import ImageSet


def test_a_request_to_stop_leaves_a_checkpoint_from_which_the_same_weights_follow(tmp_path, monkeypatch):
    straight, stopped = context(tmp_path / "a", cohort()), context(tmp_path / "b", cohort())
    train.run(straight)
    before = signal.getsignal(signal.SIGTERM)
    assert "stopped at image 112; its checkpoint is written" in stopped_in_the_middle(stopped, monkeypatch)
    assert signal.getsignal(signal.SIGTERM) == before
    train.run(stopped)
    for name in ("model.safetensors", "model.json", "mixture.safetensors"):
        assert (stopped.out / name).read_bytes() == (straight.out / name).read_bytes()
    assert sorted(path.name for path in stopped.out.iterdir()) == [
        *("metrics.jsonl", "mixture.safetensors", "model.json", "model.safetensors", "recipe.json")
    ]


def test_the_loss_on_unseen_images_is_logged_at_each_checkpoint_and_told_in_the_end(tmp_path):
    summary = train.run(context(tmp_path, cohort()))
    lines = [json.loads(line) for line in (tmp_path / "train" / "metrics.jsonl").read_text().splitlines()]
    seen = [line for line in lines if "val" in line]
    assert [line["step"] for line in seen] == [4, 8, 12, 16, 20]
    assert all(len(line["val"]) == len(line["train"]) == 4 for line in seen)
    assert [line["step"] for line in lines if "loss" in line] == [4, 8, 12, 16, 20]
    told = json.loads((tmp_path / "train" / "model.json").read_text())["validation"]
    assert (told["val"], told["train"]) == (seen[-1]["val"], seen[-1]["train"])
    assert summary["unseen_to_seen"].startswith(f"{told['ratio']['value']:.3f} (")
    assert told["ratio"]["n"] in (7, 8), "half of 15 patients of val"


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"plan": [{"findings": ["il"], "count": 1}]}, "no finding 'il': did you mean ill. use healthy, ill"),
        ({"plan": [{"findings": ["ill"], "attributes": {"sex": "F"}, "count": 1}]}, "no attribute 'sex'"),
        ({"per_class": 1, "weights": {"sex": 2}}, "generate.weights: the model knows no 'sex'"),
        ({"per_class": 1, "negative_class": "il", "guidance_scale": 2}, "'il' is no class of the model"),
    ],
)
def test_what_the_model_will_not_know_is_told_before_the_training(tmp_path, monkeypatch, asked, why):
    monkeypatch.setattr(Training, "run", lambda *args, **options: pytest.fail("trained"))
    ctx = context(tmp_path, cohort())
    generate_section = type(ctx.config.generate).model_validate(asked)
    with pytest.raises(InputError, match=why):
        train.run(dataclasses.replace(ctx, config=ctx.config.model_copy(update={"generate": generate_section})))


def test_a_finding_of_nearly_nobody_is_told_before_the_training(tmp_path, monkeypatch):
    findings = np.repeat(np.array([[1, 0], [0, 0], [0, 1]], np.int8), [20, 20, 3], axis=0)
    learned = Conditions(("effusion", "hernia"), True, (), Combination.learned(findings, np.arange(43)))
    notes = []
    ctx = context(tmp_path, cohort())
    monkeypatch.setattr(ctx.reporter, "note", notes.append)
    train._tell_what_is_made(ctx, learned)
    [note] = notes
    assert note.startswith("fewer than 11 training patients have hernia: images of it are made all the same, and marked unseen")


def test_fields_are_read_where_a_text_is_and_a_model_of_before_that_did_not_still_loads(tmp_path):
    reads = {"vocabulary": ("effusion", "left"), "longest": 4}
    section = context(tmp_path).config.train
    told = [train.describe(section, cohort(), 0.5, Conditions(("healthy", "ill"), True, **more)) for more in (reads, {})]
    assert ["fields_read" in model for model in told] == [True, False], "without a text a model is described as it always was"
    for model in (told[0], {key: value for key, value in told[0].items() if key != "fields_read"}):
        denoiser = build_denoiser(model)
        assert any("text.fields" in name for name, _ in denoiser.named_parameters()) == ("fields_read" in model)
        tensors.write(denoiser.state_dict(), tmp_path / "model.safetensors")
        (tmp_path / "model.json").write_text(json.dumps(model))
        assert load_denoiser(tmp_path, "cpu")[1] == json.loads(json.dumps(model))


def test_a_training_without_anybody_to_validate_on_is_logged_as_before(tmp_path):
    images = cohort()
    ctx = context(tmp_path, renamed(images, split=images.rows["split"].replace("val", "test")))
    assert "unseen_to_seen" not in train.run(ctx)
    assert "validation" not in json.loads((ctx.out / "model.json").read_text())
    assert '"val"' not in (ctx.out / "metrics.jsonl").read_text()


@pytest.mark.slow
def test_what_a_network_explains_is_nothing_at_first_and_most_of_a_simple_target_in_the_end(tmp_path):
    found = []
    for length in (16, 16 * 150):
        ctx = context(tmp_path / str(length), cohort(), learning_rate=5e-3, widths=[16])
        section = ctx.config.train.model_copy(update={"images": length})
        found.append(train.run(dataclasses.replace(ctx, config=ctx.config.model_copy(update={"train": section})))["explained"])
    assert abs(found[0]) < 0.1
    assert found[1] > 0.4


def test_a_training_that_learns_nothing_says_so_and_leaves_no_model(tmp_path, monkeypatch):
    monkeypatch.setattr(validation, "LEARNS_IN", 20)
    right = Training.averaged
    # Weights that have gone astray: what is left of them is noise.
    monkeypatch.setattr(Training, "averaged", lambda self: {name: torch.randn_like(value) for name, value in right(self).items()})
    ctx = context(tmp_path, cohort())
    with pytest.raises(InputError, match=r"after 20 steps the network predicts no better than one that never learned"):
        train.run(ctx)
    assert not (ctx.out / "model.safetensors").exists()


def test_averages_stored_while_training_give_the_width_that_generation_asks_for(tmp_path):
    ctx = context(tmp_path, cohort(), ema=0.1, ema_snapshots=5)
    train.run(ctx)
    model = json.loads((ctx.out / "model.json").read_text())
    learned = cohort().split("train").images
    assert model["greys"] == [learned.min(), learned.max()]
    assert model["ema"] == {"widths": [0.05, 0.1], "steps": [4, 8, 12, 16, 20]}
    denoiser, model = load_denoiser(ctx.out, "cpu")
    tracked = {name: value.clone() for name, value in denoiser.state_dict().items()}
    generate.average(denoiser, ctx.out, model, 0.1)
    for name, value in denoiser.state_dict().items():
        torch.testing.assert_close(value, tracked[name], atol=2e-3, rtol=2e-3)
    made = generate.run(context(tmp_path, stage="generate", ema=0.07))
    assert made["images"] == 6


@pytest.mark.parametrize("objective", ["edm", "v"])
def test_monais_network_trains_and_generates_like_our_own(tmp_path, objective):
    settings = {"backbone": "monai", "widths": [16, 32], "attention": [4], "patch": 2, "objective": objective}
    schedule = "edm" if objective == "edm" else "ddpm_cosine"
    summary = train.run(context(tmp_path, cohort(side=18), **settings, noise_schedule=schedule))
    assert summary["steps_skipped"] == 0
    assert generate.run(context(tmp_path, stage="generate"))["images"] == 6
    assert ImageSet.load(tmp_path / "generate").images.shape == (6, 1, 18, 18)


@pytest.mark.parametrize("upsample", ["convolve", "shuffle"])
def test_weights_are_read_into_the_network_that_was_trained(tmp_path, upsample):
    ctx = context(tmp_path, cohort(), upsample=upsample)
    train.run(ctx)
    denoiser, model = load_denoiser(ctx.out, "cpu")
    assert model["upsample"] == upsample
    weights = load_file(ctx.out / "model.safetensors")
    assert all(torch.equal(value, weights[name]) for name, value in denoiser.state_dict().items())


def test_a_model_from_before_the_decoder_had_a_choice_is_still_read(tmp_path):
    ctx = context(tmp_path, cohort())
    put_trained(ctx)
    path = ctx.out / "model.json"
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "upsample"}))
    load_denoiser(ctx.out, "cpu")


def test_monais_network_is_told_the_time_steps_of_its_schedule():
    from pipeline.diffusion.monai_unet import MonaiUNet
    from pipeline.diffusion.schedules import level

    layout = {"channels": 1, "classes": 2, "size": 16, "widths": (16, 32), "blocks": 1, "attention": (), "patch": 1}
    network = MonaiUNet(**layout, noise_schedule="ddpm_linear")
    sigma = torch.from_numpy(level("ddpm_linear", np.array([1, 500, 1000]) / 1000))
    torch.testing.assert_close(network._time_step(sigma.log().float() / 4), torch.tensor([0.0, 499.0, 999.0]), atol=1e-2, rtol=0)
    edm = MonaiUNet(**layout)
    torch.testing.assert_close(edm._time_step(torch.tensor([-1.0, 0.0, 1.0])), 250 * torch.tensor([-1.0, 0.0, 1.0]) + 499.5, atol=1, rtol=0)


def test_what_monais_network_does_not_know_is_refused():
    with pytest.raises(ValueError, match=r"backbone monai needs train\.augment=0"):
        Config.model_validate(
            {
                "name": "x",
                "ingest": {"source": "phantom"},
                "generate": {"per_class": 1},
                "train": SMALL | {"backbone": "monai", "augment": 0.1},
            }
        )


SNAPSHOTS = {"ema_snapshots": 5, "widths": [16]}


@pytest.fixture(scope="module")
def straight_and_stopped(tmp_path_factory):
    """The digests of a training that nobody stopped, and the folder of a run whose training was."""
    folder = tmp_path_factory.mktemp("stopped")
    straight, stopped = (context(folder / name, cohort(), **SNAPSHOTS) for name in ("straight", "stopped"))
    train.run(straight)
    with pytest.MonkeyPatch.context() as patch:
        stopped_in_the_middle(stopped, patch)
    return artifacts.folder_digests(straight.out), stopped.run


@pytest.mark.parametrize("what", ["checkpoint/state.*.safetensors", "ema/*.safetensors", "recipe.json"])
@pytest.mark.parametrize("how", [lambda path: spoiled(path, 0.02), lambda path: spoiled(path, 0.99), Path.unlink])
def test_a_damaged_checkpoint_starts_over_and_ends_the_same(straight_and_stopped, tmp_path, what, how):
    straight, stopped = straight_and_stopped
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    again = context(tmp_path, **SNAPSHOTS)
    [path] = sorted(again.out.glob(what))[:1]
    how(path)
    train.run(again)
    assert artifacts.folder_digests(again.out) == straight


def test_a_ctrl_c_that_becomes_a_librarys_error_costs_no_checkpoint(straight_and_stopped, tmp_path, monkeypatch):
    straight, stopped = straight_and_stopped
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    again = context(tmp_path, **SNAPSHOTS)

    def interrupted(path, device):
        raise SafetensorError("KeyboardInterrupt")

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.load_file", interrupted)
        with pytest.raises(InputError):
            train.run(again)
    assert artifacts.folder_digests(again.out) == artifacts.folder_digests(stopped / "train")
    taken = []
    monkeypatch.setattr(Training, "load", lambda self, state, right=Training.load: (taken.append(int(state["step"])), right(self, state)))
    train.run(again)
    assert taken == [7]
    assert artifacts.folder_digests(again.out)["model.safetensors"] == straight["model.safetensors"]


def test_a_damaged_batch_of_images_is_made_again(tmp_path, monkeypatch):
    put_trained(context(tmp_path, cohort()))
    whole = context(tmp_path, stage="generate", batch=2)
    generate.run(whole)
    images = ImageSet.load(whole.out).images.copy()
    with monkeypatch.context() as patch:
        patch.setattr(generate.shutil, "rmtree", lambda path: None)
        generate.run(whole)
    parts = sorted((whole.out / "partial").glob("*.npy"))
    spoiled(parts[0], 0.99)
    parts[1].write_bytes(b"")
    np.save(whole.out / "partial" / "0000004.0123456789abcdef.npy", np.zeros((2, 1, 16, 16), np.uint8))
    generate.run(whole)
    np.testing.assert_array_equal(ImageSet.load(whole.out).images, images)


def test_a_batch_that_does_not_fit_is_answered_with_the_settings_that_do(tmp_path, monkeypatch):
    ctx = context(tmp_path, cohort())

    def fail(self: Training, **_: object) -> None:
        raise BatchTooLarge(16, 5)

    monkeypatch.setattr(Training, "run", fail)
    with pytest.raises(InputError, match=r"train\.batch=16 does not fit into memory: the largest that does is 5 .* train\.accumulate=4"):
        train.run(ctx)


def test_mean_and_spread_are_those_of_the_whole_set_whatever_the_chunks(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (37, 2, 5, 6), dtype=np.uint8)
    unit = images.astype(np.float64) / 127.5 - 1
    monkeypatch.setattr(train, "CHUNK", 10)
    mean, spread = train.mean_and_spread(images)
    np.testing.assert_allclose(mean, unit.mean(axis=0), atol=1e-6)
    assert spread == pytest.approx((unit - unit.mean(axis=0)).std(), rel=1e-5)


def test_the_recipe_takes_every_setting_of_the_same_name():
    settings = Config.model_validate(
        {"name": "x", "ingest": {"source": "phantom"}, "generate": {"per_class": 1}, "train": SMALL | {"ema_snapshots": 3, "decay": 0.0}}
    ).train
    made = train.recipe(settings)
    for field in dataclasses.fields(made):
        expected = settings.ema_snapshots if field.name == "snapshots" else getattr(settings, field.name)
        assert getattr(made, field.name) == expected
