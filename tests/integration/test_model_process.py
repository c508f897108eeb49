"""Models that do what nobody asked them to: each costs itself only, and is told in a line; and those that may."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "unit"))

from foreign_models import CLASSES, brightness_images, picture_folder

from pipeline import api
from pipeline.errors import InputError
from pipeline.models.child import Bounds, Child, ModelFailed
from pipeline.models.contract import Contract

READERS = """
import os, time
import numpy as np

def bright(x):
    z = (x.mean(axis=(1, 2, 3)) - 0.49) * 30
    p = 1 / (1 + np.exp(-z))
    return np.stack([1 - p, p], axis=1)

def dies(x):
    os.kill(os.getpid(), 11)

def sleeps(x):
    time.sleep(600)

def grows(x):
    held = []
    while True:
        held.append(np.ones(1 << 24))

def raises(x):
    raise KeyError("the images are upside down\\nand more")

def breeds(x):
    if os.fork() == 0:
        held = np.ones(1 << 28)
        time.sleep(600)
    time.sleep(600)

def leaves(x):
    import subprocess
    started = subprocess.Popen(["sleep", "600"])
    with open("left.txt", "w") as file:
        file.write(str(started.pid))
    return bright(x)

def shared(x):
    import multiprocessing
    assert multiprocessing.get_start_method() == multiprocessing.get_all_start_methods()[0]  # the system's own
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return np.concatenate(pool.map(bright, np.array_split(x, 2)))

asked = 0
def tires(x):
    global asked
    asked += len(x)
    return bright(x) if asked < 50 else bright(x) * 0.5 + 0.25

def fades(x):
    p = bright(x)
    p[x.min(axis=(1, 2, 3)) > 0.5] = np.nan
    return p

def overflows(x):
    p = bright(x)
    return p * np.where(x.max(axis=(1, 2, 3), keepdims=True)[..., 0, 0] >= 1, 3, 1)

def weak(x):
    noise = np.modf(np.abs(x[:, 0, 3, 3] - x[:, 0, 9, 9]) * 977)[0] - 0.5
    p = 1 / (1 + np.exp((x.mean(axis=(1, 2, 3)) - 0.49) * 10 + 6 * noise))
    return np.stack([1 - p, p], axis=1)

def leaning(x):
    p = 0.9 + 0.1 * x.mean(axis=(1, 2, 3))
    return np.stack([1 - p, p], axis=1)

def noisy(x):
    print("the model speaks")
    os.write(1, b"loudly")
    return bright(x)
