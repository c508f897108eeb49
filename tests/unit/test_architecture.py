"""Promises about the code itself: imports go one way, a start is light, the configurations load, no address in the lock."""

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from pipeline.config import Config, load_config, shipped
from pipeline.errors import InputError
from pipeline.stages import BY_NAME, STAGES, flow

ROOT = Path(__file__).parents[2]
ALLOWED = {"evaluation": {"evaluation"}, "privacy": {"privacy", "evaluation"}, "pipeline": {"pipeline", "privacy", "evaluation"}}


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_go_one_way(package):
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            ours = {name.split(".")[0] for name in names} & set(ALLOWED)
            assert ours <= ALLOWED[package], f"{path.name} imports {ours}"


# Imports that go against the direction, with what stands in their way.
AGAINST = {("pipeline.config.release", "pipeline.release.gate")}  # the gate's own bound, which a configuration may only tighten
# From the last to use to the first to be used: a module imports none of a layer above its own.
INGEST = (
    ("stage",),
    ("cohort",),
    ("collect", "quarantine"),
    ("work",),
    ("tasks",),
    ("labels", "deidentify", "facts", "matching", "patients", "table", "notes", "split", "ledger", "source", "isolate"),
    ("readers",),
    ("standardize",),
    ("intensity",),
    ("readers.reading",),
    ("readers.header",),
)


def imports() -> dict[str, set[str]]:
    """Every module of ours with those that it imports, within functions and for types too."""
    paths = [path for package in ALLOWED for path in (ROOT / package).rglob("*.py")]
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}
    found: dict[str, set[str]] = {}
    for module, path in modules.items():
        named: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                whole = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
                named |= {name if name in modules else node.module for name in whole.values()}
        found[module] = {name for name in named if name in modules and name != module and (module, name) not in AGAINST}
    return found


def test_no_module_imports_itself_in_a_circle():
    graph = imports()
    assert len(graph) > 100
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_a_circle_would_be_found():
    with pytest.raises(CycleError):
        TopologicalSorter({"a": {"b"}, "b": {"c"}, "c": {"a"}}).prepare()


def test_config_lies_below_all():
    for module, names in imports().items():
        if module.startswith("pipeline.config"):
            assert {name for name in names if not name.startswith("pipeline.config")} <= {"pipeline.errors"}, module


def test_ingest_goes_from_the_stage_down_to_the_header():
    def layer(module: str) -> int | None:
        name = module.removeprefix("pipeline.ingest.")
        fitting = [(len(prefix), number) for number, layer in enumerate(INGEST) for prefix in layer if f"{name}.".startswith(f"{prefix}.")]
        return max(fitting)[1] if fitting else None

    for module, names in imports().items():
        for name in names:
            above, below = layer(module), layer(name)
            if above is not None and below is not None:
                assert above <= below, f"{module} imports {name}"


@pytest.mark.parametrize("package", ["privacy", "evaluation"])
def test_only_pipeline_touches_the_disk(package):
    for path in (ROOT / package).rglob("*.py"):
        calls = {
            node.func.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert "open" not in calls, path.name
        assert not re.search(r"^(import|from) (os|pathlib|shutil|tempfile)\b", path.read_text(), re.MULTILINE), path.name


def test_every_package_travels_in_the_wheel():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    folders = {path.parent.relative_to(ROOT) for package in ALLOWED for path in (ROOT / package).rglob("__init__.py")}
    assert {".".join(folder.parts) for folder in folders} - {"pipeline.api.synthcohort"} <= listed


def test_the_command_starts_without_heavy_imports():
    heavy = ("torch", "monai", "pydicom", "matplotlib")
    ours = "pipeline.commands.main, pipeline.commands.runs, pipeline.runner, pipeline.show"
    code = f"import sys, {ours}; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_plan_imports_nothing_that_computes(tmp_path):
    heavy = ("numpy", "scipy", "pandas", "torch", "pydicom")
    code = f"""import sys
from pipeline.commands.main import main
try: main()
finally: print([m for m in {heavy} if m in sys.modules])"""
    run = subprocess.run([sys.executable, "-c", code, "plan", "quickstart"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"


FOR_ONES_OWN = ("dicom_folder", "laptop", "nifti_folder", "pictures")


@pytest.mark.parametrize("name", [name for name in shipped() if name not in FOR_ONES_OWN])
def test_every_shipped_configuration_loads_and_is_named_after_its_file(name):
    assert load_config(name).name == name


@pytest.mark.parametrize("name", FOR_ONES_OWN)
def test_a_configuration_for_ones_own_data_asks_for_the_folder(name):
    with pytest.raises(InputError, match=r"ingest\.path"):
        load_config(name)
    loaded = load_config(name, ["ingest.path=somewhere"])
    assert loaded.name == name
    assert loaded.ingest.classes is not None


def test_yaml_reads_only_true_and_false_as_booleans(tmp_path):
    config = tmp_path / "c.yaml"
    text = "name: c\ningest: {source: dicom, path: p, classes: [no, yes, on]}\ntrain: {images: 1}\ngenerate: {per_class: 1}\n"
    config.write_text(text)
    assert load_config(config).ingest.classes == ("no", "yes", "on")


def test_stages_need_only_earlier_ones_and_their_functions_exist():
    for number, stage in enumerate(STAGES):
        assert set(stage.needs) <= {earlier.name for earlier in STAGES[:number]}
        module, _, function = stage.function.partition(":")
        assert f"def {function}(" in (ROOT / (module.replace(".", "/") + ".py")).read_text()
    assert set(BY_NAME) == {"ingest", "train", "generate", "shadows", "audit", "evaluate", "stress", "review", "release"}


@pytest.mark.parametrize(
    "ingest", [{"unlabelled": True, "classes": ["all"]}, {"classes": ["a", "b"]}, {"classes": ["a", "b"], "holdout": "C"}]
)
def test_a_foreign_flow_needs_only_its_own_earlier_stages(ingest):
    sections = {"ingest": {"source": "pictures", "path": "A", **ingest}, "generate": {"import_from": "B"}}
    stages = flow(Config.model_validate({"name": "x", **sections}))
    assert [stage.name for stage in stages if stage.name in ("evaluate", "stress")] == (
        ["evaluate", "stress"] if "holdout" in ingest else []
    )
    for number, stage in enumerate(stages):
        assert set(stage.needs) <= {earlier.name for earlier in stages[:number]}
        assert "train" not in stage.needs


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-uv.lock"])
def test_the_lock_names_no_index(lock):
    text = (ROOT / lock).read_text()
    assert "--hash=sha256:" in text
    assert not re.search(r"https?://|index-url", text)


def test_make_installs_nothing_that_is_not_pinned():
    lines = [line for line in (ROOT / "Makefile").read_text().splitlines() if " install " in line]
    assert lines
    assert all("--require-hashes" in line or "--no-deps --editable ." in line for line in lines), lines


def test_the_documents_name_the_torch_of_the_lock_and_the_systems():
    torch = re.search(r"^torch==(\d+\.\d+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert torch is not None
    for name in ("README.md", "BENCHMARKS.md"):
        assert f"torch {torch[1]}" in (ROOT / name).read_text()
    text = (ROOT / "README.md").read_text()
    assert all(system in text for system in ("Linux", "macOS", "Windows", "WSL2"))
    assert max(map(len, text.splitlines())) <= 200
