"""What a run may write and replace: nothing of the user's is touched, and what was finished stays until its successor is whole."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from stage_stubs import config, run, stubbed, tree  # noqa: F401

from pipeline import artifacts, folders, given, runner, stages
from pipeline.errors import InputError

pytestmark = pytest.mark.usefixtures("stubbed")
NAMES = tuple(stage.name for stage in stages.flow(config()))


def refused(folder: Path, settings=None, match: str | None = None, **options: object) -> None:
    """The run is refused in one line, and nothing at all below ``folder``'s parent has changed."""
    before = tree(folder.parent)
    with pytest.raises(InputError, match=match) as caught:
        run(settings or config(), folder, **options)
    assert "\n" not in str(caught.value)
    assert tree(folder.parent) == before


def note(folder: Path, name: str = "note.txt") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("the user's own")


def record_of_another_tool(folder: Path) -> None:
    note(folder)
    (folder / "record.json").write_text(json.dumps({"fingerprint": "0" * 64, "files": {}, "sizes": {}, "identity": {}, "digest": ""}))


def mark_of_another_tool(folder: Path) -> None:
    note(folder)
    (folder / "partial.json").write_text(json.dumps({"fingerprint": "0" * 64}))


def record_of_another_stage(folder: Path) -> None:
    other = folder.parent.parent / "other"
    run(config(), other)
    source = "train" if folder.name != "train" else "generate"
    shutil.copytree(other / source, folder)


def link_to_a_folder(folder: Path) -> None:
    note(folder.parent.parent / "elsewhere")
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.symlink_to(folder.parent.parent / "elsewhere")


