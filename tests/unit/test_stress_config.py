"""A model of the user's in a configuration: what goes with it, and that its content counts and its place does not."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.given import digests, locations
from pipeline.models.ahead import known_before
from pipeline.models.of_split import files
from pipeline.runner import check_settings
from pipeline.stages import BY_NAME, identity


def config(**stress: object) -> Config:
    sections = {"ingest": {"source": "phantom"}, "train": {"images": 1}, "generate": {"per_class": 1}}
    return Config.model_validate({"name": "c", "stress": stress} | sections)


def asked(run: Path, **stress: object) -> object:
    return digests(config(**stress), run)["stress"]


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "m.onnx").write_bytes(b"one")
        (tmp_path / name / "m.yaml").write_text("classes: [x, y]\n")
    (tmp_path / "reader.py").write_text("def one(x): return x\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("stress", "said"),
    [
        ({"rules": "r.yaml"}, "stress.rules belongs to a model of yours: give stress.model"),
        ({"memory": 4.0}, "stress.memory belongs to a model of yours"),
        ({"model": "m.onnx", "against_contract": "c.yaml"}, "stress.against_contract belongs to a second model"),
    ],
)
def test_settings_that_go_with_a_model_need_one(stress: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        config(**stress)


def test_a_models_content_and_contract_count_and_its_place_does_not(models: Path) -> None:
    before = asked(models, model="a/m.onnx")
    assert asked(models, model="b/m.onnx") == before
    (models / "b" / "m.yaml").write_text("classes: [y, x]\n")
    assert asked(models, model="b/m.onnx") != before
    (models / "a" / "m.onnx").write_bytes(b"two")
    assert asked(models, model="a/m.onnx") != before


def test_weights_beside_an_onnx_file_count_as_its_content(models: Path) -> None:
    """Where they lie outside, the file holds the graph alone, which is the same for every training."""
    onnx = pytest.importorskip("onnx", reason="making an ONNX file needs onnx, which is not installed")
    tensor = onnx.numpy_helper.from_array(np.arange(400, dtype=np.float32), "w")
    graph = onnx.helper.make_graph([], "g", [], [], initializer=[tensor])
    onnx.save_model(
        onnx.helper.make_model(graph), models / "a" / "m.onnx", save_as_external_data=True, location="m.onnx.data", size_threshold=0
    )
    before = asked(models, model="a/m.onnx")
    assert [path.name for path in files("a/m.onnx", None)] == ["m.onnx", "m.onnx.data", "m.yaml"]
    (models / "a" / "m.onnx.data").write_bytes(np.ones(400, np.float32).tobytes())
    assert asked(models, model="a/m.onnx") != before


def test_a_function_counts_by_its_module_and_its_name(models: Path) -> None:
    before = asked(models, model="reader:one")
    assert asked(models, model="reader:two") != before
    (models / "reader.py").write_text("def one(x): return -x\n")
    assert asked(models, model="reader:one") != before


def test_rules_and_a_second_model_count(models: Path) -> None:
    (models / "rules.yaml").write_text("- auc >= 0.5\n")
    before = asked(models, model="a/m.onnx")
    assert asked(models, model="a/m.onnx", rules="rules.yaml") != before
    assert asked(models, model="a/m.onnx", against="b/m.onnx") != before


def test_what_is_not_there_is_said_before_any_work(models: Path) -> None:
    for stress, said in (
        ({"model": "absent.onnx"}, "no model absent.onnx"),
        ({"model": "a/m.onnx", "rules": "absent.yaml"}, "stress.rules: there is no file absent.yaml"),
        ({"model": "a/m.onnx", "contract": "absent.yaml"}, "stress.contract: there is no file absent.yaml"),
    ):
        with pytest.raises(InputError, match=said):
            digests(config(**stress), models)


@pytest.mark.parametrize(
    ("contract", "rules", "said"),
    [
        ("classes: [x, y]\n", "- sensitivity(z) >= 0.8\n", r"rules\.yaml: rule 'sensitivity\(z\) >= 0\.8': no class z: use x, y"),
        ("classes: [x, y]\n", "- auc >= 0.8 at blurr 2\n", "blurr is no shift: did you mean blur"),
        ("classes: [x, y]\nsise: 32\n", "- auc >= 0.8\n", r"m\.yaml: a contract has no sise: did you mean size\?"),
        ("size: 32\n", "- auc >= 0.8\n", r"stress\.model: classes is not declared: declare classes: \[x, y\] in m\.yaml"),
        ("classes: [y, w]\n", "- auc >= 0.8\n", r"the data have classes that the model does not name \(x\)"),
    ],
)
def test_a_wrong_contract_or_rule_is_told_before_any_stage(models: Path, contract: str, rules: str, said: str) -> None:
    """Stress is one of the last stages: what can be known before is not told after hours."""
    (models / "a" / "m.yaml").write_text(contract)
    (models / "rules.yaml").write_text(rules)
    whole = config(model="a/m.onnx", rules="rules.yaml")
    named = whole.model_copy(update={"ingest": whole.ingest.model_copy(update={"classes": ("x", "y")})})
    with pytest.raises(InputError, match=said):
        check_settings(named)


def test_classes_that_a_model_spells_otherwise_are_taken_for_them(models: Path) -> None:
    for name, classes in (("a", "[X, y]"), ("b", "[Y, x]")):
        (models / name / "m.yaml").write_text(f"classes: {classes}\n")
    whole = config(model="a/m.onnx", against="b/m.onnx")
    check_settings(whole.model_copy(update={"ingest": whole.ingest.model_copy(update={"classes": ("x", "Y")})}))
    told, _, _, notes = known_before(("a/m.onnx", "b/m.onnx"), (None, None), None, None)
    assert [one.classes for one, _ in told] == [("X", "y"), ("y", "X")], "the columns stay in each model's own order"
    assert notes == tuple(f"--against: class {theirs} is taken for {mine}, as the model spells it" for theirs, mine in ("Yy", "xX"))


def test_without_a_model_the_stages_identity_is_what_it_was(models: Path) -> None:
    records = {name: {"digest": name} for name in BY_NAME["stress"].needs}
    plain = identity(BY_NAME["stress"], config(), {}, records)
    assert plain["config"] == {"images": 400}
    with_model = identity(BY_NAME["stress"], config(model="a/m.onnx"), digests(config(model="a/m.onnx"), models), records)
    assert with_model["config"] == plain["config"], "paths stay out of it"
    assert with_model["inputs"] != plain["inputs"]


def test_a_run_may_not_write_where_its_model_lies(models: Path) -> None:
    assert locations(config(model="a/m.onnx"))["stress.model"] == Path("a/m.onnx")
    assert "stress.model" not in locations(config(model="reader:one"))
