"""Wrong turns end in one line that says what to type."""

import shlex

import pytest

from tests.integration.wrong_turns import TURNS
from tests.unit.cohort_runs import pictures
from tests.unit.command import refused, run_main
from tests.unit.dicom_folder import cohort

MINE = """
name: mine
ingest: {source: pictures, path: scans, classes: [normal, abnormal], burned_in: declared}
train: {images: 1}
generate: {per_class: 600}
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """The folder that :mod:`tests.integration.wrong_turns` describes."""
    folder = tmp_path_factory.mktemp("desk")
    pictures(folder / "scans", 24, fill="normal/{number:03d}.png")
    pictures(folder / "scans", 12, 24, fill="abnormal/{number:03d}.png")
    pictures(folder / "listed", 4, fill="{number}.png")
    (folder / "listed" / "labels.csv").write_text("file,label\n0.png,a\n1.png,b\n2.png,a\n3.png,b\n")
    pictures(folder / "loose", 4, fill="{number}.png")
    for split in ("train", "test"):
        pictures(folder / "split", 4, fill=split + "/{name}/{number}.png")
    cohort(folder / "dicom", 4, images=1)
    pictures(folder / "strange", 24, fill="{number}.png")
    (folder / "strange" / "labels.csv").write_text(
        "file,label\n" + "".join(f"scan{number}.png,{'ab'[number % 2]}\n" for number in range(24))
    )
    for name in ("sheet", "marked"):
        pictures(folder / name, 4, fill="{number}.png")
    (folder / "sheet" / "labels.xlsx").write_bytes(b"PK")
    (folder / "marked" / "labels.csv").write_text("file,ill\n0.png,1\n1.png,0\n2.png,1\n3.png,0\n")
    (folder / "empty").mkdir()
    (folder / "mine.yaml").write_text(MINE)
    (folder / "words.yaml").write_text("just words\n")
    (folder / "twice.yaml").write_text(MINE + "name: again\n")
    (folder / "tabs.yaml").write_text("name: x\n\tingest: y\n")
    (folder / "notes.txt").write_text("a note\n")
    for name in ("set.npz", "scans.zip"):
        (folder / name).write_bytes(b"PK\x03\x04 and so on")
    return folder


@pytest.fixture(scope="module")
def with_run(desk):
    """The folder with a run of which the ingest is finished."""
    from pipeline.api import run

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(desk)
        patch.setenv("SYNTHCOHORT_WORKERS", "1")
        run("mine.yaml", out=desk / "run", until="ingest")
    return desk


def test_there_are_many():
    assert len({turn.typed for turn in TURNS}) == len(TURNS) >= 75


@pytest.mark.parametrize("turn", TURNS, ids=lambda turn: turn.typed)
def test_a_wrong_turn_ends_in_one_line_that_says_what_to_type(monkeypatch, capfd, with_run, turn):
    monkeypatch.chdir(with_run)
    monkeypatch.setenv("SYNTHCOHORT_WORKERS", "1")
    process = run_main(monkeypatch, capfd, *shlex.split(turn.typed))
    assert process.returncode == turn.code, process.stdout + process.stderr
    process.returncode = 2
    refused(process, *turn.says)
