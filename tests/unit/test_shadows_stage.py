"""The shadows stage: other trainings by the run's own recipe, resumed one by one, of which nothing stays but scores."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pipeline import artifacts, generate, shadows, train
from pipeline.api.runs import shadow_cost
from pipeline.conditions import Conditions
from pipeline.config import Config
from pipeline.context import Context
from pipeline.denoiser import build_denoiser
from pipeline.diffusion.conditioning import Condition
from pipeline.diffusion.training import Training
from pipeline.errors import InputError
from pipeline.images import ImageSet, finding_columns
from pipeline.progress import Console, Reporter
from pipeline.shadow_training import Shadows
from pipeline.show import show
from pipeline.stages import flow
from pipeline.wanted import wanted
from privacy.shadows import LEVELS

SMALL = {"images": 160, "batch": 16, "widths": [16, 32], "blocks": 1, "attention": [], "augment": 0.2, "dropout": 0.1}


def configuration(trainings=4, **sections):
    return Config.model_validate(
        {
            "name": "small",
            "seed": 5,
            "ingest": {"source": "phantom"},
            "train": SMALL | sections.get("train", {}),
            "generate": {"per_class": 6, "steps": 3, "batch": 8} | sections.get("generate", {}),
            "shadows": {"trainings": trainings, "draws": 1},
        }
    )


def cohort(patients=200):
    rng = np.random.default_rng(0)
    labels = np.arange(2 * patients) // 2 % 2
    images = np.clip(60 * labels[:, None, None, None] + rng.integers(0, 120, (2 * patients, 1, 16, 16)), 0, 255).astype(np.uint8)
    split = np.repeat(np.array(["train", "train", "audit", "val"])[rng.integers(0, 4, patients)], 2)
    rows = {
        "id": [f"i{n}" for n in range(2 * patients)],
        "patient": [f"p{n // 2}" for n in range(2 * patients)],
        "split": split,
        "site": np.where(np.arange(2 * patients) // 2 % 3 > 0, "north", "south"),
        "duplicate_group": np.where(np.arange(2 * patients) < 4, 0, -1),  # the first two patients have a picture in common
    }
    rows["split"][:4] = "train"
    return ImageSet(images, pd.DataFrame(rows | finding_columns(labels, ("healthy", "ill"))))


def context(run, config, stage="shadows"):
    (run / stage).mkdir(parents=True, exist_ok=True)
    return Context(config, run, run / stage, Reporter(run / "log.jsonl"), {})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run whose ingest, train and generate are finished."""
    run = tmp_path_factory.mktemp("run")
    cohort().save(run / "ingest")
    artifacts.write_json(run / "ingest" / "cohort.json", {"unit": "patient"})
    for stage, module in (("train", train), ("generate", generate)):
        module.run(context(run, configuration(), stage))
    return run


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def test_it_writes_what_the_gate_reads_and_keeps_nothing_of_the_shadows(run):
    summary = shadows.run(context(run, configuration()))
    found = json.loads((run / "shadows" / "shadows.json").read_text())
    rows = ImageSet.load(run / "ingest").rows
    assert (found["trainings"], found["unit"]) == (4, "patient")
    assert (found["members"], found["non_members"]) == tuple((rows["split"] == name).sum() for name in ("train", "audit"))
    for name in ("weights", "images"):
        assert {"value", "low", "high", "n"} == set(found[name]["auc"]) == set(found[name]["tpr_at_1pct_fpr"])
        assert 0 <= found[name]["auc"]["low"] <= found[name]["auc"]["high"] <= 1
        assert found["control"][name]["auc"]["n"] == 4
    assert found["control"]["auc"] == found["control"]["weights"]["twin"]
    assert found["weights"]["worst"]["name"] in ("healthy", "ill", "site north", "site south")
    assert sorted(path.name for path in (run / "shadows").iterdir()) == ["exposed.png", "scores.parquet", "shadows.json"]
    assert summary["trainings"] == 4
    scores = pd.read_parquet(run / "shadows" / "scores.parquet")
    assert set(scores["split"]) == {"train", "audit"}
    assert np.isfinite(scores[["weights", "images"]].to_numpy()).all()
    assert not set(scores["id"]) & set(json.dumps(found).split('"'))
    assert Image.open(run / "shadows" / "exposed.png").height > 100


