"""A contract: as it is declared, as the file completes it, and every way in which a model does not keep it."""

import dataclasses
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_models import InProcess, brightness_images

from pipeline.errors import InputError
from pipeline.models.check import BY_CHANCE, Examined, examined, other_order
from pipeline.models.contract import Contract, Declared, completed, declared, kind_of, sidecar, spelled
from pipeline.models.load import Loaded, prepared, probabilities

IMAGES = {"classes": ("bright", "dark"), "channels": 1, "size": (24, 26)}
PLAIN = Contract((24, 26), 1, "NCHW", "float32", (0.0, 1.0), (), (), "stretch", ("dark", "bright"), "", True, None)


def told(**settings: Any) -> Declared:
    return Declared(classes=("dark", "bright"), **settings)


def test_a_sidecar_is_read_beside_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.onnx").touch()
    (tmp_path / "m.yaml").write_text("size: [32, 24]\nclasses: [no, yes]\nmean: [0.5]\nmodality: DX\n")
    assert sidecar(str(tmp_path / "m.onnx")) == tmp_path / "m.yaml"
    found = declared(tmp_path / "m.yaml")
    assert found.size == (32, 24)
    assert found.classes == ("no", "yes"), "which YAML 1.1 would take for booleans"
    assert sidecar("package.module:predict") == Path("package/module.yaml")
    monkeypatch.chdir(tmp_path)
    assert kind_of("m.onnx") == "onnx"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sizes: 3", "a contract has no sizes: did you mean size?"),
        ("channels: 2", "channels:"),
        ("layout: HWC", "layout:"),
        ("size: 0", "size: pixels from 1 to 8192"),
        ("std: [0.0]", "std: numbers above 0"),
        ("output: scores", "output:"),
        ("modality: X-ray", "modality 'X-ray': use DICOM's code, one of CR, CT, DX, ES, GM, "),
        ("- 3", "no mapping"),
        ("size: 3\nsize: 4", "appears twice"),
    ],
)
def test_a_contract_that_cannot_be_is_refused_in_a_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(InputError) as error:
        declared(tmp_path / "m.yaml")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("model", "said"), [("absent.onnx", "no model"), ("a b:c", "no model"), ("weights.pkl", "not a kind of model")])
def test_what_is_no_model_is_refused(tmp_path: Path, model: str, said: str) -> None:
    (tmp_path / "weights.pkl").touch()
    with pytest.raises(InputError, match=said):
        kind_of(str(tmp_path / model) if model != "a b:c" else model)


def test_what_is_declared_wins_and_the_file_and_the_images_fill_the_rest() -> None:
    found, wrong = completed(told(size=32), {"channels": 3, "layout": "NHWC", "batch": 4}, IMAGES, "m.yaml")
    assert not wrong
    assert found is not None
    assert (found.size, found.channels, found.layout, found.batch) == ((32, 32), 3, "NHWC", 4)
    assert "channels 3, from the model's file" in found.guessed
    bytes_, _ = completed(told(dtype="uint8"), {}, IMAGES, "m.yaml")
    assert bytes_ is not None
    assert (bytes_.range, bytes_.size) == ((0.0, 255.0), (24, 26))


@pytest.mark.parametrize(
    ("settings", "facts", "said"),
    [
        ({"size": 32}, {"size": [64, 64]}, "size is [32, 32] in m.yaml, and [64, 64] in the model's file: declare size: [64, 64]"),
        ({"channels": 1}, {"channels": 3}, "declare channels: 3"),
        ({"layout": "NCHW"}, {"layout": "NHWC"}, "declare layout: NHWC"),
        ({"mean": (0.5, 0.4)}, {"channels": 3}, "mean has 2 values for 3 channels"),
        ({"classes": ()}, {}, "declare classes: [bright, dark] in m.yaml, in the order of the model's outputs"),
        ({"classes": ("dark", "light")}, {}, "classes that the model does not name (bright)"),
        ({"classes": ("dark",)}, {}, "classes names one: declare both"),
        ({"classes": ("dark", "bright", "dark")}, {}, "classes names one twice"),
    ],
)
def test_what_contradicts_the_file_or_the_data_is_said_with_what_to_declare(
    settings: dict[str, Any], facts: dict[str, Any], said: str
) -> None:
    found, wrong = completed(Declared(**({"classes": ("dark", "bright")} | settings)), facts, IMAGES, "m.yaml")
    assert found is None
    assert any(said in line for line in wrong), wrong


