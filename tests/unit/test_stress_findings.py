"""The stress stage and the cases of a foreign model where an image can have several findings: spots on the left, on the right, or both."""

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest

from evaluation import training
from evaluation.training import Task, train
from pipeline import evaluate, stress
from pipeline.config import Config
from pipeline.context import Context
from pipeline.images import ImageSet
from pipeline.models import cases, of_split
from pipeline.progress import Reporter, silent
from pipeline.stages import flow

NAMES = ("left", "right")
KEY = b"k" * 32
UNSEEN = ("test1", "test4")
"""Test images that are said to have the left spot, and have none."""


def spots(n: int, split: str, seed: int) -> ImageSet:
    """Each spot by itself in half of the images, two images a patient; every eleventh right one is unknown."""
    rng = np.random.default_rng(seed)
    findings = (rng.random((n, 2)) < 0.5).astype(np.int8)
    row, column = np.mgrid[:16, :16]
    each = np.stack([np.exp(-((row - 8) ** 2 + (column - centre) ** 2) / 10) for centre in (4, 12)])
    images = (40 + 130 * np.einsum("nk,khw->nhw", findings, each) + rng.normal(0, 12, (n, 16, 16))).clip(0, 255).astype(np.uint8)[:, None]
    findings[::11, 1] = -1
    rows = {"id": [f"{split}{i}" for i in range(n)], "patient": [f"{split}{i // 2}" for i in range(n)], "split": split, "site": "a"}
    return ImageSet(images, pd.DataFrame({**rows, **{f"finding_{name}": findings[:, k] for k, name in enumerate(NAMES)}}))


def ingested(folder: Path, parts: dict[str, ImageSet]) -> None:
    every = pd.concat([part.rows for part in parts.values()], ignore_index=True)
    ImageSet(np.concatenate([part.images for part in parts.values()]), every).save(folder / "ingest")


@pytest.fixture(scope="module", autouse=True)
def soon() -> Iterator[None]:
    with mock.patch.object(training, "CHECK", 256), mock.patch.object(training, "LEAST", 512):
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Context:
    folder = tmp_path_factory.mktemp("run")
    parts = {split: spots(n, split, seed) for seed, (split, n) in enumerate({"train": 200, "audit": 20, "val": 80, "test": 120}.items())}
    unseen = parts["test"].rows["id"].isin(UNSEEN)
    assert not parts["test"].rows.loc[unseen, "finding_left"].any()
    parts["test"].rows.loc[unseen, "finding_left"] = 1
    ingested(folder, parts)
    made = spots(20, "made", 9)
    ImageSet(made.images, made.rows.drop(columns=["patient", "split", "site"])).save(folder / "generate")
    learn, choose = evaluate.labelled(parts["train"]), evaluate.labelled(parts["val"])
    [one] = train([Task(learn.unit, learn.findings.copy(), 2, 0, choose)], kind="small", ceiling=2048, device="cpu")
    for name in ("evaluate", "stress"):
        (folder / name).mkdir()
    evaluate.save_judges(folder / "evaluate" / evaluate.JUDGES, [one.classifier])
    judge = {"network": "small", "per_class": {name: {} for name in NAMES}}
    (folder / "evaluate" / "evaluation.json").write_text(json.dumps({"several": True, "classes": NAMES, "judge": judge}))
    sections = {"train": {"images": 1}, "generate": {"per_class": 1}, "stress": {"images": 100}}
    config = Config.model_validate({"name": "spots", "ingest": {"source": "phantom", "several_findings": True}, **sections})
    return Context(config, folder, folder / "stress", Reporter(folder / "log.jsonl", silent()), {})


