"""The kinds of models that people have, loaded, and asked the same as where they come from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_models import CLASSES, InProcess, brightness_images, trained
from torch import nn

from pipeline.models.check import examined
from pipeline.models.child import _failure
from pipeline.models.contract import Declared, Kind, completed, kind_of
from pipeline.models.load import Loaded, NotLoaded, load, outputs

SIDE = 32


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    from torchvision.models import ResNet
    from torchvision.models.resnet import BasicBlock

    torch.manual_seed(0)
    network = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=2)  # torchvision's least
    return trained(network, 3, SIDE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, resnet: nn.Module) -> Path:
    """The network as TorchScript, as a program of torch.export, and, where it can be exported here, as ONNX."""
    out, x = tmp_path_factory.mktemp("models"), torch.rand((2, 3, SIDE, SIDE))
    torch.jit.trace(resnet, x).save(str(out / "m.pt"))
    free = {"x": {0: torch.export.Dim("n", min=1, max=512)}}
    torch.export.save(torch.export.export(resnet, (x,), dynamic_shapes=free), out / "m.pt2")
    return out


def onnx_file(network: nn.Module, path: Path, batch: int | None) -> Path:
    pytest.importorskip("onnxscript", reason="exporting to ONNX needs onnxscript, which is not installed")
    free = {} if batch else {"dynamic_shapes": {"x": {0: torch.export.Dim("n", min=1, max=512)}}}
    program = torch.onnx.export(network, (torch.rand((batch or 2, 3, SIDE, SIDE)),), dynamo=True, verbose=False, **free)
    program.save(str(path))
    return path


def asked(path: Path | str, declared: Declared, side: int = SIDE) -> tuple[Any, list[str], np.ndarray]:
    images, labels = brightness_images(8, shape=(side, side))
    model = load(str(path), kind_of(str(path)), "cpu")
    contract, wrong = completed(declared, model.facts, {"classes": CLASSES, "channels": 1, "size": (side, side)}, "m.yaml")
    assert contract is not None, wrong
    found = examined(InProcess(model), contract, list(images), labels, "m.yaml")  # type: ignore[arg-type]
    return found.contract, [*found.wrong, *found.notes], InProcess(model).raw(list(images), found.contract)[1]


def expected(network: nn.Module, channels: int) -> np.ndarray:
    images, _ = brightness_images(8, shape=(SIDE, SIDE))
    with torch.inference_mode():
        found: np.ndarray = network(torch.from_numpy(images.astype(np.float32) / 255).expand(-1, channels, -1, -1)).numpy()
    return found


def test_a_torchvision_resnet_as_torchscript(resnet: nn.Module, folder: Path) -> None:
    contract, wrong, raw = asked(folder / "m.pt", Declared(classes=CLASSES))
    assert wrong == []
    assert contract.channels == 3, "which its first convolution says"
    np.testing.assert_allclose(raw, expected(resnet, 3), atol=1e-3)


def test_a_torchvision_resnet_as_an_exported_program(resnet: nn.Module, folder: Path) -> None:
    contract, wrong, raw = asked(folder / "m.pt2", Declared(classes=CLASSES))
    assert wrong == []
    assert (contract.channels, contract.size, contract.layout, contract.batch) == (3, (SIDE, SIDE), "NCHW", None)
    np.testing.assert_allclose(raw, expected(resnet, 3), atol=1e-3)


@pytest.mark.parametrize("batch", [None, 3])
def test_a_torchvision_resnet_as_onnx(resnet: nn.Module, tmp_path: Path, batch: int | None) -> None:
    path = onnx_file(resnet, tmp_path / "m.onnx", batch)
    contract, wrong, raw = asked(path, Declared(classes=CLASSES))
    assert wrong == []
    assert (contract.channels, contract.size, contract.batch) == (3, (SIDE, SIDE), batch)
    np.testing.assert_allclose(raw, expected(resnet, 3), atol=1e-3)
    told, wrong = completed(
        Declared(classes=CLASSES, size=64), load(str(path), "onnx", "cpu").facts, {"classes": CLASSES, "channels": 1}, "m.yaml"
    )
    assert told is None
    assert "declare size: [32, 32]" in wrong[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_network_of_another_precision_says_so_or_is_asked_in_it(tmp_path: Path, dtype: torch.dtype) -> None:
    """The file of an exported program says what it takes; of TorchScript it is tried."""
    name, x = str(dtype).removeprefix("torch."), torch.rand((2, 1, SIDE, SIDE), dtype=dtype)
    network = trained(nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)), 1, SIDE, 60)
    reference = expected(network, 1)
    network.to(dtype)
    torch.export.save(torch.export.export(network, (x,), dynamic_shapes=({0: torch.export.Dim("n", min=1)},)), tmp_path / "m.pt2")
    torch.jit.trace(network, x).save(str(tmp_path / "m.pt"))
    contract, wrong, raw = asked(tmp_path / "m.pt2", Declared(classes=CLASSES))
    assert (wrong, contract.dtype) == ([], name)
    np.testing.assert_allclose(raw, reference, atol=0.05)
    model = load(str(tmp_path / "m.pt"), "torchscript", "cpu")
    plain, _ = completed(Declared(classes=CLASSES), model.facts, {"classes": CLASSES, "channels": 1, "size": (SIDE, SIDE)}, "m.yaml")
    assert plain is not None
    images, labels = brightness_images(8, shape=(SIDE, SIDE))
    [line] = examined(InProcess(model), plain, list(images), labels, "m.yaml").wrong  # type: ignore[arg-type]
    assert line.endswith(f"it takes the image with dtype: {name}: declare that in m.yaml")
    _, wrong, raw = asked(tmp_path / "m.pt", Declared(classes=CLASSES, dtype=name))  # type: ignore[arg-type]
    assert wrong == []
    np.testing.assert_allclose(raw, reference, atol=0.05)


def test_an_error_of_torchscript_is_told_by_its_cause_and_not_its_traceback(tmp_path: Path) -> None:
    torch.jit.trace(nn.Linear(7, 2), torch.rand(2, 7)).save(str(tmp_path / "m.pt"))
    model = load(str(tmp_path / "m.pt"), "torchscript", "cpu")
    with pytest.raises(RuntimeError) as error:
        model.call(torch.rand(2, 1, 4, 4))
    message = _failure(error.value, "raw")["message"]
    assert "mat1 and mat2 shapes cannot be multiplied" in message
    assert "Traceback" not in message


def test_a_scikit_learn_pipeline_as_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "forest_model.py").write_text(
        "import numpy as np\n"
        "from sklearn.linear_model import LogisticRegression\n"
        "from sklearn.pipeline import make_pipeline\n"
        "from sklearn.preprocessing import StandardScaler\n"
        "rng = np.random.default_rng(0)\n"
        "y = np.arange(60) % 2\n"
        "x = rng.normal(0.35 + 0.28 * y[:, None], 0.07, (60, 1024))\n"
        "model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)\n"
        "class Reader:\n"
        "    @staticmethod\n"
        "    def predict(images):\n"
        "        return model.predict_proba(images.reshape(len(images), -1))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    contract, wrong, raw = asked("forest_model:Reader.predict", Declared(classes=CLASSES))
    assert wrong == []
    assert contract.output == "probabilities"
    np.testing.assert_array_equal(raw.argmax(axis=1), brightness_images(8)[1])
    for name, said in (("absent", "has no absent"), ("rng.bit_generator", "is no function")):
        with pytest.raises(NotLoaded, match=said):
            load(f"forest_model:{name}", "callable", "cpu")


@pytest.mark.slow
def test_a_monai_densenet_as_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dense_model.py").write_text(
        "import torch\n"
        "from monai.networks.nets import DenseNet\n"
        "torch.manual_seed(0)\n"
        "network = DenseNet(spatial_dims=2, in_channels=1, out_channels=2, init_features=8, growth_rate=4, block_config=(2, 2))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import dense_model  # type: ignore[import-not-found]

    trained(dense_model.network, 1, SIDE).train()
    contract, wrong, raw = asked("dense_model:network", Declared(classes=CLASSES))
    assert wrong == [], "it is put into evaluation mode"
    assert (contract.channels, contract.output) == (1, "logits")
    np.testing.assert_allclose(raw, expected(dense_model.network.eval(), 1), atol=1e-4)


def test_weights_that_are_no_torchscript_are_refused_with_what_to_do(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "w.pt")
    with pytest.raises(NotLoaded, match=r"it is no TorchScript .*save it with torch\.jit\.trace, or give module:callable"):
        load(str(tmp_path / "w.pt"), "torchscript", "cpu")


@pytest.mark.parametrize(
    ("kind", "said"), [("onnx", "torch.onnx.export"), ("torchscript", "torch.jit.trace"), ("export", "torch.export.save")]
)
def test_a_file_that_is_not_what_its_name_says_is_refused_with_what_to_do(tmp_path: Path, kind: Kind, said: str) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxruntime", reason="ONNX models need onnxruntime, which is not installed")
    (tmp_path / "m").write_bytes(b"half of a model")
    with pytest.raises(NotLoaded, match=f"it is no .*{said}, or give module:callable"):
        load(str(tmp_path / "m"), kind, "cpu")


ROWS = [[0.25, 0.75], [0.5, 0.5]]
SCORES = np.array(ROWS)


@pytest.mark.parametrize(
    "answer",
    [
        SCORES,
        torch.tensor(ROWS),
        ROWS,
        [torch.tensor(row) for row in ROWS],
        {"features": np.zeros((2, 5)), "scores": SCORES},
        (torch.tensor(ROWS), torch.zeros((2, 7))),
        [[np.zeros((2, 2, 3, 3))], (SCORES, SCORES + 1)],
        {"scores": ROWS},
    ],
)
def test_of_several_arrays_the_scores_are_taken_whatever_they_lie_in(answer: Any) -> None:
    """Two images and two classes, so that two arrays are as many as two rows are."""
    contract = completed(Declared(classes=CLASSES, size=4), {}, {"classes": CLASSES, "channels": 1}, "m.yaml")[0]
    assert contract is not None
    np.testing.assert_array_equal(outputs(Loaded(lambda x: answer, {}, "cpu"), torch.zeros((2, 1, 4, 4)), contract), SCORES)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (np.array([0, 1]), "the number of a class: let it give scores"),
        (torch.tensor([[0], [1]]), "the number of a class: let it give scores"),
        (["dark", "bright"], r"\[2\] for 2 images: it must give a row of numbers for each"),
        ((), "it must give a row of numbers for each"),
        (0.5, "it must give a row of numbers for each"),
    ],
)
def test_what_is_no_row_of_scores_an_image_is_refused(answer: Any, said: str) -> None:
    contract = completed(Declared(classes=CLASSES, size=4), {}, {"classes": CLASSES, "channels": 1}, "m.yaml")[0]
    assert contract is not None
    with pytest.raises(NotLoaded, match=said):
        outputs(Loaded(lambda x: answer, {}, "cpu"), torch.zeros((2, 1, 4, 4)), contract)


@pytest.mark.parametrize(
    ("takes", "said"),
    [
        ("x.dtype == torch.float16", "it takes the image with dtype: float16: declare that in m.yaml"),
        ("x.dtype == torch.uint8", "it takes the image with dtype: uint8, without mean and std: declare that in m.yaml"),
        ("x.max() > 2", "it takes the image with range: [0, 255], without mean and std: declare that in m.yaml"),
        (
            "False",
            "and so it does whatever size, channels, layout, dtype and range it is given: run it by itself on one image to see why, or "
            "declare them as the model takes them in m.yaml",
        ),
    ],
)
def test_what_a_model_takes_instead_is_tried(takes: str, said: str) -> None:
    """Where nothing helps, and the error is the same each time, the contract is not what is wrong."""

    def call(x: torch.Tensor) -> torch.Tensor:
        if not eval(takes, {"x": x, "torch": torch}):
            raise ValueError("no")
        return x.float().mean(dim=(1, 2, 3))[:, None] * torch.tensor([[1.0, -1.0]])

    contract = completed(Declared(classes=CLASSES, size=24), {}, {"classes": CLASSES, "channels": 1}, "m.yaml")[0]
    assert contract is not None
    images, labels = brightness_images(8)
    [wrong] = examined(InProcess(Loaded(call, {}, "cpu")), contract, list(images), labels, "m.yaml").wrong  # type: ignore[arg-type]
    assert wrong == f"ValueError: no; {said}"