@pytest.mark.parametrize(
    ("theirs", "mine", "taken"),
    [
        (("EFFUSION", "normal"), ("normal", "effusion"), ("effusion", "normal")),
        (("No  finding", "ÖDEM "), ("ödem", "no finding"), ("no finding", "ödem")),
        (("effusion",), ("EFFUSION", "effusion"), ("effusion",)),  # named as it is
        (("Effusion",), ("EFFUSION", "effusion"), ("Effusion",)),  # either could be meant
        (("Effusion", "EFFUSION"), ("effusion", "normal"), ("Effusion", "EFFUSION")),  # two would become one
        (("Effusion", "effusion"), ("effusion", "normal"), ("Effusion", "effusion")),
        (("Effusions",), ("effusion", "normal"), ("Effusions",)),
    ],
)
def test_names_of_classes_are_the_models_where_case_and_space_alone_differ(
    theirs: tuple[str, ...], mine: tuple[str, ...], taken: tuple[str, ...]
) -> None:
    found, notes = spelled(theirs, mine, "--data")
    assert found == taken
    assert len(set(found)) == len(theirs)
    assert len(notes) == sum(one != other for one, other in zip(theirs, taken))
    assert all(name in note for name, note in zip((one for one in theirs if one not in taken), notes))
    assert bool(completed(Declared(classes=mine), {}, IMAGES | {"classes": theirs}, "m.yaml")[0]) == (set(taken) <= set(mine))


def test_a_size_that_nobody_says_must_be_declared() -> None:
    assert "declare size: [height, width]" in completed(told(), {}, IMAGES | {"size": None}, "m.yaml")[1][0]


def test_preparation_is_what_the_contract_says() -> None:
    x = torch.rand((2, 1, 20, 30))
    contract = dataclasses.replace(PLAIN, size=(20, 30), channels=3, range=(0.0, 255.0), mean=(10.0, 20.0, 30.0), std=(2.0,), layout="NHWC")
    found = prepared(x, contract)
    assert found.shape == (2, 20, 30, 3)
    torch.testing.assert_close(found[..., 1], (x[:, 0] * 255 - 20) / 2)
    colour = torch.rand((1, 3, 20, 30))
    grey = prepared(colour, dataclasses.replace(PLAIN, size=(20, 30)))
    torch.testing.assert_close(grey[0, 0], 0.299 * colour[0, 0] + 0.587 * colour[0, 1] + 0.114 * colour[0, 2])
    padded = prepared(torch.ones((1, 1, 10, 30)), dataclasses.replace(PLAIN, size=(30, 30), fit="pad"))
    assert padded[0, 0, :10].max() == 0
    assert padded[0, 0, 10:20].min() == 1
    whole = prepared(x, dataclasses.replace(PLAIN, size=(20, 30), dtype="uint8", range=(0.0, 255.0)))
    assert whole.dtype == torch.uint8
    torch.testing.assert_close(whole.float() / 255, x, atol=0.002, rtol=0)


def test_outputs_become_probabilities() -> None:
    logits = np.log(np.array([[0.2, 0.3, 0.5], [0.7, 0.2, 0.1]])) + 3
    contract = dataclasses.replace(PLAIN, classes=("a", "b", "c"), output="logits")
    np.testing.assert_allclose(probabilities(logits, contract), [[0.2, 0.3, 0.5], [0.7, 0.2, 0.1]])
    np.testing.assert_allclose(probabilities(np.zeros((1, 3)), dataclasses.replace(contract, exclusive=False)), [[0.5, 0.5, 0.5]])
    np.testing.assert_allclose(probabilities(np.array([[0.9]]), dataclasses.replace(PLAIN, output="probabilities")), [[0.1, 0.9]])
    np.testing.assert_allclose(probabilities(np.array([[0.0]]), dataclasses.replace(PLAIN, output="logits")), [[0.5, 0.5]])


