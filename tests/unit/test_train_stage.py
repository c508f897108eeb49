"""The train stage: stopping on request, snapshots, warm starts, MONAI's backbone, and what its errors say."""

import dataclasses
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline import artifacts, generate, train, warm_start
from pipeline import given as outside
from pipeline.artifacts import file_digest
from pipeline.config import Config
from pipeline.context import Context
from pipeline.diffusion.training import BatchTooLarge, Training
from pipeline.errors import InputError, Stopped
from pipeline.images import ImageSet, finding_columns
from pipeline.progress import Reporter
from pipeline.stages import BY_NAME, identity
from pipeline.warm_start import weights_file

SMALL = {
    "images": 320,
    "batch": 16,
    "widths": [16, 32],
    "blocks": 1,
    "attention": [],
    "augment": 0.0,
    "dropout": 0.0,
    "checkpoint_images": 64,
}


def cohort(classes: tuple[str, ...] = ("healthy", "ill"), side: int = 16, seed: int = 0) -> ImageSet:
    rng = np.random.default_rng(seed)
    labels = np.arange(60) % len(classes)
    images = np.clip(60 * labels[:, None, None, None] + rng.integers(0, 60, (60, 1, side, side)), 0, 255).astype(np.uint8)
    split = np.repeat(["train", "audit", "val", "test"], 15)
    rows = {"id": [f"i{n}" for n in range(60)], "patient": [f"p{n}" for n in range(60)], "split": split}
    return ImageSet(images, pd.DataFrame(rows | finding_columns(labels, classes)))


def context(run: Path, images: ImageSet | None = None, stage: str = "train", **settings: object) -> Context:
    config = Config.model_validate(
        {
            "name": "small",
            "ingest": {"source": "phantom"},
            "train": SMALL | (settings if stage == "train" else {}),
            "generate": {"per_class": 3, "steps": 4} | (settings if stage == "generate" else {}),
        }
    )
    if images is not None:
        images.save(run / "ingest")
    (run / stage).mkdir(parents=True, exist_ok=True)
    return Context(config, run, run / stage, False, Reporter(run / "log.jsonl"), {})


def finished(run: Path, images: ImageSet | None = None, key: str = "one", unit: str = "patient", **settings: object) -> Path:
    """A run whose ingest and train are finished, with their records, from patients under a project key."""
    ctx = context(run, images or cohort())
    facts = {
        "classes": [],
        "unit": unit,
        "key_mark": artifacts.key_mark(key.encode()),
        "source": {"dataset": str(settings.pop("dataset", ""))},
    }
    artifacts.write_json(run / "ingest" / "cohort.json", facts)
    ingest = artifacts.publish(run / "ingest", {"stage": "ingest"})
    train.run(context(run, **settings))
    artifacts.publish(ctx.out, {"stage": "train", "inputs": {"ingest": ingest["digest"]}})
    return run


def later(run: Path, images: ImageSet, key: str = "one", unit: str = "patient", dataset: str = "", **settings: object) -> Context:
    """The train stage of a run whose ingest is finished."""
    ctx = context(run, images, **settings)
    facts = {"classes": [], "unit": unit, "key_mark": artifacts.key_mark(key.encode()), "source": {"dataset": dataset}}
    artifacts.write_json(run / "ingest" / "cohort.json", facts)
    return dataclasses.replace(ctx, records={"ingest": artifacts.publish(run / "ingest", {"stage": "ingest"})})


def renamed(images: ImageSet, **columns: object) -> ImageSet:
    return ImageSet(images.images, images.rows.assign(**columns))


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_start, "project_key", lambda run: b"one")


