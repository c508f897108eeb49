"""The stress test of somebody's model of several findings, as the command runs it."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "unit"))

from release_run import LENIENT, finished, make_context

from pipeline import api
from pipeline.errors import InputError
from privacy import limits

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
    assert found.answers[0]["why"].endswith("no finding is present in 11 patients and absent in as many")
    assert found.result["compared"] == []
    assert "Both models on the same cases" not in (place / "out" / "stress.html").read_text()


@pytest.mark.slow
def test_synthetic_cases_are_asked_finding_by_finding(place: Path, cohorts_of_the_module: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive of several findings as synthetic cases of a folder of several."""
    from evaluation import training
    from pipeline.models import synthetic

    monkeypatch.setattr(training, "CHECK", 256)
    monkeypatch.setattr(training, "LEAST", 1024)
    monkeypatch.setattr(synthetic, "CEILING", 8192)
    monkeypatch.setattr(synthetic, "SEEDS", 1)
    monkeypatch.setattr("pipeline.models.stress.fitting", lambda *_: ("motion_blur",))
    rng = np.random.default_rng(3)
    marks = rng.integers(0, 2, (60, 2)).astype(np.uint8)
    pixels = rng.normal(90 + 60 * np.repeat(marks, 12, axis=1)[:, None, :], 18, (60, 24, 24)).clip(0, 255).astype(np.uint8)
    np.savez("made.npz", train_images=pixels, train_labels=marks)
    given = {"model": "readers:sides", "contract": "open.yaml", "data": "A"}
    (place / "one" / "left").mkdir(parents=True)
    (place / "one" / "right").mkdir()
    for number, side in enumerate(("left", "right")):
        Image.fromarray(pixels[number]).save(place / "one" / side / "0.png")
    with pytest.raises(InputError, match="--data has several findings an image, and --synthetic one class"):
        api.stress(**given, synthetic="one", out="out")
    found = api.stress(**given, synthetic="made.npz", out="out")
    [one] = found.result["synthetic"]["sets"]
    assert (one["images"], one["classes"]["left"]["images"]) == (60, int(marks[:, 0].sum()))
    assert one["kept"] > 30, "the halves are plain to judges that have learned"
    assert one["right"]["value"] > 0.9
    table = pd.read_parquet(place / "out" / "synthetic.parquet")
    assert len(table) == 120
    assert ((table["called"] != "") == table["kept"]).all()
    assert not (place / "out" / "unpacked").exists()
    page = (place / "out" / "stress.html").read_text()
    assert "Kept without it" in page
    assert "hypothesis" in page


@pytest.mark.slow
def test_a_release_of_several_findings_is_asked_finding_by_finding(
    place: Path, cohorts_of_the_module: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From what the release stage packs to the page; here the judges may not learn long enough to be sure of much."""
    monkeypatch.setattr(limits, "MAX_COPY_RATE", LENIENT)
    monkeypatch.setattr("pipeline.models.synthetic.CEILING", 640)
    monkeypatch.setattr("pipeline.models.stress.fitting", lambda *_: ("motion_blur",))
    release = finished(make_context(place / "run", several=True)).out
    rows = pd.read_csv(release / "rows.csv")
    table = place / "A" / "labels.csv"
    table.write_text(table.read_text().replace("left,right", "effusion,nodule"))
    (place / "two.yaml").write_text("classes: [effusion, nodule]\nmodality: DX\noutput: logits\nexclusive: false\n")
    found = api.stress(model="readers:sides", contract="two.yaml", data="A", synthetic=release, out="out")
    [one] = found.result["synthetic"]["sets"]
    assert one["images"] == len(rows)
    assert {name: of["images"] for name, of in one["classes"].items()} == {
        name: int((rows[f"finding_{name}"] == 1).sum()) for name in ("effusion", "nodule")
    }
    asked = pd.read_parquet(place / "out" / "synthetic.parquet")
    assert len(asked) == int((rows[["finding_effusion", "finding_nodule"]] >= 0).to_numpy().sum()), "unknown marks are not asked about"
    assert "Kept without it" in (place / "out" / "stress.html").read_text()
    table.write_text("file,label\n0.png,effusion\n1.png,nodule\n")
    with pytest.raises(InputError, match="--synthetic has several findings an image, and --data one class"):
        api.stress(model="readers:sides", contract="two.yaml", data="A", synthetic=release, out="out")


@pytest.mark.slow
def test_an_archive_of_several_findings_is_asked_as_a_folder_of_them_is(
    place: Path, cohorts_of_the_module: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MedMNIST's layout of ChestMNIST: findings by their place in the contract's classes."""
    monkeypatch.setattr("pipeline.models.stress.fitting", lambda *_: ("motion_blur",))
    table = pd.read_csv(place / "A" / "labels.csv")
    pixels = np.stack([np.asarray(Image.open(place / "A" / name)) for name in table["file"]])
    np.savez("chest.npz", test_images=pixels, test_labels=table[["left", "right"]].to_numpy(np.int8))
    given = {"model": "readers:sides", "contract": "open.yaml"}
    found = api.stress(**given, data="chest.npz", out="archive").result
    folder = api.stress(**given, data="A", out="folder").result
    assert found["unit"] == "image"
    assert {name: one["value"] for name, one in found["clean"]["per_class_recall"].items()} == {
        name: one["value"] for name, one in folder["clean"]["per_class_recall"].items()
    }
    (place / "three.yaml").write_text("classes: [left, right, middle]\nmodality: DX\nexclusive: false\n")
    with pytest.raises(InputError, match="2 findings an image, and the model's contract names 3 classes"):
        api.stress(model="readers:sides", contract="three.yaml", data="chest.npz", out="refused")
