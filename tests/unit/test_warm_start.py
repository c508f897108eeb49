"""Weights from another run, to start from or to be guided by: refused unless their patients are shown to be this cohort's own or others."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from trainings import SMALL, cohort, context, finished, later, renamed

from pipeline import artifacts, generate, train, warm_start
from pipeline import given as outside
from pipeline.artifacts import file_digest
from pipeline.config import Config
from pipeline.errors import InputError, Stopped
from pipeline.stages import BY_NAME, identity
from pipeline.warm_start import weights_file
from privacy.judgements import STARTED


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_start, "project_key", lambda run: b"one")


@pytest.mark.slow
def test_a_warm_start_takes_over_weights_and_classes_and_leaves_frozen_parts(tmp_path):
    first = finished(tmp_path / "first", widths=(16, 32))
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
    assert warm_start.trained_beside(ctx.out) == STARTED[1], "which the gate reads"
    assert torch.equal(weights["network.stem.weight"], earlier["network.stem.weight"])
    assert not torch.equal(weights["network.head.weight"], earlier["network.head.weight"])
    before, after = earlier["network.condition.label.weight"], weights["network.condition.label.weight"]
    assert torch.equal(after, before[[1, 0, 2, 2]])


@pytest.mark.slow
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
    assert warm_start.trained_beside(ctx.out) == STARTED[2]


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
    finished(tmp_path / "first", widths=(16, 32))
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
    first = finished(tmp_path / "first", **theirs)
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
    first = finished(tmp_path / "first", **theirs)
    ctx = later(tmp_path / "later", renamed(cohort(), **columns), start_from=str(first), widths=[16], **mine)
    train.run(ctx)
    patients = json.loads((ctx.out / "model.json").read_text())["warm_start"]["patients"]
    assert said in patients
    assert warm_start.saw_train(first, patients, ctx.records["ingest"]) == (said == "this run's train split alone")


def test_weights_that_began_elsewhere_have_seen_what_they_were_trained_on_since(tmp_path):
    first = finished(tmp_path / "first")
    begun_elsewhere(first)
    ctx = later(tmp_path / "later", cohort(), start_from=str(first), widths=[16])
    patients = warm_start.check_patients(ctx.config.train, ctx.run, ctx.folder("ingest"), ctx.records["ingest"])
    assert "declared" in patients
    assert warm_start.saw_train(first, patients, ctx.records["ingest"])


def test_a_length_that_fits_itself_minds_what_the_earlier_weights_remember(tmp_path, monkeypatch):
    told = []

    def course(*given, remembers):
        told.append(remembers)
        raise Stopped

    monkeypatch.setattr(train, "Course", course)
    first = finished(tmp_path / "first")
    for place, columns in (("own", {}), ("other", OTHERS)):
        ctx = later(tmp_path / place, renamed(cohort(), **columns), start_from=str(first), widths=[16])
        section = ctx.config.train.model_copy(update={"images": "auto"})
        with pytest.raises(Stopped):
            train.run(dataclasses.replace(ctx, config=ctx.config.model_copy(update={"train": section})))
    assert told == [True, False]


def test_a_guide_that_was_trained_on_other_images_is_refused(tmp_path):
    for name, seed in (("mine", 0), ("same", 0), ("other", 7)):
        finished(tmp_path / name, seed=seed)
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


def test_other_weights_change_what_a_training_is_and_their_place_does_not(tmp_path):
    for name, seed in (("first", 0), ("second", 7)):
        finished(tmp_path / name, seed=seed)
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