"""
PLAIN = Contract((24, 26), 1, "NCHW", "float32", (0.0, 1.0), (), (), "stretch", CLASSES, "probabilities", True, None)


@pytest.fixture(scope="module")
def place(tmp_path_factory, cohorts_of_the_module):
    """A folder with the cases and the models, which is the current one."""
    folder = tmp_path_factory.mktemp("models")
    picture_folder(folder / "A")
    (folder / "readers.py").write_text(READERS)
    (folder / "readers.yaml").write_text("classes: [dark, bright]\nmodality: DX\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        yield folder


@pytest.mark.parametrize(
    ("name", "bounds", "why", "said"),
    [
        ("dies", Bounds(), "crash", "it ended its process (SIGSEGV)"),
        ("sleeps", Bounds(seconds=-59.5), "slow", "it gave no answer in 0 s"),
        ("grows", Bounds(memory=3 << 29), "memory", "it needs more than 1.5 GiB of memory"),
        ("breeds", Bounds(memory=3 << 29), "memory", "it needs more than 1.5 GiB of memory"),
        ("raises", Bounds(), "run", "KeyError: 'the images are upside down\\nand more'"),
    ],
)
def test_a_model_that_misbehaves_costs_itself_only(place, name, bounds, why, said):
    images, _ = brightness_images(1)
    with Child(f"readers:{name}", "callable", "cpu", bounds) as child:
        child.load()
        with pytest.raises(ModelFailed) as failed:
            child.raw(list(images), PLAIN)
    assert failed.value.why == why
    assert said in str(failed.value)
    assert not child.process.is_alive()


def test_a_model_may_have_workers_of_its_own(place):
    """As a loader of batches has, or a forest."""
    images, labels = brightness_images(6)
    with Child("readers:shared", "callable", "cpu", Bounds()) as child:
        child.load()
        assert (child.raw(list(images), PLAIN)[1].argmax(axis=1) == labels).all()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tires", "images have another answer when they are asked again after 60 cases: it remembers earlier images, or draws by chance"),
        ("fades", "NaN or infinity for "),
        ("overflows", "are no probabilities: declare output: logits in its contract (after 0 cases, under "),
    ],
)
def test_what_eight_images_do_not_show_of_a_model_is_told_by_the_others_with_the_shift(place, name, said):
    with pytest.raises(InputError) as error:
        api.stress(model=f"readers:{name}", data="A", out="late")
    assert str(error.value).startswith(f"readers:{name}: ")
    assert said in str(error.value)
    assert name == "tires" or ", under " in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unfit_model_is_told_what_was_guessed_of_it_and_which_order_of_classes_fits_better(place):
    found = api.stress(model="readers:weak", data="A", out="weak")
    assert found.answers[0]["answer"] == "no"
    guessed = next(note for note in found.result["notes"] if "was guessed" in note)
    assert (
        "readers:weak: the outputs rank the labels of 60 images better in another order: if that is the right one, declare classes: "
        "[bright, dark] in readers.yaml"
    ) in found.result["notes"]
    assert "readers.yaml leaves out what was guessed (size [24, 26], from the images; " in guessed
    assert "no mean and std, by default" in guessed


def test_a_model_that_ranks_the_labels_and_calls_every_image_alike_is_told(place):
    """As one does whose input is not scaled as in training: its AUC shows nothing."""
    found = api.stress(model="readers:leaning", data="A", out="leaning")
    assert found.answers[0]["answer"] == "yes"
    said = [note for note in found.result["notes"] if note.startswith("readers:leaning: all 60 images are called bright, though ")]
    assert len(said) == 1
    assert said[0].endswith("declare range, mean and std in readers.yaml")


def test_what_a_model_started_ends_with_it(place):
    images, _ = brightness_images(2)
    with Child("readers:leaves", "callable", "cpu", Bounds()) as child:
        child.load()
        child.raw(list(images), PLAIN)
        left = Path("/proc") / Path("left.txt").read_text()
        assert left.exists()
    gone(left)


def gone(left):
    until = time.monotonic() + 20
    while left.exists() and (left / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < until, "it runs on"
        time.sleep(0.01)


def test_what_a_model_started_ends_where_the_test_is_killed(place):
    """As the system does where memory runs out: nothing of ours is left to end it."""
    program = (
        "import time\n"
        "from foreign_models import brightness_images\n"
        "from tests.integration.test_model_process import PLAIN, Bounds, Child\n"
        "child = Child('readers:leaves', 'callable', 'cpu', Bounds())\n"
        "child.load()\n"
        "child.raw(list(brightness_images(2)[0]), PLAIN)\n"
        "print('asked', flush=True)\n"
        "time.sleep(600)\n"
    )
    root = Path(__file__).parents[2]
    paths = os.pathsep.join(map(str, (root, root / "tests" / "unit", place)))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": paths}) as test:
        assert test.stdout is not None
        assert test.stdout.readline() == b"asked\n"
        left = Path("/proc") / Path("left.txt").read_text()
        assert left.exists()
        test.kill()
    gone(left)


def test_what_a_model_prints_goes_nowhere(place, capfd):
    images, _ = brightness_images(2)
    with Child("readers:noisy", "callable", "cpu", Bounds()) as child:
        child.load()
        assert child.raw(list(images), PLAIN)[1].shape == (2, 2)
    assert capfd.readouterr() == ("", "")
