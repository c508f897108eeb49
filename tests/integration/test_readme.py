"""README as its reader types it: every fence of bash and Python runs, on phantoms that were exported as somebody's own data."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from sklearn.linear_model import LogisticRegression

from pipeline.commands.app import app
from pipeline.config import shipped
from pipeline.phantom.anatomy import CLASSES
from pipeline.phantom.image import phantom_arrays
from tests.integration import foreign

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCES: list[tuple[str, str]] = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
SIDE = 32
NAMES = ("normal", "effusion")
ENOUGH = 820
"""Patients of whom the gate finds enough sealed at the shares that ``init`` writes, and a few more."""
QUICK: Mapping[str, Mapping[str, Any]] = {
    "train": {"images": 6400, "batch": 128, "widths": [16, 32]},
    "generate": {"steps": 4},
    "audit": {"planted": 48, "membership_draws": 1},
    "evaluate": {"seeds": 2, "classifier_images": 10_000},
    "stress": {"images": 100},
}
"""What is changed in the configuration that ``init`` wrote, as a reader may: less work, of which no step is left out."""


def fences(language: str) -> list[str]:
    return [text for name, text in FENCES if name == language]


def exported(root: Path, patients: int, seed: int = 5) -> Path:
    """Phantoms with and without an effusion as PNG files in class folders, with a table of whose they are."""
    images, labels, of = phantom_arrays(patients, seed, SIDE)
    lines = ["file,patient_id,sex"]
    for number, (image, label, patient) in enumerate(zip(images[:, 0], labels, of)):
        name = NAMES[int(CLASSES[label] != "normal")]
        file = root / name / f"{number:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
        lines.append(f"{name}/{file.name},P{patient:04d},{'FM'[patient % 2]}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


def classifier(path: Path) -> None:
    """A logistic regression on the pixels of other phantoms, as ONNX with a declaration beside it."""
    onnx = pytest.importorskip("onnx", reason="writing a model needs onnx, which is not installed")
    images, labels, _ = phantom_arrays(300, 77, SIDE)
    fitted = LogisticRegression(C=0.02, max_iter=500).fit(images.reshape(len(images), -1) / 255.0, labels > 0)
    weights = np.stack([np.zeros(SIDE**2), fitted.coef_[0]], axis=1).astype(np.float32)
    bias = np.array([0, fitted.intercept_[0]], np.float32)
    make, numpy_helper, kind = onnx.helper, onnx.numpy_helper, onnx.TensorProto.FLOAT
    graph = make.make_graph(
        [
            make.make_node("Flatten", ["image"], ["flat"]),
            make.make_node("Gemm", ["flat", "weights", "bias"], ["logits"]),
            make.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "chest",
        [make.make_tensor_value_info("image", kind, ["n", 1, SIDE, SIDE])],
        [make.make_tensor_value_info("probabilities", kind, ["n", 2])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    path.with_suffix(".yaml").write_text(f"classes: [{', '.join(NAMES)}]\nmodality: DX\n")


def desk(folder: Path, patients: int, **sets: int) -> Path:
    """A folder with everything that README names."""
    exported(folder / "scans", patients)
    foreign.sets(folder, **sets)
    classifier(folder / "chest.onnx")
    (rules,) = fences("yaml")
    (folder / "rules.yaml").write_text(rules)
    return folder


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which ``synthcohort`` is the program of this tree."""
    programs = tmp_path_factory.mktemp("bin")
    (programs / "synthcohort").write_text(f'#!/bin/sh\nexec {sys.executable} -m pipeline "$@"\n')
    (programs / "synthcohort").chmod(0o755)
    return {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "SYNTHCOHORT_WORKERS": "1"}


def typed(line: str, folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, timeout=3000, check=False)


def lines_with(words: str) -> list[str]:
    """The lines of the one fence of bash that holds the words."""
    (fence,) = [text for text in fences("bash") if words in text]
    return fence.splitlines()


def python_lines() -> list[ast.stmt]:
    """The statements of the one fence of Python."""
    (code,) = fences("python")
    return ast.parse(code).body


def shrink(path: Path) -> None:
    """Change a configuration to :data:`QUICK`."""
    found = yaml.safe_load(path.read_text())
    for section, settings in QUICK.items():
        found[section] = found.get(section, {}) | settings
    path.write_text(yaml.safe_dump(found))


def test_every_fence_says_what_it_is() -> None:
    assert {name for name, _ in FENCES} == {"bash", "python", "text", "yaml"}
    assert len(fences("bash")) == 4, "a new fence is to be run by a test below"
    assert len(fences("python")) == 1


def test_it_can_be_read_in_a_terminal_and_in_a_few_minutes() -> None:
    assert max(map(len, README.splitlines())) <= 100
    assert len(README.split()) <= 1500


