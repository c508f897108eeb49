"""The stress test of somebody's model, as the command runs it: in a process of its own, over a folder of pictures."""

import hashlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

sys.path.append(str(Path(__file__).parents[1] / "unit"))

from foreign_models import CLASSES, brightness_images, picture_folder

from evaluation.metrics import macro_auc
from pipeline import api
from pipeline.errors import InputError

CASES = 60
CONTRACT = "classes: [dark, bright]\nmodality: DX\n"
READERS = """
import numpy as np

def bright(x):
    z = (x.mean(axis=(1, 2, 3)) - 0.49) * 30
    p = 1 / (1 + np.exp(-z))
    return np.stack([1 - p, p], axis=1)

def swapped(x):
    return bright(x)[:, ::-1]

def guessing(x):
    p = x[:, 0, 3, 3] - x[:, 0, 9, 9] + 0.5
    return np.stack([1 - p, p], axis=1).clip(0, 1)
"""
BLURRED = "sensitivity(bright) >= 0.85 at blur 2"
DARKENED = "sensitivity(dark) >= 0.9 at brightness 5"
CLOSE = "sensitivity(dark) >= 0.9999"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the cases and the models, which is the current one."""
    folder = tmp_path_factory.mktemp("stress")
    picture_folder(folder / "A", CASES)
    (folder / "readers.py").write_text(READERS)
    (folder / "readers.yaml").write_text(CONTRACT)
    (folder / "others.yaml").write_text("classes: [dark, darker]\n")
    for name, lines in (
        ("wrong", ["sensitivity(drak) >= 0.9", "auc >= 90"]),
        ("met", [BLURRED]),
        ("broken", [BLURRED, DARKENED, CLOSE]),
        ("open", [CLOSE]),
    ):
        (folder / f"{name}.yaml").write_text("".join(f"- {line}\n" for line in lines))
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.txt").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        yield folder


@pytest.fixture(scope="module")
def tested(place, cohorts_of_the_module):
    return api.stress(model="readers:bright", against="readers:guessing", data="A", rules="broken.yaml", out="out")


def test_every_rule_has_its_answer_and_a_broken_one_decides_the_exit_code(tested):
    assert [one["answer"] for one in tested.answers] == ["yes", "yes", "no", "not enough data"]
    assert tested.answers[0]["rule"] == "fit on clean images"
    assert tested.exit_code == 3
    assert tested.result["n"] == CASES
    assert tested.result["patients"] == CASES // 2


def test_shifts_that_fit_the_modality_were_tried_at_five_severities(tested):
    assert {"quantum_noise", "grid_lines", "marker"} <= set(tested.result["corruptions"])
    assert "rician_noise" not in tested.result["corruptions"]
    assert all([row["severity"] for row in rows] == [1, 2, 3, 4, 5] for rows in tested.result["corruptions"].values())
    assert tested.result["harm"]["conditions"][0]["stands"]
    assert tested.result["time"]["images"] == CASES * 5 * len(tested.result["corruptions"])


def test_two_models_are_compared_on_the_same_cases(tested):
    assert tested.result["compared"][0]["gain"]["stands"]
    page = (tested.folder / "stress.html").read_text()
    assert "guessing" in page
    *_, note = tested.result["notes"]
    assert note.startswith("readers:guessing, compared with, was not shown to be fit: AUC")
    stored = np.load(tested.folder / "answers.npz")
    assert stored["against"].shape == stored["probabilities"].shape
    assert macro_auc(stored["against"][0], stored["labels"]) == pytest.approx(tested.result["compared"][0]["against"]["value"])


def test_the_page_names_the_files_that_were_tested_by_their_digest_and_the_day(tested):
    digest = hashlib.sha256(Path("readers.py").read_bytes()).hexdigest()
    assert tested.result["model"]["files"]["readers.py"] == digest
    assert tested.result["rules"] == {"broken.yaml": hashlib.sha256(Path("broken.yaml").read_bytes()).hexdigest()}
    page = (tested.folder / "stress.html").read_text()
    assert digest in page
    assert f"tested on {tested.result['date']}" in page


def test_the_folder_is_private_and_the_page_stands_alone_and_shows_nobody(tested):
    assert tested.folder.stat().st_mode & 0o777 == 0o700
    page = (tested.folder / "stress.html").read_text()
    assert "<img" not in page
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "sensitivity(dark) &gt;= 0.9 at brightness 5" in page
    for text in (page, (tested.folder / "stress.json").read_text()):
        assert not any(f"p{number}," in text or f"{number:03d}.png" in text for number in range(CASES))
    assert {"failures.png", "shifts.png", "answers.npz", "draws.parquet"} <= {path.name for path in tested.folder.iterdir()}


def test_what_was_drawn_makes_a_shifted_image_again(tested):
    """The answer to a shifted image that is made from the table alone is the model's."""
    import torch

    from evaluation.shifts import Draw, shift

    stored = np.load(tested.folder / "answers.npz")
    drawn = pd.read_parquet(tested.folder / "draws.parquet")
    number = list(stored["conditions"]).index("collimation 3")
    file = sorted((Path("A")).rglob("*.png"))[0]
    own = drawn[(drawn["case"] == 0) & (drawn["shift"] == "collimation")].set_index("parameter")["value"]
    parameters = {name: torch.tensor(float(value)).reshape(1, 1, 1, 1) for name, value in own.items()}
    x = torch.from_numpy(np.asarray(Image.open(file), np.float32) / 255)[None, None]
    made = shift(x, "collimation", 3, Draw(parameters, lambda k: x)).numpy()
    p = 1 / (1 + np.exp(-(made.mean() - 0.49) * 30))
    assert stored["probabilities"][number, 0, 1] == pytest.approx(p, abs=1e-4)