def test_a_request_to_stop_leaves_a_checkpoint_from_which_the_same_weights_follow(tmp_path, monkeypatch):
    straight, stopped = context(tmp_path / "a", cohort()), context(tmp_path / "b", cohort())
    train.run(straight)
    right = Training._take_step

    def step(self: Training) -> torch.Tensor:
        if self.step == 6:
            signal.raise_signal(signal.SIGTERM)
        return right(self)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(Training, "_take_step", step)
        with pytest.raises(Stopped, match="stopped at image 112; its checkpoint is written"):
            train.run(stopped)
    assert signal.getsignal(signal.SIGTERM) == before
    train.run(stopped)
    for name in ("model.safetensors", "model.json", "mixture.safetensors"):
        assert (stopped.out / name).read_bytes() == (straight.out / name).read_bytes()
    assert sorted(path.name for path in stopped.out.iterdir()) == [
        *("metrics.jsonl", "mixture.safetensors", "model.json", "model.safetensors")
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


def test_a_training_without_anybody_to_validate_on_is_logged_as_before(tmp_path):
    images = cohort()
    ctx = context(tmp_path, renamed(images, split=images.rows["split"].replace("val", "test")))
    assert "unseen_to_seen" not in train.run(ctx)
    assert "validation" not in json.loads((ctx.out / "model.json").read_text())
    assert '"val"' not in (ctx.out / "metrics.jsonl").read_text()


def test_what_a_network_explains_is_nothing_at_first_and_most_of_a_simple_target_in_the_end(tmp_path):
    found = []
    for length in (16, 16 * 300):
        ctx = context(tmp_path / str(length), cohort(), learning_rate=5e-3)
        section = ctx.config.train.model_copy(update={"images": length})
        found.append(train.run(dataclasses.replace(ctx, config=ctx.config.model_copy(update={"train": section})))["explained"])
    assert abs(found[0]) < 0.1
    assert found[1] > 0.4


def test_a_training_that_learns_nothing_says_so_and_leaves_no_model(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "LEARNS_IN", 20)
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
    assert model["ema"] == {"widths": [0.05, 0.1], "steps": [4, 8, 12, 16, 20]}
    denoiser, model = train.load_denoiser(ctx.out, "cpu")
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
    denoiser, model = train.load_denoiser(ctx.out, "cpu")
    assert model["upsample"] == upsample
    weights = load_file(ctx.out / "model.safetensors")
    assert all(torch.equal(value, weights[name]) for name, value in denoiser.state_dict().items())


def test_a_model_from_before_the_decoder_had_a_choice_is_still_read(tmp_path):
    ctx = context(tmp_path, cohort())
    train.run(ctx)
    path = ctx.out / "model.json"
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "upsample"}))
    train.load_denoiser(ctx.out, "cpu")


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


def test_a_warm_start_takes_over_weights_and_classes_and_leaves_frozen_parts(tmp_path):
    first = finished(tmp_path / "first")
    earlier = load_file(first / "train" / "model.safetensors")
    ctx = later(
        tmp_path / "later",
        renamed(cohort(("ill", "well", "worse"), seed=1), patient=[f"q{n}" for n in range(60)], id=[f"j{n}" for n in range(60)]),
        start_from=str(tmp_path / "first"),
        start_classes={"well": "healthy"},
        frozen=["network.down", "network.stem", "network.condition"],
    )
    train.run(ctx)
    weights, model = load_file(ctx.out / "model.safetensors"), json.loads((ctx.out / "model.json").read_text())
    assert model["warm_start"]["new_classes"] == ["worse"]
    assert "other patients" in model["warm_start"]["patients"]
    assert torch.equal(weights["network.stem.weight"], earlier["network.stem.weight"])
    assert not torch.equal(weights["network.head.weight"], earlier["network.head.weight"])
    before, after = earlier["network.condition.label.weight"], weights["network.condition.label.weight"]
    assert torch.equal(after, before[[1, 0, 2, 2]])


def test_a_warm_start_reads_the_weights_of_monais_bare_network(tmp_path):
    from pipeline.diffusion.monai_unet import MonaiUNet

    layout = {"channels": 1, "size": 16, "widths": (16, 32), "blocks": 1, "attention": (), "patch": 1}
    public = MonaiUNet(classes=5, **layout).net
    save_file(public.state_dict(), tmp_path / "public.safetensors")
    settings = {"backbone": "monai", "patch": 1, "start_from": str(tmp_path / "public.safetensors"), "frozen": ["network.net.conv_in"]}
    with pytest.raises(InputError, match=r"do not show on whom they were trained.*train\.start_trained_on"):
        train.run(context(tmp_path, cohort(), **settings))
    ctx = context(tmp_path, cohort(), **settings, start_trained_on="photographs of everyday things, no patient among them")
    train.run(ctx)
    weights = load_file(ctx.out / "model.safetensors")
    assert torch.equal(weights["network.net.conv_in.conv.weight"], public.conv_in.conv.weight)
    said = json.loads((ctx.out / "model.json").read_text())["warm_start"]
    assert said["new_classes"] == ["healthy", "ill"]
    assert said["patients"] == "declared, not verified: photographs of everyday things, no patient among them"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widths": [24, 48]}, "parameters fit this network"),
        ({"frozen": ["network.nothing"]}, "no part 'network.nothing'; the parts are log_variance.*network.condition"),
        ({"frozen": ["network", "log_variance"]}, "leaves nothing to train"),
        ({"start_classes": {"ill": "poorly"}}, "no class poorly; this run has healthy, ill, the earlier one healthy, ill"),
    ],
)
def test_a_warm_start_that_cannot_be_meant_says_why(tmp_path, settings, message):
    finished(tmp_path / "first")
    ctx = later(tmp_path / "later", cohort(), **({"start_from": str(tmp_path / "first" / "train")} | settings))
    with pytest.raises(InputError, match=message):
        train.run(ctx)