def bright(x: torch.Tensor) -> torch.Tensor:
    z = (x.float().mean(dim=(1, 2, 3)) - 0.5) * 20
    return torch.stack([-z, z], dim=1)


def check(call: Callable[[torch.Tensor], Any], contract: Contract = PLAIN, n: int = 24) -> Examined:
    images, labels = brightness_images(n)
    names = [("dark", "bright")[label] for label in labels]
    at = np.array([contract.classes.index(name) for name in names])
    return examined(InProcess(Loaded(call, {}, "cpu")), contract, list(images), at, "m.yaml")  # type: ignore[arg-type]


def test_a_model_that_keeps_its_contract_passes_and_its_outputs_are_told_apart() -> None:
    assert check(bright).contract.output == "logits"
    assert check(bright).wrong == ()
    assert check(lambda x: bright(x).softmax(dim=1)).contract.output == "probabilities"
    assert check(lambda x: bright(x)[:, 1:].sigmoid()).wrong == (), "one column of two classes"
    assert check(lambda x: (bright(x), x)).wrong == (), "the first of several outputs"
    assert check(lambda x: {"logits": bright(x)}).wrong == ()
    assert check(lambda x: bright(x).tolist()).wrong == ()


def takes(shape: tuple[int | None, ...]) -> Callable[[torch.Tensor], torch.Tensor]:
    def call(x: torch.Tensor) -> torch.Tensor:
        if any(wanted not in (None, side) for wanted, side in zip(shape, x.shape)):
            raise RuntimeError(f"mat1 and mat2 shapes cannot be multiplied\n{tuple(x.shape)}")
        return bright(x)

    return call


def unsteady() -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: bright(x) + 3 * torch.rand((len(x), 2))


@pytest.mark.parametrize(
    ("call", "changes", "said"),
    [
        (takes((None, 3)), {}, "it takes the image with channels: 3: declare that in m.yaml"),
        (takes((None, None, None, 1)), {}, "it takes the image with layout: NHWC: declare that"),
        (takes((None, 1, 64, 64)), {}, "it takes the image with size: 64: declare that"),
        (takes((None, 1, 77, 77)), {}, "declare size, channels, layout and dtype as the model takes them"),
        (lambda x: torch.cat([bright(x)] * 2, dim=1), {}, "gives 4 columns, and classes names 2"),
        (lambda x: bright(x) / 0 * 0, {}, "NaN or infinity for 8 of 8 images"),
        (lambda x: bright(x) * 0, {}, "the same outputs for 8 different images"),
        (bright, {"range": (0.0, 255.0), "mean": (0.5,), "std": (0.2,)}, "input that is not normalised"),
        (bright, {"output": "probabilities"}, "are no probabilities: declare output: logits"),
        (lambda x: bright(x).sigmoid() * 0.5, {"output": "probabilities"}, "do not sum to 1: declare exclusive: false"),
        (lambda x: bright(x).softmax(dim=1), {"output": "logits"}, "are no logits: declare output: probabilities"),
        (bright, {"classes": ("bright", "dark")}, "in another order: declare classes: [dark, bright]"),
        (lambda x: bright(x) - bright(x).mean(dim=0) * (len(x) > 1), {}, "hang on the others in its batch"),
        (unsteady(), {}, "or on chance"),
        (lambda x: bright(x).softmax(dim=1) * (1 if len(x) > 1 else 1 + 0.2 * (x.mean() > 0.5)), {"exclusive": False}, "or on chance"),
        (lambda x: "bright", {}, "it must give a row of numbers for each"),
        (lambda x: bright(x)[:2], {}, "for 8 images"),
    ],
)  # fmt: skip
def test_every_way_to_break_the_contract_has_its_line(call: Callable[[torch.Tensor], Any], changes: dict[str, Any], said: str) -> None:
    wrong = check(call, dataclasses.replace(PLAIN, **changes)).wrong
    assert any(said in line for line in wrong), wrong
    assert all("\n" not in line for line in wrong)