def test_the_same_test_again_gives_the_same_numbers(tested):
    again = api.stress(model="readers:bright", data="A", rules="met.yaml", out="again")
    assert again.exit_code == 0
    assert again.result["corruptions"] == tested.result["corruptions"]
    unchanged = np.load(again.folder / "answers.npz")["probabilities"]
    np.testing.assert_array_equal(unchanged, np.load(tested.folder / "answers.npz")["probabilities"])


def test_a_folder_that_is_used_again_holds_the_last_test_alone(place):
    """Nothing of an archive's images stays, and nothing of an earlier test: neither images nor pages."""
    images, labels = brightness_images(CASES)
    np.savez("many.npz", test_images=images[:, 0], test_labels=labels)
    np.savez("few.npz", test_images=images[:20, 0], test_labels=labels[:20])
    first = api.stress(model="readers:bright", data="many.npz", out="reused")
    assert (first.result["n"], first.exit_code) == (CASES, 0)
    names = {path.name for path in first.folder.iterdir()}
    assert {"shifts.png", "draws.parquet"} <= names
    assert "unpacked" not in names
    (first.folder / "unpacked" / "data" / "0").mkdir(parents=True)  # as an ended process leaves it
    (first.folder / "unpacked" / "data" / "0" / "0000059.png").write_bytes(next(Path("A/bright").glob("*.png")).read_bytes())
    again = api.stress(model="readers:guessing", data="few.npz", out="reused")
    assert again.result["n"] == 20
    assert {path.name for path in again.folder.iterdir()} - {"failures.png"} == {"stress.json", "stress.html", "answers.npz"}
    with pytest.raises(InputError, match="in another order"):
        api.stress(model="readers:swapped", data="few.npz", out="reused")
    assert [path.name for path in again.folder.iterdir()] == ["stress.json"]