SWAPPED = np.array(["audit"] * 15 + ["train"] * 15 + ["val"] * 15 + ["test"] * 15)
OTHERS = {"patient": [f"q{n}" for n in range(60)], "id": [f"j{n}" for n in range(60)]}
MIXED = {"patient": [f"p{n}" if n < 10 else f"q{n}" for n in range(60)], "id": OTHERS["id"]}


def edited(run: Path) -> None:
    rows = pd.read_parquet(run / "ingest" / "rows.parquet")
    rows.assign(patient="q" + rows["patient"], id="j" + rows["id"]).to_parquet(run / "ingest" / "rows.parquet", index=False)


def other_weights(run: Path) -> None:
    weights = load_file(run / "train" / "model.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, run / "train" / "model.safetensors")


def without_its_ingest(run: Path) -> None:
    shutil.rmtree(run / "ingest")


def without_its_record(run: Path) -> None:
    (run / "train" / "record.json").unlink()


def with_another_ingest(run: Path) -> None:
    shutil.rmtree(run / "ingest")
    later(run, renamed(cohort(), **OTHERS))


def begun_elsewhere(run: Path) -> None:
    path = run / "train" / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"warm_start": {"patients": "declared, not verified: some"}}))
    record = json.loads((run / "train" / "record.json").read_text())
    artifacts.publish(run / "train", record["identity"])


@pytest.mark.parametrize(
    ("columns", "theirs", "mine", "spoil", "message"),
    [
        ({"split": SWAPPED}, {}, {}, None, "15 patients that the earlier run trained on are in this run's audit"),
        ({"split": SWAPPED, "patient": OTHERS["patient"]}, {}, {}, None, "15 patients"),  # the same images under other patients
        (MIXED, {}, {}, None, "for whom nobody would look"),
        (OTHERS, {"key": "two"}, {}, None, "another project key"),
        (OTHERS, {}, {"key": "two"}, None, "another project key"),
        (OTHERS, {"unit": "image"}, {}, None, "cannot be compared"),
        (OTHERS, {"unit": "image"}, {"unit": "image"}, None, "nothing shows"),
        (OTHERS, {"unit": "image", "dataset": "a"}, {"unit": "image", "dataset": "a"}, None, "nothing shows"),
        (OTHERS, {}, {}, edited, "ingest/rows.parquet is damaged"),
        (OTHERS, {}, {}, other_weights, "train/model.safetensors is damaged"),
        (OTHERS, {}, {}, without_its_ingest, "not there or another"),
        (OTHERS, {}, {}, with_another_ingest, "not there or another"),
        (OTHERS, {}, {}, without_its_record, "do not show on whom"),
        (OTHERS, {}, {}, begun_elsewhere, "began itself from weights"),
        (OTHERS, {}, {"start_trained_on": "nothing but noise"}, None, "leave it out"),
    ],
)
def test_a_warm_start_whose_patients_are_not_shown_is_refused(tmp_path, columns, theirs, mine, spoil, message):
    first = finished(tmp_path / "first", widths=[16], **theirs)
    if spoil is not None:
        spoil(first)
    ctx = later(tmp_path / "later", renamed(cohort(), **columns), start_from=str(first), widths=[16], **mine)
    with pytest.raises(InputError, match=message):
        train.run(ctx)


