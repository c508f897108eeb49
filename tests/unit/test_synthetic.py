"""Synthetic cases of a run's model as a whole: made, judged, asked, and told, with a model that knows dark from bright."""

import types
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import trainings
from numpy.typing import NDArray
from PIL import Image

from evaluation import training
from pipeline.models import cases as sources
from pipeline.models import of_run, own_generator, synthetic
from pipeline.models.synthetic import Synthetic
from pipeline.progress import Reporter, silent

NAMES = ("ill", "healthy")
MIDDLE = 60


class Bright:
    """Stands for a model's process: ill above a level of grey, whatever the size."""

    def ask(self, images: list[NDArray[Any]], *_: Any) -> tuple[NDArray[np.float64], float]:
        ill = np.array([image.mean() > MIDDLE for image in images], float)
        return np.stack([ill, 1 - ill], axis=1)[None], 0.0


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Synthetic:
    """Sixty real images of as many patients, and a run that was trained on such ones."""
    folder = tmp_path_factory.mktemp("synthetic")
    run, cohort = trainings.finished(folder / "run"), trainings.cohort()
    lines = ["file,label,patient_id"]
    for number, label in enumerate(cohort.labels):
        file = folder / "A" / f"{number:03d}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(np.asarray(cohort.images[number])[0]).save(file)
        lines.append(f"{file.name},{cohort.classes[label]},p{number}")
    (folder / "A" / "labels.csv").write_text("\n".join(lines) + "\n")
    cases = sources.opened(folder / "A", None, b"k" * 32, folder / "unpacked", NAMES, None)
    test = sources.labelled([case.row for case in cases.read()], cases.classes, NAMES)
    victim: Any = types.SimpleNamespace(name="m", child=Bright(), contract=types.SimpleNamespace(classes=NAMES))
    with (
        mock.patch.object(training, "CHECK", 256),
        mock.patch.object(training, "LEAST", 1024),
        mock.patch.multiple(synthetic, CEILING=4096, SEEDS=1),
        mock.patch.multiple(of_run, EACH=6, STEP=2, CHANGED=3, TRIES=((2.0, 1.0), (30.0, 1.0))),
        mock.patch.object(own_generator, "STEPS", 4),
    ):
        source = synthetic.opened(run, cases, b"k" * 32, folder, NAMES)
        return synthetic.asked(victim, cases, test, source, Reporter(folder / "log.jsonl", silent()))


def test_every_kind_is_told_with_what_was_made_and_kept(found: Synthetic) -> None:
    sets = {one["name"]: one for one in found.result["sets"]}
    assert sets["every class alike"]["classes"]["ill"]["images"] == 6
    assert [name for name in sets if "weight" in sets[name]] == [f"healthy to ill, {weight:g}" for weight in of_run.WEIGHTS]
    assert {"healthy given ill", "ill given healthy"} <= set(sets)
    assert found.result["judges"]["auc"].value > 0.9
    assert sum(one["kept"] for one in sets.values()) > 0


def test_every_case_carries_what_the_judges_say_and_only_sure_ones_were_asked(found: Synthetic) -> None:
    table = found.cases
    assert len(table) == sum(one["images"] for one in found.result["sets"])
    assert table["label_fidelity"].between(0, 1).all()
    assert table["distance"].between(0, 1).all()
    assert (table["label_fidelity"][table["kept"]] > 0.5).all()
    assert ((table["named"] != "") == table["kept"]).all()


def test_the_model_is_asked_the_real_cases_at_the_size_of_the_made_ones(found: Synthetic) -> None:
    assert {name: one.value for name, one in found.result["real_at_that_size"].items()} == {"ill": 1.0, "healthy": 1.0}


def test_real_images_stand_above_what_was_made_of_them(found: Synthetic) -> None:
    assert [title for title, _ in found.pairs] == ["real healthy", "healthy given ill", "real ill", "ill given healthy"]
    assert all(len(images) == 3 for _, images in found.pairs)


def test_a_run_of_other_classes_is_refused(tmp_path: Path) -> None:
    from pipeline.errors import InputError

    run = trainings.finished(tmp_path / "run")
    test = sources.labelled([], (), ("cat", "dog"))
    with pytest.raises(InputError, match="makes 2 classes that the model does not name: give a run of cat, dog"):
        of_run.OfRun(run, None, test, ("cat", "dog"))  # type: ignore[arg-type]


def test_a_run_whose_classes_the_model_spells_otherwise_makes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, names = trainings.finished(tmp_path / "run"), ("ILL", "Healthy")
    monkeypatch.setattr(of_run, "resized", lambda *_: np.zeros((0, 1, 16, 16), np.uint8))
    made = of_run.OfRun(run, None, sources.labelled([], (), names), names)  # type: ignore[arg-type]
    assert [names[label].lower() for label in made.labels] == list(made.maker.classes)
    assert [note.split()[-6:-5] for note in made.notes] == [["Healthy,"], ["ILL,"]]