def test_shifts_of_colours_need_colour_in_all_images_not_in_those_looked_at_first(place, monkeypatch):
    """One grey file among coloured ones, beyond those of the check."""
    monkeypatch.setattr("pipeline.models.cases.LOOKED_AT", 2)
    images, labels = brightness_images(24)
    for number, (image, label) in enumerate(zip(images, labels)):
        grey = Image.fromarray(image[0])
        coloured = Image.merge("RGB", (grey, grey, grey.point(lambda value: value * 0.95)))
        (place / "C" / CLASSES[label]).mkdir(parents=True, exist_ok=True)
        (grey if number == 5 else coloured).save(place / "C" / CLASSES[label] / f"{number:03d}.png")
    (place / "photographs.yaml").write_text("classes: [dark, bright]\nchannels: 1\nmodality: ES\n")
    given = {"model": "readers:bright", "data": "C", "contract": "photographs.yaml"}
    found = api.stress(**given, out="colour")
    assert "defocus" in found.result["corruptions"]
    assert "tint" not in found.result["corruptions"]
    [note] = found.result["notes"]
    assert note.startswith("1 of 24 images are grey: shifts of colours (tint) are not tried")
    assert note in (found.folder / "stress.html").read_text()
    (place / "tinted.yaml").write_text("- auc >= 0.5 at tint 2\n")
    with pytest.raises(InputError, match="tint does not fit these images"):
        api.stress(**given, rules="tinted.yaml", out="colour")
    (place / "C" / "bright" / "005.png").unlink()
    assert "tint" in api.stress(**given, out="colour").result["corruptions"]


def test_an_order_that_may_be_chance_is_printed_and_on_the_page(place):
    console = Console(record=True, file=io.StringIO(), width=400)
    picture_folder(place / "E", 8)
    found = api.stress(model="readers:swapped", data="E", out="eight", console=console)
    [note] = found.result["notes"]
    assert note.startswith("readers:swapped: the outputs fit the labels of 8 images in another order, by chance")
    assert note in console.export_text()
    assert note in (found.folder / "stress.html").read_text()
    assert found.answers[0]["answer"] == "not enough data"


def test_a_class_that_the_model_spells_otherwise_is_told(place):
    picture_folder(place / "F", 8)
    (place / "F" / "labels.csv").unlink()
    (place / "F" / "bright").rename(place / "F" / "BRIGHT")
    found = api.stress(model="readers:bright", data="F", out="otherwise")
    assert "--data: class BRIGHT is taken for bright, as the model spells it" in found.result["notes"]
    assert found.result["counts"] == {"dark": 4, "bright": 4}


