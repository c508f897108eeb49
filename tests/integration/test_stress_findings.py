"""The stress test of somebody's model of several findings, as the command runs it."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "unit"))

from pipeline import api
from pipeline.errors import InputError

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
    with pytest.raises(InputError, match="--synthetic takes cases of one class an image"):
        api.stress(model="readers:sides", contract="open.yaml", data="A", synthetic="A", out="out")
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