def link_to_nothing(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.symlink_to(folder.parent / "nowhere")


def link_to_itself(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.symlink_to(folder)


def file_in_its_place(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("the user's own")


def pipe_in_its_place(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(folder)


def link_to_a_file(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    (folder.parent.parent / "theirs.txt").write_text("the user's own")
    folder.symlink_to(folder.parent.parent / "theirs.txt")


def link_as_record(folder: Path) -> None:
    other = folder.parent.parent / "other"
    run(config(), other)
    note(folder)
    (folder / "record.json").symlink_to(other / folder.name / "record.json")


OTHERS: list[Callable[[Path], None]] = [
    *(note, record_of_another_tool, mark_of_another_tool, record_of_another_stage, link_to_a_folder, link_to_nothing, link_to_itself),
    *(file_in_its_place, link_as_record),
]


@pytest.mark.parametrize("make", [note, link_to_nothing, link_to_itself, pipe_in_its_place, link_to_a_file], ids=lambda make: make.__name__)
@pytest.mark.parametrize("name", folders.FILES)
def test_a_file_that_the_run_writes_is_neither_followed_nor_waited_for(tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    make(tmp_path / "run" / name)
    refused(tmp_path / "run")


@pytest.mark.parametrize("make", OTHERS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("stage", ["ingest", "generate", "release"])
def test_a_stages_folder_that_is_not_ours_is_not_touched(tmp_path: Path, stage: str, make: Callable[[Path], None]) -> None:
    make(tmp_path / "run" / stage)
    refused(tmp_path / "run")
    refused(tmp_path / "run", redo=True)


@pytest.mark.parametrize("name", ["unfinished", "unfinished/train", "unfinished/mine", "unfinished/train.replaced"])
@pytest.mark.parametrize("make", [note, record_of_another_tool, mark_of_another_tool, link_to_a_folder], ids=lambda make: make.__name__)
def test_a_folder_of_attempts_that_is_not_ours_is_not_touched(tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    make(tmp_path / "run" / name)
    refused(tmp_path / "run", redo=True)


def test_a_mount_point_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run" / "train").mkdir(parents=True)
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "train")
    refused(tmp_path / "run", match="mount point")


def test_an_empty_folder_and_a_file_managers_litter_are_no_obstacle(tmp_path: Path) -> None:
    for name in ("ingest", "train", "unfinished", "unfinished/generate"):
        (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / "train" / ".DS_Store").write_bytes(b"x")
    assert run(config(), tmp_path) == list(NAMES)
    (tmp_path / "train" / "parts" / "Thumbs.db").write_bytes(b"x")
    assert run(config(), tmp_path) == []
    assert run(config(generate={"per_class": 6}), tmp_path, redo=True) == list(NAMES[2:])


def places(run: Path, kind: str) -> list[Path]:
    """Ways to say that a source lies in, is, or holds a stage's folder."""
    inside = run / "train" / "dicoms"
    return {
        "inside": [inside, run / "train" / "a" / "b", run / "unfinished" / "dicoms", run / "release" / "x"],
        "equal": [run / "ingest", run / "train", run / "release", run / "unfinished"],
        "above": [run, run.parent, run.parent.parent],
    }[kind]


def plainly(path: Path) -> Path:
    return path


def relatively(path: Path) -> Path:
    return Path(os.path.relpath(path))


def with_dots(path: Path) -> Path:
    return path.parent / "nothing" / ".." / path.name


def through_a_link(path: Path) -> Path:
    link = Path(os.environ["LINKS"]) / "link"
    link.unlink(missing_ok=True)
    link.symlink_to(path)
    return link


def in_capitals(path: Path) -> Path:
    return path.with_name(path.name.upper())


@pytest.mark.parametrize("spell", [plainly, relatively, with_dots, through_a_link], ids=lambda spell: spell.__name__)
@pytest.mark.parametrize("kind", ["inside", "equal", "above"])
def test_a_source_that_a_run_would_replace_is_refused(tmp_path, monkeypatch, spell: Callable[[Path], Path], kind: str) -> None:
    (tmp_path / "links").mkdir()
    monkeypatch.setenv("LINKS", str(tmp_path / "links"))
    for number, path in enumerate(places(tmp_path / "here" / "below" / str(0) / "run", kind)):
        folder = tmp_path / "here" / "below" / "0" / "run"
        shutil.rmtree(tmp_path / "here", ignore_errors=True)
        note(path, f"patient-{number}.dcm")
        (path / "nothing").mkdir(exist_ok=True)
        (path.parent / "nothing").mkdir(exist_ok=True)
        section = {"source": "dicom", "path": spell(path), "classes": ["a", "b"]}
        refused(folder, config(ingest=section))


def test_a_source_in_a_folder_that_other_file_systems_take_for_a_stages_is_refused(tmp_path: Path) -> None:
    note(tmp_path / "run" / "Train" / "dicoms")
    section = {"source": "dicom", "path": in_capitals(tmp_path / "run" / "Train") / ".." / "Train" / "dicoms", "classes": ["a", "b"]}
    (tmp_path / "run" / "TRAIN").mkdir()
    refused(tmp_path / "run", config(ingest=section), "which a run replaces")


def test_one_place_under_two_names_is_known_by_its_inode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bind mount: two paths that no spelling tells to be one."""
    note(tmp_path / "mounted" / "dicoms")
    (tmp_path / "run" / "train").mkdir(parents=True)
    same = os.path.samestat
    train, mounted = (tmp_path / "run" / "train").stat(), (tmp_path / "mounted").stat()
    monkeypatch.setattr(
        os.path, "samestat", lambda a, b: same(a, b) or ({a.st_ino, b.st_ino} == {train.st_ino, mounted.st_ino} and a.st_dev == b.st_dev)
    )
    section = {"source": "dicom", "path": tmp_path / "mounted" / "dicoms", "classes": ["a", "b"]}
    refused(tmp_path / "run", config(ingest=section), "which a run replaces")


def weights(folder: Path) -> Path:
    note(folder, "model.safetensors")
    return folder


@pytest.mark.parametrize(
    "settings",
    [
        lambda run: config(train={"start_from": weights(run / "train")}),
        lambda run: config(train={"start_from": weights(run / "train") / "model.safetensors"}),
        lambda run: config(train={"start_from": weights(run / "unfinished" / "train")}),
        lambda run: config(generate={"autoguidance": weights(run / "generate"), "guidance_scale": 2.0}),
        lambda run: config(ingest={"source": "medmnist", "dataset": "breastmnist", "path": run / "ingest"}),
        lambda run: config(
            ingest={"source": "pictures", "path": run.parent / "pictures", "labels": "../run/train/l.csv", "classes": ["a"]}
        ),
    ],
)
def test_any_file_that_a_run_reads_is_kept_out_of_what_it_replaces(tmp_path: Path, settings: Callable[[Path], object]) -> None:
    note(tmp_path / "pictures")
    refused(tmp_path / "run", settings(tmp_path / "run"))


def test_the_configuration_and_the_key_are_kept_out_of_what_a_run_replaces(tmp_path, monkeypatch) -> None:
    note(tmp_path / "run" / "train", "config.yaml")
    refused(tmp_path / "run", keep=[tmp_path / "run" / "train" / "config.yaml"], match="the configuration lies in run/train")
    shutil.rmtree(tmp_path / "run" / "train")
    monkeypatch.setenv("SYNTHCOHORT_KEY_FILE", str(tmp_path / "run" / "ingest" / "key"))
    refused(tmp_path / "run", match="SYNTHCOHORT_KEY_FILE lies in run/ingest")


def test_files_that_were_put_into_a_finished_stage_are_not_removed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(config(), folder)
    note(folder / "train" / "parts", "mine.txt")
    other = config(train={"images": 200})
    refused(folder, other, "train holds files or links that are not this run's and would be replaced", redo=True)
    shutil.move(folder / "train" / "parts" / "mine.txt", tmp_path)
    (folder / "generate" / "link").symlink_to(tmp_path / "mine.txt")
    refused(folder, other, "generate holds files or links", redo=True)


def test_files_that_come_while_a_run_works_are_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(config(), tmp_path)
    real = runner._run_stage

    def and_then(stage, work, wanted):
        note(tmp_path / "train")
        return real(stage, work, wanted)

    monkeypatch.setattr(runner, "_run_stage", and_then)
    with pytest.raises(InputError, match="train holds files or links"):
        run(config(train={"images": 200}), tmp_path, redo=True)
    assert (tmp_path / "train" / "note.txt").exists()


def digests(folder: Path) -> list[str]:
    return [(artifacts.read_record(folder / name) or {}).get("digest", "") for name in NAMES]


def test_a_redo_that_fails_late_costs_nothing_and_goes_on(tmp_path: Path) -> None:
    first = config()
    run(first, tmp_path)
    before = {name: tree(tmp_path / name) for name in NAMES}
    typo = config(train={"images": 200}, release={"contact": "broken"})
    with pytest.raises(InputError, match="a typo"):
        run(typo, tmp_path, redo=True)
    assert {name: tree(tmp_path / name) for name in NAMES} == before
    assert run(first, tmp_path) == []
    # The corrected command takes over what the failed one finished.
    assert run(config(train={"images": 200}, release={"contact": "whole"}), tmp_path, redo=True) == ["release"]
    assert not (tmp_path / "unfinished").exists()
    assert json.loads((tmp_path / "train" / "result.json").read_text())["section"]["images"] == 200


def test_a_redo_up_to_a_stage_replaces_no_later_one(tmp_path: Path) -> None:
    run(config(), tmp_path)
    later = {name: tree(tmp_path / name) for name in NAMES[3:]}
    other = config(generate={"per_class": 6})
    assert run(other, tmp_path, redo=True, until="generate") == ["generate"]
    assert {name: tree(tmp_path / name) for name in NAMES[3:]} == later
    refused(tmp_path, other, "audit, evaluate, stress, review, release would be redone")
    assert run(other, tmp_path, redo=True) == list(NAMES[3:])


def test_without_redo_nothing_is_replaced(tmp_path: Path) -> None:
    run(config(), tmp_path / "run")
    refused(tmp_path / "run", config(train={"images": 200}), "train.images changed")


def test_a_stage_that_somebody_removed_is_not_called_another_configuration(tmp_path: Path) -> None:
    run(config(), tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "train")
    refused(tmp_path / "run", match=r"^finished stages of run do not fit any more \(train runs first\)")


def killed_at(event: int, settings, folder: Path) -> bool:
    """Run in a child that is killed at its n-th change of the file system; whether it came so far."""
    child = os.fork()
    if not child:
        seen = 0

        def hook(name: str, arguments: tuple[object, ...]) -> None:
            nonlocal seen
            if name in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod") or (
                name == "open" and arguments[1] not in (None, "r", "rb")
            ):
                seen += 1
                if seen == event:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            run(settings, folder, redo=True)
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


def test_killed_at_any_moment_a_redo_leaves_the_old_or_the_new_and_goes_on(tmp_path: Path) -> None:
    old, new = config(), config(audit={"planted": 30})
    run(old, tmp_path / "old")
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    run(new, tmp_path / "new", redo=True)
    before, after = digests(tmp_path / "old"), digests(tmp_path / "new")
    event, moments = 1, set()
    while True:
        folder = tmp_path / f"at-{event}"
        shutil.copytree(tmp_path / "old", folder)
        if not killed_at(event, new, folder):
            break
        folders.claim(folder, NAMES, {})
        folders.recover(folder, NAMES)
        found = digests(folder)
        assert found in (before, after), event
        moments.add(found == after)
        run(new, folder, redo=True)
        assert digests(folder) == after, event
        assert not (folder / "unfinished").exists()
        assert sorted(tree(folder)) == sorted(tree(tmp_path / "new")), event
        event += 1 if found == after else 5
        shutil.rmtree(folder)
    assert event > 40
    assert moments == {False, True}


def test_killed_at_any_moment_a_first_run_goes_on(tmp_path: Path) -> None:
    run(config(), tmp_path / "whole")
    event = 1
    while killed_at(event, config(), tmp_path / f"at-{event}"):
        folder = tmp_path / f"at-{event}"
        run(config(), folder)
        assert digests(folder) == digests(tmp_path / "whole"), event
        shutil.rmtree(folder, ignore_errors=True)
        event += 19
    assert event > 100


def test_a_stage_that_lost_a_file_is_redone_only_when_asked(tmp_path: Path) -> None:
    run(config(), tmp_path / "run")
    (tmp_path / "run" / "train" / "parts" / "one.bin").unlink()
    refused(tmp_path / "run", match="train/parts/one.bin is missing or damaged.*add --redo")
    assert run(config(), tmp_path / "run", redo=True)[0] == "train"
    assert run(config(), tmp_path / "run") == []


def attempt(folder: Path, settings, *parts: str) -> None:
    """What an interrupted attempt at the training leaves, behind a finished ingest."""
    run(settings, folder, until="ingest")
    wanted = next(step.identity for step in runner.plan(settings, folder, given.digests(settings, folder)) if step.stage.name == "train")
    place = folder / artifacts.UNFINISHED / "train"
    folders.open_stage(place, wanted, resumable=True, private=True)
    (place / "checkpoint").mkdir()
    for part in parts:
        (place / "checkpoint" / part).write_text("hours of work")


def notes(folder: Path) -> list[str]:
    return [line["text"] for line in map(json.loads, (folder / "log.jsonl").read_text().splitlines()) if line["event"] == "note"]


def test_an_attempt_at_other_settings_is_not_removed_without_a_word(tmp_path: Path) -> None:
    changed = config(train={"dropout": 0.3})
    attempt(tmp_path / "a", config(), "state")
    reasons = {step.stage.name: step.reason for step in runner.plan(changed, tmp_path / "a", given.digests(changed, tmp_path / "a"))}
    assert reasons["train"] == (
        "not finished yet, and what unfinished/train holds is of other settings, images or code: it is removed, and train starts over"
    )
    run(changed, tmp_path / "a", until="train")
    said = "what an interrupted attempt left was of other settings, images or code, and is removed: train starts over"
    assert notes(tmp_path / "a") == [said]
    for name, settings, parts in (("same", config(), ["state"]), ("empty", changed, [])):
        attempt(tmp_path / name, config(), *parts)
        steps = runner.plan(settings, tmp_path / name, given.digests(settings, tmp_path / name))
        assert "not finished yet" in [step.reason for step in steps]
        run(settings, tmp_path / name, until="train")
        assert notes(tmp_path / name) == []