def test_the_other_readme_names_every_command_and_every_shipped_configuration() -> None:
    """README says that it does."""
    further = (ROOT / "pipeline/README.md").read_text(encoding="utf-8")
    for path in (ROOT / "pipeline/commands").glob("*.py"):
        importlib.import_module(f"pipeline.commands.{path.stem}")
    commands = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback is not None}
    assert len(commands) > 10
    assert commands <= set(re.findall(r"^synthcohort (\w+)", further, re.MULTILINE))
    assert set(shipped()) <= set(re.findall(r"`(\w+)`", further.partition("| configuration |")[2].partition("\n\n")[0]))


def test_what_make_is_asked_for_is_there() -> None:
    """Without doing it: one is a quarter of an hour, the other is what this test is part of."""
    done = [typed(line.replace("make ", "make --dry-run ", 1), ROOT, os.environ) for line in lines_with("make ")]
    assert [one.returncode for one in done] == [0, 0], [one.stderr for one in done]
    assert "synthcohort run quickstart" in done[0].stdout
    assert "pytest" in done[1].stdout


def test_a_small_cohort_stops_in_two_commands_with_the_advice(tmp_path: Path, shell: dict[str, str]) -> None:
    exported(tmp_path / "scans", 60)
    looked, ran = (typed(line, tmp_path, shell) for line in lines_with("synthcohort init"))
    assert looked.returncode == 0, looked.stderr
    assert "60 patients" in looked.stdout
    assert ran.returncode == 4, ran.stderr
    assert "300 sealed patients are needed" in ran.stderr
    assert "--anyway" in ran.stderr
    assert json.loads((tmp_path / "runs" / "scans" / "ingest" / "cohort.json").read_text())["unit"] == "patient"


def test_a_classifier_and_a_table_take_one_command_to_their_answers(tmp_path: Path, shell: dict[str, str]) -> None:
    folder = desk(tmp_path, 40)
    (line,) = lines_with("synthcohort stress")
    done = typed(line, folder, shell)
    assert done.returncode in (0, 3, 4), done.stderr
    result = json.loads((folder / "runs" / "stress-chest" / "stress.json").read_text())
    (rules,) = fences("yaml")
    assert [one["rule"] for one in result["answers"]][1:] == [rule.removeprefix("- ") for rule in rules.splitlines()]
    answers = {one["answer"] for one in result["answers"]}
    assert done.returncode == (3 if "no" in answers else 4 if "not enough data" in answers else 0), done.stderr
    assert (folder / "runs" / "stress-chest" / "stress.html").is_file()


def test_pythons_lines_work_as_a_script(tmp_path: Path, shell: dict[str, str]) -> None:
    """To the end of ingest, whose workers import the script."""
    exported(tmp_path / "scans", 40)
    (tmp_path / "mine.py").write_text(fences("python")[0])
    done = typed(f"{sys.executable} mine.py", tmp_path, shell)
    assert done.returncode == 1
    assert "NotEnough" in done.stderr.splitlines()[-1]
    assert "300 sealed patients are needed" in done.stderr


@pytest.mark.slow
def test_folders_from_elsewhere_take_one_command_to_their_verdict(tmp_path: Path, shell: dict[str, str]) -> None:
    foreign.sets(tmp_path)
    (line,) = lines_with("synthcohort audit")
    done = typed(line, tmp_path, shell)
    assert done.returncode == 4, done.stderr
    assert "300 patients whom the generator never saw are needed" in " ".join(done.stdout.split())
    assert (tmp_path / "runs" / "audit-B" / "audit" / "pairs.png").is_file()


@pytest.mark.slow
def test_a_prepared_cohort_passes_in_two_commands_and_from_python(
    tmp_path: Path, shell: dict[str, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = desk(tmp_path, ENOUGH)
    init, run = lines_with("synthcohort init")
    assert typed(init, folder, shell).returncode == 0
    shrink(folder / "scans.yaml")
    ran = typed(run, folder, shell)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "images: pass" in ran.stdout
    report = (folder / "runs" / "scans" / "release" / "report.html").read_text()
    # What the images are good for, or why so little work cannot tell.
    assert re.search(r"Adding [\d,]+ synthetic images.{1,40} sensitivity for effusion", report) or "No comparison: a classifier" in report
    assert typed("synthcohort verify runs/scans/release --run runs/scans", folder, shell).returncode == 0
    # From Python the same: its own first lines, then what the shell has made stands.
    (folder / "scans.yaml").unlink()
    monkeypatch.setenv("SYNTHCOHORT_WORKERS", "1")
    monkeypatch.chdir(folder)
    known: dict[str, Any] = {}
    for statement in python_lines():
        exec(compile(ast.Module([statement], []), "README.md", "exec"), known)
        if "synthcohort.init" in ast.unparse(statement):
            shrink(folder / "scans.yaml")
    printed = capfd.readouterr().out.splitlines()
    assert "pass runs/scans" in printed
    assert "inconclusive" in printed
    assert known["outcome"].idle
