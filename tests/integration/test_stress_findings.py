"""The stress test of somebody's model of several findings, as the command runs it."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "unit"))

from evaluation import finding_hypotheses, hypotheses
from pipeline import api
from pipeline.errors import InputError
from pipeline.models import synthetic

CASES = 80
READERS = """
import numpy as np

def sides(x):
    return np.stack([x[..., :12].mean(axis=(1, 2, 3)), x[..., 12:].mean(axis=(1, 2, 3))], axis=1) * 40 - 18
"""
CONTRACT = "classes: [left, right]\nmodality: DX\noutput: logits\n"
RULES = "- sensitivity(left) >= 0.8\n- sensitivity(right) >= 0.9 at brightness 5\n- accuracy >= 0.8\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures whose halves are bright by themselves."""
    rng = np.random.default_rng(0)
    (tmp_path / "A").mkdir()
    lines = ["file,patient_id,left,right"]
    for number in range(CASES):
        left, right = rng.integers(2, size=2)
        pixels = rng.normal(90 + 60 * np.repeat([left, right], 12), 18, (24, 24)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "A" / f"{number}.png")
        lines.append(f"{number}.png,p{number // 2},{left},{-1 if number % 9 == 0 else right}")
    (tmp_path / "A" / "labels.csv").write_text("\n".join(lines) + "\n")
    for name, text in (
        ("readers.py", READERS),
        ("readers.yaml", CONTRACT),
        ("open.yaml", CONTRACT + "exclusive: false\n"),
        ("rules.yaml", RULES),
    ):
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_each_finding_is_asked_about_by_itself(place: Path, cohorts_of_the_module: object) -> None:
    with pytest.raises(InputError, match=r"declare exclusive: false in readers\.yaml"):
        api.stress(model="readers:sides", data="A", out="out")
    twice = {"model": "readers:sides", "contract": "open.yaml", "against": "readers:sides", "against_contract": "open.yaml"}
    found = api.stress(**twice, data="A", rules="rules.yaml", out="out")
    assert [one["answer"] for one in found.answers] == ["yes", "yes", "no", "yes"]
    assert found.result["several"]
    assert found.result["counts"]["right"] < found.result["n"] == CASES
    assert any(row["drop"]["stands"] for row in found.result["sensitivities"]["left"])
    assert found.result["compared"][0]["gain"]["value"] == 0
    stored = np.load(place / "out" / "answers.npz")
    assert stored["labels"].shape == (CASES, 2)
    page = (place / "out" / "stress.html").read_text()
    assert "Specificity for left" in page
    assert "called present where its probability is one half" in page
    assert (place / "out" / "failures.png").is_file()


@pytest.mark.slow
def test_two_models_on_too_few_cases_end_with_not_enough_data(place: Path, cohorts_of_the_module: object) -> None:
    table = place / "A" / "labels.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:17]))
    twice = {"model": "readers:sides", "contract": "open.yaml", "against": "readers:sides", "against_contract": "open.yaml"}
    found = api.stress(**twice, data="A", out="out")
    assert [one["answer"] for one in found.answers] == ["not enough data"]
    assert found.answers[0]["why"] == "no finding is present in 11 patients and absent in as many"
    assert found.result["compared"] == []
    assert "Both models on the same cases" not in (place / "out" / "stress.html").read_text()


@pytest.mark.slow
def test_synthetic_cases_are_asked_about_each_finding_that_judges_are_sure_of(
    place: Path, cohorts_of_the_module: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release's table says what was asked for in columns of its own names; the judges may not learn to their plateau here."""
    monkeypatch.setattr(synthetic, "CEILING", 1920)
    monkeypatch.setattr(finding_hypotheses, "unfit", lambda measured: None)
    monkeypatch.setattr(hypotheses, "unfinished", lambda trained: None)
    (place / "B").mkdir()
    for number in range(20):
        (place / "B" / f"{number}.png").write_bytes((place / "A" / f"{number}.png").read_bytes())
    lines = (place / "A" / "labels.csv").read_text().splitlines()
    (place / "B" / "labels.csv").write_text("\n".join(["file,patient_id,finding_left,finding_right", *lines[1:21]]) + "\n")
    told = {"model": "readers:sides", "contract": "open.yaml", "data": "A"}
    found = api.stress(**told, synthetic="B", out="out")
    [made] = found.result["synthetic"]["sets"]
    asked = sum(one["images"] + one["absent"]["images"] for one in made["classes"].values())
    assert made["images"] == 20
    assert asked == sum(mark != "-1" for line in lines[1:21] for mark in line.split(",")[2:])
    assert 0 < made["kept"] <= asked
    assert made["right"]["value"] > 0.9, "the model reads what the judges see"
    table = pd.read_parquet(place / "out" / "synthetic.parquet")
    assert ((table["named_left"] >= 0) == table["kept_left"]).all()
    assert "Images that are not to have it" in (place / "out" / "stress.html").read_text()
    (place / "B" / "labels.csv").write_text("file,label\n" + "".join(f"{number}.png,left\n" for number in range(20)))
    with pytest.raises(InputError, match="--synthetic has one class an image, and --data several findings an image: label both alike"):
        api.stress(**told, synthetic="B", out="other")