@pytest.mark.slow
def test_interrupted_it_goes_on_with_the_next_training_and_ends_the_same(run, tmp_path, monkeypatch):
    config = configuration()
    straight = shutil.copytree(run, tmp_path / "straight")
    shadows.run(context(straight, config))
    trained = []
    right = Shadows.train

    def train_and_die(self, number, *rest):
        trained.append(number)
        if number == 2 and len(trained) == 3:
            raise KeyboardInterrupt
        return right(self, number, *rest)

    monkeypatch.setattr(Shadows, "train", train_and_die)
    with pytest.raises(KeyboardInterrupt):
        shadows.run(context(run, config))
    left = [path for path in (run / "shadows").rglob("*") if path.is_file()]
    assert {path.suffix for path in left} == {".npy"}, "what was measured, and no weights"
    assert sum(path.stat().st_size for path in left) < 2 * 400 * 60 * 8
    shadows.run(context(run, config))
    assert trained == [0, 1, 2, 2, 3]
    for name in ("shadows.json", "scores.parquet", "exposed.png"):
        assert (run / "shadows" / name).read_bytes() == (straight / "shadows" / name).read_bytes()
    assert not (run / "shadows" / "partial").exists()


@pytest.mark.slow
def test_a_damaged_measurement_is_made_again(run, monkeypatch):
    config, trained = configuration(), []
    pool, _, inside = shadows._pool_and_draws(config, run / "ingest")
    parts = run / "shadows" / "partial"
    parts.mkdir(parents=True)
    shadows.make_parts(shadows.Share(0, 2), config, run / "ingest", run / "train", parts, report=trained.append)
    assert len(list(parts.iterdir())) == 2
    assert trained[-1] == 2 * 2 * 160, "told for all ranks"
    path = sorted(parts.iterdir())[0]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    numbers = []
    right = Shadows.train
    monkeypatch.setattr(Shadows, "train", lambda self, number, *rest: (numbers.append(number), right(self, number, *rest))[1])
    shadows.run(context(run, config))
    assert numbers == [0, 1, 3]
    assert len(pool) == inside.shape[1]


@pytest.mark.parametrize("more", [{}, {"train": {"ema_snapshots": 2}, "generate": {"ema": 0.08}}, {"generate": {"levels": [0.02, 8]}}])
def test_a_shadow_is_the_training_that_a_run_on_its_images_would_be(run, tmp_path, more):
    """The second of two, trained in place, against the train and generate stages on a cohort of its images alone."""
    config = configuration(**more)
    pool, _, inside = shadows._pool_and_draws(config, run / "ingest")
    alone = pool.take(inside[1])
    trained = tmp_path / "alone" / "train"
    trained.mkdir(parents=True)
    model = train.describe(config.train, alone, 0.5)
    mean, _ = train.mean_and_spread(alone.images)
    seed = train.runtime.derive_seed(config.seed, "shadow", 1)
    torch.manual_seed(train.runtime.derive_seed(seed, "weights"))
    denoiser = build_denoiser(model, mean)
    condition = Condition.of_classes(alone.labels, 2)
    fresh = Training(
        denoiser,
        torch.from_numpy(np.array(alone.images)),
        condition,
        train.recipe(config.train),
        train.runtime.derive_seed(seed, "training"),
        alone.duplicates,
    )
    snapshots = []
    for moment in train.snapshot_steps(config.train) or [10]:
        fresh.run(until=moment)
        snapshots.append(fresh.snapshot() if more.get("train") else {})
    denoiser.load_state_dict(fresh.averaged())
    trainings = Shadows(config, pool, model, "cpu")
    trainings.train(0, inside[0])
    conditions = Conditions.of_model(model)
    asked = wanted(config, conditions)
    trainings.release(asked)
    again = trainings.train(1, inside[1])
    for name, value in denoiser.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert not again.training
    if config.generate.ema is not None:
        generate.use_average(denoiser, model, config.generate.ema, snapshots)
    mixture = None
    if generate.starts_on_mixture(config.generate):
        mixture = train.mixture_of(
            alone, conditions, train.runtime.derive_seed(train.runtime.derive_seed(seed, "training"), "mixture") % 2**32
        )
    sampling = generate.Sampling(denoiser.eval(), model, config.generate, "cpu", None, mixture)
    expected = [sampling(conditions.of(asked.take(rows)), asked.seeds[rows]) for rows in (slice(8), slice(8, 16))]
    assert np.array_equal(trainings.release(asked), np.concatenate(expected))


def test_draws_keep_twins_together_and_do_not_know_the_split(run):
    config = configuration(8)
    pool, _, inside = shadows._pool_and_draws(config, run / "ingest")
    assert set(pool.rows["split"]) == {"train", "audit"}
    assert (inside[:, pool.rows["id"].isin(["i0", "i1", "i2", "i3"]).to_numpy()].sum(axis=1) % 4 == 0).all()
    images = ImageSet.load(run / "ingest")
    healthy = pool.rows[(pool.rows["finding_healthy"] == 1) & (pool.rows["duplicate_group"] < 0)]
    first = healthy.groupby("split")["patient"].first()  # one of each side, who change places
    for mine, theirs in (("train", "audit"), ("audit", "train")):
        images.rows.loc[images.rows["patient"] == first[mine], "split"] = theirs
    images.save(run / "ingest")
    assert np.array_equal(shadows._pool_and_draws(config, run / "ingest")[2], inside)