def test_an_unfit_model_is_said_to_be_so_first_and_nothing_else_is_tried(place):
    found = api.stress(model="readers:guessing", data="A", rules="met.yaml", out="unfit")
    assert found.answers[0]["answer"] != "yes"
    assert "corruptions" not in found.result
    assert found.exit_code in (3, 4)
    assert found.answers[1]["why"].startswith("shifts were not tried: AUC")
    assert "not fit on images as they are" in (found.folder / "stress.html").read_text()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "readers:swapped"}, "in another order: declare classes: [bright, dark] in readers.yaml"),
        ({"model": "readers:absent"}, "readers has no absent"),
        ({"model": "nowhere:predict"}, "nowhere:predict: there is no module nowhere: give the command where nowhere.py lies"),
        ({"rules": "readers.yaml"}, "not a list of 1 to 200 rules"),
        ({"rules": "absent.yaml"}, "no rules absent.yaml"),
        ({"rules": "wrong.yaml", "data": "nothing"}, "no class drak: did you mean dark?; rule 'auc >= 90': 90 is out of reach"),
        ({"against": "readers:guessing", "against_contract": "others.yaml", "data": "nothing"}, "--against names other classes than"),
        ({"synthetic": "A", "data": "nothing"}, "no such folder: give the images as --data"),
        ({"synthetic": "nothing"}, "no such folder: give the images as --synthetic"),
        ({"data": "nothing"}, "no such folder: give the images as --data"),
        ({"out": "A"}, "lies in --data"),
        ({"out": "."}, "--data lies in"),
        ({"out": "A/dark"}, "lies in --data"),
        ({"out": "mine"}, "mine is there and not empty: give --out a folder that is not"),
        ({"contract": "absent.yaml"}, "no contract absent.yaml"),
        ({"against_contract": "others.yaml"}, "there is none: give --against"),
        ({"model": ""}, "no model is named"),
        ({"model": "readers.py:bright"}, "a function's module is named without .py: give readers:bright"),
        ({"memory": 0}, "--memory is in GiB"),
        ({"modality": "X-ray"}, "--modality 'X-ray': use DICOM's code, one of CR, CT, DX"),
    ],
)  # fmt: skip
def test_what_cannot_be_tested_is_one_line(place, changes, said):
    with pytest.raises(InputError) as error:
        api.stress(**({"model": "readers:bright", "data": "A", "out": "refused"} | changes))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_synthetic_cases_are_asked_only_where_judges_are_sure_and_are_called_hypotheses(place, monkeypatch):
    """Here the judges may not learn long enough, so that they are sure of nothing."""
    from pipeline.models import synthetic

    monkeypatch.setattr(synthetic, "CEILING", 640)
    [found] = api.stress(model="readers:bright", data="A", synthetic="A", out="with-synthetic").result["synthetic"]["sets"]
    assert (found["images"], found["kept"]) == (CASES, 0)
    assert all("was still learning" in one["unfit"] for one in found["classes"].values())
    table = pd.read_parquet(place / "with-synthetic" / "synthetic.parquet")
    assert not table["kept"].any()
    assert table[["label_fidelity", "distance"]].apply(lambda values: values.between(0, 1)).all(axis=None)
    page = (place / "with-synthetic" / "stress.html").read_text()
    assert "Synthetic cases: hypotheses" in page
    assert "was still learning" in page


@pytest.mark.slow
def test_a_run_makes_synthetic_cases_whose_pictures_stay_in_the_private_folder(place, monkeypatch):
    import trainings

    from evaluation import training
    from pipeline.models import of_run, of_split, own_generator

    monkeypatch.setattr(training, "CHECK", 256)
    monkeypatch.setattr(training, "LEAST", 1024)
    monkeypatch.setattr(own_generator, "STEPS", 3)
    for name, value in (("EACH", 4), ("STEP", 2), ("CHANGED", 2), ("TRIES", ((30.0, 1.0),))):
        monkeypatch.setattr(of_run, name, value)
    trainings.finished(place / "maker")
    of_split.write(trainings.cohort(), place / "ills")
    (place / "level.py").write_text(READERS.replace("- 0.49", "- 0.24"))
    (place / "level.yaml").write_text("classes: [healthy, ill]\nmodality: DX\n")
    found = api.stress(model="level:bright", data="ills", synthetic="maker", out="with-a-run")
    names = [one["name"] for one in found.result["synthetic"]["sets"]]
    assert (names[0], names[-2:]) == ("every class alike", ["healthy given ill", "ill given healthy"])
    assert found.folder.stat().st_mode & 0o777 == 0o700
    assert (found.folder / "counterfactuals.png").is_file()
    page = (found.folder / "stress.html").read_text()
    assert "Counterfactuals: real patients with another finding" in page
    assert "<img" not in page


@pytest.mark.slow
def test_the_command_prints_the_answers_and_ends_with_the_exit_code(command, place):
    done = command("stress", "--model", "readers:bright", "--data", "A", "--rules", "open.yaml", "--out", "by-command", cwd=place)
    assert done.returncode == 4, done.stderr
    assert "not enough data: sensitivity(dark) >= 0.9999" in " ".join(done.stdout.split())
    assert json.loads((place / "by-command" / "stress.json").read_text())["model"]["name"] == "readers:bright"