def test_outputs_that_differ_by_what_half_precision_loses_are_the_same() -> None:
    """Another batch may take other kernels, and another scale of a quantisation that is fitted to each batch."""
    assert check(lambda x: bright(x) * (1 + 0.005 * (len(x) > 1))).wrong == ()


def test_an_order_that_eight_images_may_have_by_chance_is_a_note_and_refuses_nobody() -> None:
    found = check(bright, dataclasses.replace(PLAIN, classes=("bright", "dark")), n=8)
    assert found.wrong == ()
    [note] = found.notes
    assert "labels of 8 images in another order, by chance with a probability of up to 0.014" in note
    assert note.endswith("if it is the right one, declare classes: [dark, bright] in m.yaml")
    assert check(bright, n=8) == check(bright), "nothing is noted of the order that is right"
    assert check(bright).notes == ()


def test_further_images_that_contradict_another_order_leave_a_note() -> None:
    """A model that knows nothing, whose first eight answers fit the reverse."""
    calls = iter([True] * 9)  # eight images together, and each alone
    found = check(lambda x: bright(x) * (-1 if next(calls, False) else 1), n=24)
    assert found.wrong == ()
    assert "labels of 8 images in another order" in found.notes[0]


@pytest.mark.parametrize("counts", [(2, 3), (3, 3), (2, 2, 2)])
def test_the_chance_of_another_order_is_no_smaller_than_counted(counts: tuple[int, ...]) -> None:
    """Over all labels of images whose outputs know nothing of them."""
    n, classes = sum(counts), len(counts)
    raw = np.random.default_rng(3).normal(size=(n, classes)) if classes > 2 else np.arange(n)[:, None] * 1.0
    labels = set(itertools.permutations(np.repeat(np.arange(classes), counts).tolist()))
    found = [one for one in (other_order(raw, np.array(each), classes) for each in labels) if one is not None]
    bound = (math.factorial(classes) - 1) / len(labels)
    assert len(found) / len(labels) <= bound
    assert all(chance == pytest.approx(bound) for _, chance in found)
    assert len(found) == 1 or classes > 2, "one order of two classes besides the declared"
    assert bound > BY_CHANCE


def test_a_misspelt_model_and_a_short_suffix_are_found(tmp_path: Path) -> None:
    """The nearest file that is a model is offered, and a contract may be called .yml."""
    (tmp_path / "chest.onnx").touch()
    (tmp_path / "chest.yml").write_text("size: 64\n")
    with pytest.raises(InputError, match=r"no model chest\.onx: did you mean chest\.onnx\?"):
        kind_of(str(tmp_path / "chest.onx"))
    assert sidecar(str(tmp_path / "chest.onnx")) == tmp_path / "chest.yml"
    (tmp_path / "chest.yaml").touch()
    assert sidecar(str(tmp_path / "chest.onnx")) == tmp_path / "chest.yaml"


@pytest.mark.parametrize(
    ("span", "mean", "refused"), [((0, 1), 115.0, True), ((0, 255), 115.0, False), ((0, 1), 0.0, False), ((-1, 1), -2.0, True)]
)
def test_a_mean_of_another_unit_than_the_range_is_refused(span: tuple[float, float], mean: float, refused: bool) -> None:
    """A model whose input is nearly one number for all images still ranks some of them."""
    _, wrong = completed(told(range=span, mean=(mean,), std=(64.0,)), {}, IMAGES, "m.yaml")
    assert any("lies outside the range" in one for one in wrong) is refused