def test_a_warm_start_from_the_runs_own_patients_is_refused(run):
    model = json.loads((run / "train" / "model.json").read_text())
    (run / "train" / "model.json").write_text(json.dumps(model | {"warm_start": {"patients": shadows.SAME}}))
    with pytest.raises(InputError, match=r"so would every shadow be.*set shadows.trainings=0"):
        shadows.run(context(run, configuration()))


def test_a_training_that_diverges_is_one_line(run, monkeypatch):
    monkeypatch.setattr(Training, "run", lambda self, **options: (_ for _ in ()).throw(FloatingPointError("10 steps had no gradient")))
    with pytest.raises(InputError, match="shadow training 1: 10 steps had no gradient"):
        shadows.run(context(run, configuration()))


def test_a_cohort_without_sealed_patients_cannot_be_attacked(run):
    images = ImageSet.load(run / "ingest")
    ImageSet(np.asarray(images.images), images.rows.assign(split="train")).save(run / "ingest")
    with pytest.raises(InputError, match="none in audit"):
        shadows.run(context(run, configuration()))


def test_the_stage_is_there_where_trainings_are_asked_for():
    with_, without = (flow(configuration(trainings)) for trainings in (4, 0))
    names = [stage.name for stage in with_]
    assert names.index("generate") < names.index("shadows") < names.index("audit")
    assert [stage.name for stage in without] == [name for name in names if name != "shadows"]
    needs = {stage.name: stage.needs for stage in without}
    assert needs["audit"] == ("ingest", "train", "generate")
    assert "shadows" in {stage.name: stage.needs for stage in with_}["audit"]


def test_the_plan_says_what_shadows_cost_in_minutes_where_a_training_is_finished(run, tmp_path):
    config = configuration(8)
    text = "8 trainings of 160 images, each with as many images as the run generates"
    assert shadow_cost(config, out=tmp_path / "new") == f"{text}: 8 times what train and generate will take, or somewhat more"
    summaries = {"ingest": {"train": 100, "audit": 60}, "train": {}, "generate": {}}
    for stage, seconds in (("ingest", 5.0), ("train", 100.0), ("generate", 20.0)):
        artifacts.publish(run / stage, {"stage": stage}, seconds=seconds, summary=summaries[stage])
    minutes = 8 * (100 * (1 + 160 * len(LEVELS) / 3 / 160) + 20) / 60
    assert shadow_cost(config, out=run) == f"{text}: about {minutes:.0f} minutes, as train took 100 s; less on several GPUs"


def test_the_command_tells_the_cost_where_the_stage_would_run(command, tmp_path):
    told = command("plan", "quickstart", "--out", tmp_path / "run", "--set", "shadows.trainings=4")
    assert told.returncode == 0, told.stderr
    assert "4 trainings of 48,000 images" in " ".join(told.stdout.split())


def test_show_tells_what_shadows_found_and_leaves_out_a_stage_that_nobody_asked_for(run, capsys):
    def shown():
        show(run, Console(width=200))
        return capsys.readouterr().out

    for stage in ("ingest", "train", "generate"):
        artifacts.publish(run / stage, {"stage": stage})
    before = shown()
    assert "unseen images ÷ on training images" in before
    cells = [line.split("│")[1].strip() for line in before.splitlines() if line.startswith("│")]
    assert "audit" in cells
    assert "shadows" not in cells
    summary = shadows.run(context(run, configuration()))
    artifacts.publish(run / "shadows", {"stage": "shadows"}, summary=summary)
    after = shown()
    assert "membership by the weights with shadow trainings, AUC" in after
    assert summary["weights_auc"] in after


@pytest.mark.parametrize("count", [1, 3, -1, 1000])
def test_too_few_trainings_or_too_many_are_refused(count):
    with pytest.raises(ValueError, match="trainings"):
        configuration(count)


def test_what_no_shadow_can_repeat_is_refused_when_the_configuration_is_read():
    with pytest.raises(ValueError, match="autoguidance"):
        configuration(generate={"autoguidance": "other", "guidance_scale": 2.0})
    foreign = {"name": "f", "ingest": {"source": "pictures", "path": "A", "classes": ["a"]}, "generate": {"import_from": "B"}}
    with pytest.raises(ValueError, match=r"shadows.trainings repeats the run's own training"):
        Config.model_validate(foreign | {"shadows": {"trainings": 8}})
