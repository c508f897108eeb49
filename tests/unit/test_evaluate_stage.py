"""The stages evaluate and stress on a cohort of blobs: one judge for all, and words where it is unfit."""

import dataclasses
import json
import shutil
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest

from evaluation import training
from pipeline import artifacts, evaluate, stress
from pipeline.config import Config
from pipeline.context import Context
from pipeline.errors import InputError
from pipeline.images import ImageSet
from pipeline.models.own_classifier import declared_by
from pipeline.progress import Reporter, silent
from pipeline.release.results import dig, interval, number

NAMES = ("left", "right")


def blobs(n: int, split: str, seed: int, signal: float = 1.0) -> ImageSet:
    """A spot on the left or on the right, two images a patient."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) // 2 % 2
    row, column = np.mgrid[:16, :16]
    centre = np.where(labels == 1, 4.0, 12.0) + rng.normal(0, 0.7, n)
    spot = np.exp(-((row - 8) ** 2 + (column - centre[:, None, None]) ** 2) / 16)
    images = (30 + 120 * signal * spot + rng.normal(0, 15, spot.shape)).clip(0, 255).astype(np.uint8)[:, None]
    ids = [f"{split}{i}" for i in range(n)]
    patients = [f"{split}{i // 2}" for i in range(n)]
    rows = {"id": ids, "patient": patients, "split": split, "site": "a", "finding_left": labels == 1, "finding_right": labels == 0}
    frame = pd.DataFrame(rows)
    frame[["finding_left", "finding_right"]] = frame[["finding_left", "finding_right"]].astype(np.int8)
    return ImageSet(images, frame)


def run_folder(folder: Path, signal: float = 1.0, val: int = 60) -> None:
    sizes = {"train": 100, "audit": 160, "val": val, "test": 80}
    parts = [blobs(n, split, seed, signal) for seed, (split, n) in enumerate(sizes.items())]
    images = np.concatenate([part.images for part in parts])
    ImageSet(images, pd.concat([part.rows for part in parts], ignore_index=True)).save(folder / "ingest")
    made = blobs(60, "made", 9, signal)
    ImageSet(made.images, made.rows.drop(columns=["patient", "split", "site"])).save(folder / "generate")
    facts = {"unit": "patient", "size": 16, "channels": 1, "dimensions": 2, "modality": "DX"}
    (folder / "ingest" / "cohort.json").write_text(json.dumps(facts))


def context(folder: Path, stage: str, model: Path | None = None, **settings: Any) -> Context:
    config = Config.model_validate(
        {
            "name": "blobs",
            "ingest": {"source": "phantom"},
            "train": {"images": 1},
            "generate": {"per_class": 30},
            "evaluate": {"seeds": 2, "classifier_images": 4096} | settings,
            "stress": {"images": 40} | ({} if model is None else {"model": str(model)}),
        }
    )
    (folder / stage).mkdir(exist_ok=True)
    return Context(config, folder, folder / stage, Reporter(folder / "log.jsonl", silent()), {})


@pytest.fixture(scope="module", autouse=True)
def soon() -> Iterator[None]:
    """Blobs are learned at once: plateaus are looked for within hundreds of images."""
    with mock.patch.object(training, "CHECK", 256), mock.patch.object(training, "LEAST", 1024):
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> types.SimpleNamespace:
    folder = tmp_path_factory.mktemp("run")
    run_folder(folder)
    summaries = {name: function(context(folder, name)) for name, function in (("evaluate", evaluate.run), ("stress", stress.run))}
    results = {
        name: json.loads((folder / name / f"{file}.json").read_text()) for name, file in (("evaluate", "evaluation"), ("stress", "stress"))
    }
    return types.SimpleNamespace(folder=folder, summaries=summaries, **results)


def test_the_default_arms_are_trained_alike_and_their_course_is_told(finished: types.SimpleNamespace) -> None:
    found = finished.evaluate
    assert list(found["utility"]["arms"]) == ["real", "real+augmentation", "real+synthetic"]
    courses = found["training"]["arms"]
    assert len({course["curve"][-1][0] for course in courses.values()}) == 1
    assert all(course["plateau"] == [True, True] for course in courses.values())
    assert found["n"]["learn"] + found["n"]["choose"] == 60
    assert found["utility"]["arms"]["real"]["auc"]["value"] > 0.95
    json.dumps(finished.summaries, allow_nan=False)


def test_what_the_judge_scores_on_real_images_stands_beside_what_it_says_of_synthetic_ones(finished: types.SimpleNamespace) -> None:
    found = finished.evaluate
    assert found["judge"]["auc"]["value"] == pytest.approx(found["utility"]["arms"]["real"]["auc"]["value"])
    assert set(found["label_fidelity"]["real"]) == set(found["label_fidelity"]["per_class"]) == set(NAMES)
    assert found["label_fidelity"]["macro"]["value"] > 0.9


def test_the_panel_has_its_floor_its_control_and_a_number_for_each_class(finished: types.SimpleNamespace) -> None:
    two_sample = finished.evaluate["fidelity"]["two_sample"]
    assert set(two_sample["judges"]) == {"cnn", "plain", "imagenet"}
    assert two_sample["judges"]["plain"]["control"]["value"] > 0.7
    assert two_sample["verdict"] in ("reached", "not reached", "not resolvable")
    assert all(finished.evaluate["fidelity"]["per_class"][name]["two_sample"]["n"] >= 20 for name in NAMES)


def test_distances_are_given_with_a_spread_and_never_an_interval(finished: types.SimpleNamespace) -> None:
    for measure in ("frechet.synthetic", "frechet.ratio", "kid.floor", "prdc.coverage.synthetic"):
        found = dig(finished.evaluate["fidelity"], measure)
        assert set(found) == {"value", "spread", "repeats", "n"}
        assert "spread" in interval(found)


def test_stress_is_put_on_the_very_judges_of_the_evaluation(finished: types.SimpleNamespace) -> None:
    judges = evaluate.load_judges(finished.folder / "evaluate" / evaluate.JUDGES, "small", "cpu")
    assert len(judges) == 2
    test = evaluate.labelled(ImageSet.load(finished.folder / "ingest").split("test"))
    named = np.stack([one.predict(test.unit) for one in judges]).argmax(axis=2)
    recall = finished.stress["clean"]["per_class_recall"]["left"]["value"]
    assert recall == pytest.approx((named[:, test.labels == 0] == 0).mean())
    assert finished.stress["classifier"] == finished.evaluate["judge"]["network"] == "small"
    assert finished.stress["corruption_images"] == 40
    assert finished.stress["clean"]["auc"] == finished.evaluate["utility"]["arms"]["real"]["auc"], "one judge, one number"


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.slow
def test_judges_that_see_nothing_yield_sentences_everywhere(tmp_path: Path) -> None:
    run_folder(tmp_path, signal=0.0)
    summary = evaluate.run(context(tmp_path, "evaluate"))
    found = json.loads((tmp_path / "evaluate" / "evaluation.json").read_text())
    said = "could not be trained on so few images"
    for path in ("judge", "label_fidelity.macro", "label_fidelity.per_class.left", "fidelity"):
        assert said in dig(found, path)["unfit"], path
    assert said in summary["label_fidelity"]
    assert said in summary["frechet_ratio"]
    # What asks for a number below it gets the sentence, in a table and in a tile.
    assert said in interval(dig(found, "fidelity.frechet.synthetic"))
    assert said in number(dig(found, "label_fidelity.macro.value"))
    assert said in stress.run(context(tmp_path, "stress"))["classifier"]
    assert said in json.loads((tmp_path / "stress" / "stress.json").read_text())["unfit"]


@pytest.mark.slow
def test_a_model_of_the_users_meets_the_same_test_patients_here_the_runs_own_classifiers(
    finished: types.SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.models import synthetic

    monkeypatch.setattr(synthetic, "CEILING", 2048)
    run = tmp_path / "run"
    shutil.copytree(finished.folder, run, ignore=shutil.ignore_patterns("stress"))
    artifacts.publish(run / "evaluate", {"stage": "evaluate"})
    headline = stress.run(context(run, "stress", model=run))
    assert headline["model"] == "all questions answered yes"
    found = json.loads((run / "stress" / "model" / "stress.json").read_text())
    assert (found["n"], found["patients"], found["counts"]) == (80, 40, {"left": 40, "right": 40})
    assert found["model"]["range"] == [-1, 1]
    assert found["clean"]["auc"]["value"] == pytest.approx(finished.evaluate["judge"]["auc"]["value"], abs=0.02)
    assert "quantum_noise" in found["corruptions"], "the cohort's modality chooses the shifts"
    assert found["synthetic"]["sets"][0]["images"] == 60
    assert "Stress test of" in (run / "stress" / "model" / "stress.html").read_text()
    assert {path.name for path in (run / "stress").iterdir()} == {"stress.json", "failures.json", "model"}, "no pictures of patients stay"


def test_a_run_without_classifiers_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no classifiers: give the folder of a run whose evaluate stage is finished"):
        declared_by(tmp_path)


def test_judges_that_were_still_learning_yield_sentences_everywhere(tmp_path: Path) -> None:
    run_folder(tmp_path)
    summary = evaluate.run(context(tmp_path, "evaluate", classifier_images=256))
    found = json.loads((tmp_path / "evaluate" / "evaluation.json").read_text())
    said = "was still learning after 256 images, its ceiling"
    for path in ("judge", "label_fidelity.macro", "label_fidelity.per_class.left", "fidelity", "utility"):
        assert said in dig(found, path)["unfit"], path
    assert said in interval(dig(found, "utility.differences.real+synthetic.auc"))
    assert said in summary["label_fidelity"]
    assert said in stress.run(context(tmp_path, "stress"))["classifier"]


@pytest.mark.slow
def test_an_arm_that_was_still_learning_is_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_folder(tmp_path)
    course = evaluate.train_arms

    def all_but_one(*given: Any, **settings: Any) -> dict[str, list[training.Trained]]:
        trained = course(*given, **settings)
        last = trained["real+synthetic"][-1]
        return trained | {"real+synthetic": [*trained["real+synthetic"][:-1], dataclasses.replace(last, plateau=False)]}

    monkeypatch.setattr(evaluate, "train_arms", all_but_one)
    summary = evaluate.run(context(tmp_path, "evaluate"))
    utility = json.loads((tmp_path / "evaluate" / "evaluation.json").read_text())["utility"]
    assert list(utility["differences"]) == ["real+augmentation"]
    assert "still learning" in utility["unfinished"]["real+synthetic"]
    assert "still learning" in summary["real+synthetic_auc"]


def test_damaged_judges_are_told_in_one_line(finished: types.SimpleNamespace, tmp_path: Path) -> None:
    whole = (finished.folder / "evaluate" / evaluate.JUDGES).read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", None):
        path = tmp_path / "evaluate" / evaluate.JUDGES
        path.parent.mkdir(exist_ok=True)
        path.unlink() if damaged is None else path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"judges\.safetensors") as refused:
            evaluate.load_judges(path, "small", "cpu")
        assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match=r"judges\.safetensors"):
        evaluate.load_judges(finished.folder / "evaluate" / evaluate.JUDGES, "resnet18", "cpu")


def test_a_val_of_one_patient_is_refused_in_words(tmp_path: Path) -> None:
    run_folder(tmp_path, val=2)
    with pytest.raises(InputError, match="val holds one patient"):
        evaluate.run(context(tmp_path, "evaluate"))


def test_a_file_that_holds_no_weights_is_named_and_nothing_is_fetched(tmp_path: Path) -> None:
    from pipeline.imagenet import imagenet_space

    (tmp_path / "weights.pth").write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"evaluate\.imagenet: weights\.pth holds no weights"):
        imagenet_space(tmp_path / "weights.pth", "cpu")


def test_weights_from_a_file_make_a_feature_space(tmp_path: Path) -> None:
    import torch
    from torchvision.models import resnet18

    from pipeline.imagenet import imagenet_space

    torch.save(resnet18().state_dict(), tmp_path / "weights.pth")
    space = imagenet_space(tmp_path / "weights.pth", "cpu")
    assert callable(space)
    features = space(np.zeros((3, 1, 16, 16), np.float32))
    assert features.shape == (3, 512)
    assert np.isfinite(features).all()


def test_extrapolated_images_are_counted_where_there_are_any():
    made = blobs(6, "test", 0)
    assert evaluate.sizes(made, test=made) == {"test": 6, "synthetic": 6}
    rows = made.rows.assign(unseen=[False, True, True, False, False, False])
    assert evaluate.sizes(ImageSet(made.images, rows), test=made) == {"test": 6, "synthetic": 6, "unseen": 2}