@pytest.mark.parametrize(
    ("columns", "theirs", "mine", "said"),
    [
        ({}, {}, {}, "this run's train split alone"),
        ({"id": OTHERS["id"]}, {}, {}, "this run's train split alone"),  # other images of the same patients
        (OTHERS, {}, {}, "none of whom is in this cohort"),
        (OTHERS, {"unit": "image", "dataset": "a"}, {"unit": "image", "dataset": "b"}, "none of whom is in this cohort"),
    ],
)
def test_a_warm_start_whose_patients_are_shown_is_taken(tmp_path, columns, theirs, mine, said):
    first = finished(tmp_path / "first", widths=[16], **theirs)
    ctx = later(tmp_path / "later", renamed(cohort(), **columns), start_from=str(first), widths=[16], **mine)
    train.run(ctx)
    assert said in json.loads((ctx.out / "model.json").read_text())["warm_start"]["patients"]


def test_a_guide_that_was_trained_on_other_images_is_refused(tmp_path):
    for name, images in (("mine", cohort()), ("same", cohort()), ("other", cohort(seed=7))):
        finished(tmp_path / name, images, widths=[16])
    records = {"train": artifacts.load_record(tmp_path / "mine" / "train")}
    for guide, message in (("other", "another ingest"), ("bare", "not the train folder of a finished run"), ("same", None)):
        if guide == "bare":
            shutil.copytree(tmp_path / "same" / "train", tmp_path / "bare" / "train")
            (tmp_path / "bare" / "train" / "record.json").unlink()
        settings = {"autoguidance": str(tmp_path / guide / "train"), "guidance_scale": 2.0}
        ctx = dataclasses.replace(context(tmp_path / "mine", stage="generate", **settings), records=records)
        if message is None:
            assert generate.run(ctx)["images"] == 6
        else:
            with pytest.raises(InputError, match=message):
                generate.run(ctx)


def test_an_autoguidance_that_is_the_other_model_is_no_configuration():
    for scale in (0, 0.5, 0.99):
        with pytest.raises(ValueError, match="makes images of the other run's model"):
            Config.model_validate(
                {
                    "name": "x",
                    "ingest": {"source": "phantom"},
                    "train": SMALL,
                    "generate": {"per_class": 1, "autoguidance": "elsewhere", "guidance_scale": scale},
                }
            )


def spoiled(path: Path, place: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("what", ["checkpoint/state.*.safetensors", "ema/*.safetensors"])
@pytest.mark.parametrize("how", [lambda path: spoiled(path, 0.02), lambda path: spoiled(path, 0.99), Path.unlink])
def test_a_damaged_checkpoint_starts_over_and_ends_the_same(tmp_path, monkeypatch, what, how):
    settings = {"ema_snapshots": 5, "widths": [16]}
    straight, stopped = context(tmp_path / "a", cohort(), **settings), context(tmp_path / "b", cohort(), **settings)
    train.run(straight)
    right = Training._take_step

    def step(self: Training) -> torch.Tensor:
        if self.step == 6:
            signal.raise_signal(signal.SIGTERM)
        return right(self)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_take_step", step)
        with pytest.raises(Stopped):
            train.run(stopped)
    [path] = sorted(stopped.out.glob(what))[:1]
    how(path)
    train.run(stopped)
    assert artifacts.folder_digests(stopped.out) == artifacts.folder_digests(straight.out)


def test_a_damaged_batch_of_images_is_made_again(tmp_path, monkeypatch):
    train.run(context(tmp_path, cohort(), widths=[16]))
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


def test_other_weights_change_what_a_training_is_and_their_place_does_not(tmp_path):
    train.run(context(tmp_path / "first", cohort()))
    train.run(context(tmp_path / "second", cohort(seed=5)))
    (tmp_path / "moved").mkdir()
    for name in ("model.safetensors", "model.json"):
        (tmp_path / "moved" / name).write_bytes((tmp_path / "first" / "train" / name).read_bytes())
    ids = []
    for place in ("first", "moved", "second"):
        ctx = context(tmp_path / "later", start_from=str(tmp_path / place))
        given = {stage: {"other_weights": file_digest(path)} for stage, path in outside.other_weights(ctx.config).items()}
        ids.append(identity(BY_NAME["train"], ctx.config, given, {"ingest": {"digest": "x"}}))
    assert ids[0] == ids[1] != ids[2]
    with pytest.raises(InputError, match=r"no model\.safetensors there"):
        weights_file(tmp_path / "nowhere")


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