def test_a_run_of_several_findings_has_a_stress_test(run: Context) -> None:
    assert "stress" in [stage.name for stage in flow(run.config)]
    summary = stress.run(run)
    found = json.loads((run.out / "stress.json").read_text())
    assert found["clean"]["auc"]["value"] > 0.95
    assert set(found["clean"]["per_class_recall"]) == set(found["prevalence"]) == set(NAMES)
    assert len(found["corruptions"]) == 18
    assert found["corruption_images"] == 100
    assert "mean_drop_auc" in summary
    failures = json.loads((run.out / stress.FAILURES).read_text())["failures"]
    assert {one["image"] for one in failures if one["class"] == "left"} >= set(UNSEEN)
    assert all(one["called"] == f"no {one['class']}" and one["probability"] > 0.5 for one in failures)


@pytest.mark.parametrize(("test_images", "most"), [(20, 100), (120, 10)])
def test_where_too_few_patients_are_put_under_stress_it_is_said_in_one_sentence(
    run: Context, tmp_path: Path, test_images: int, most: int
) -> None:
    """Two images a patient: 10 test patients, or 60 of whom at most 10 are tried."""
    for name in ("generate", "evaluate"):
        shutil.copytree(run.run / name, tmp_path / name)
    ingested(tmp_path, {split: spots(n, split, 3) for split, n in {"train": 4, "audit": 4, "val": 4, "test": test_images}.items()})
    few = run.config.model_copy(update={"stress": run.config.stress.model_copy(update={"images": most})})
    (tmp_path / "stress").mkdir()
    summary = stress.run(dataclasses.replace(run, config=few, run=tmp_path, out=tmp_path / "stress"))
    found = json.loads((tmp_path / "stress" / "stress.json").read_text())
    why = "could not be tested on so few images: no finding is present in 11 patients and absent in as many"
    assert found["unfit"] == summary["classifier"] == why
    assert "corruptions" not in found
    assert json.loads((tmp_path / "stress" / stress.FAILURES).read_text()) == {"failures": []}


def test_missed_findings_are_told_the_surest_first() -> None:
    test = spots(40, "test", 3)
    p = np.where(test.findings == 1, 0.9, 0.1)
    struck = np.flatnonzero(test.findings[:, 0] == 1)[:3]
    p[struck, 0] = [0.4, 0.02, 0.3]
    found = stress.failures(test, p, several=True)
    assert [one["image"] for one in found] == [f"test{row}" for row in struck[[1, 2, 0]]]
    assert [one["probability"] for one in found] == [0.98, 0.7, 0.6]


def test_the_cases_of_a_split_keep_every_mark(tmp_path: Path, cohorts_of_the_module: object) -> None:
    split = spots(36, "test", 5)
    data = of_split.write(split, tmp_path / "data", several=True)
    found = cases.opened(data, None, KEY, tmp_path / "unpacked", NAMES, "DX")
    assert found.several
    assert found.classes == NAMES
    rows = {case.image.tobytes(): case.row["findings"] for case in found.read()}
    assert rows == {image.tobytes(): marks for image, marks in zip(split.images, split.findings.tolist())}
    labelled = cases.labelled([{**dict.fromkeys(cases.ATTRIBUTES), "patient": "p", "findings": [1, -1]}], NAMES, NAMES[::-1])
    assert labelled.findings.tolist() == [[-1, 1]]


@pytest.mark.parametrize(
    ("header", "rows", "several"),
    [
        ("file,label", ("left|right", "No Finding", "left"), True),
        ("file,label", ("left", "right", "left"), False),
        ("file,left,right", ("1,1", "0,0", "-1,0"), True),
    ],
)
def test_a_table_says_whether_an_image_can_have_several(tmp_path: Path, header: str, rows: tuple[str, ...], several: bool) -> None:
    split = spots(3, "test", 5)
    data = of_split.write(split, tmp_path / "data", several=True)
    lines = [header, *(f"images/{number:06d}.png,{row}" for number, row in enumerate(rows))]
    (data / "labels.csv").write_text("\n".join(lines) + "\n")
    found = cases.opened(data, None, KEY, tmp_path / "unpacked", NAMES, "DX")
    assert found.several is several
    assert Counter(tuple(case.row["findings"]) for case in found.read()).total() == 3
