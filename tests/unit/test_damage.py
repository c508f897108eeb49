"""Nothing on disk is trusted: after any damage a run refuses in one line that names the file, or makes the stage anew; it never goes on."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from release_run import LENIENT, config, make_context
from rich.console import Console

from pipeline import artifacts, runner, stages
from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.ingest import source
from pipeline.progress import Reporter
from pipeline.show import show
from privacy import limits

FILES = [
    *("ingest/images-00000.npy", "ingest/rows.parquet", "ingest/cohort.json", "ingest/deidentification.json"),
    *("train/model.json", "train/model.safetensors", "generate/images-00000.npy", "generate/rows.parquet"),
    *("audit/audit.json", "evaluate/evaluation.json", "stress/stress.json"),
]


@pytest.fixture
def damaged(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(source, "source_digest", lambda config, run: "source-digest")
    monkeypatch.setattr(limits, "MAX_COPY_RATE", LENIENT)
    return Path(shutil.copytree(pristine, tmp_path / "run"))


def again(run: Path, settings: Config | None = None, **options: Any) -> None:
    runner.run_stages(settings or config(), run, Reporter(run / "log.jsonl", Console(quiet=True)), **options)


def refused(run: Path, match: str | None = None, **options: Any) -> None:
    with pytest.raises(InputError, match=match) as caught:
        again(run, **options)
    assert "\n" not in str(caught.value)
    assert not (run / "release").exists()
    looked_at(run)


def message(call: Callable[[], Any]) -> str | None:
    """The one line with which a call refuses; None where it does not. Anything else than InputError is raised."""
    try:
        call()
    except InputError as error:
        return str(error)
    return None


def looked_at(run: Path) -> None:
    """``plan`` and ``show`` of whatever is there: tables or one line."""
    for look in (
        lambda: runner.plan(config(), run, {"ingest": {"source": "source-digest"}}),
        lambda: show(run, Console(file=io.StringIO(), width=150)),
    ):
        assert "\n" not in (message(look) or "")


def flip(path: Path, place: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 1
    path.write_bytes(data)


def linked(path: Path) -> None:
    path.rename(path.parents[2] / "elsewhere")
    path.symlink_to(path.parents[2] / "elsewhere")


def swapped(path: Path) -> None:
    other = path.parents[1] / next(name for name in FILES if name != path.relative_to(path.parents[1]).as_posix())
    ours, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(ours)


def replaced_by(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


def same_size(fill: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes((fill * path.stat().st_size)[: path.stat().st_size]) and None


def npy_bomb(path: Path) -> None:
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776, 1, 32, 32), }"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "first bit": lambda path: flip(path, 0),
    "middle bit": lambda path: flip(path, 0.5),
    "last bit": lambda path: flip(path, 1),
    "one byte less": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "one byte more": lambda path: path.write_bytes(path.read_bytes() + b"\n"),
    "zeros of its size": same_size(b"\0"),
    "noise of its size": same_size(b"\x97\x13\xfe"),
    "missing": lambda path: path.unlink(),
    "renamed": lambda path: path.rename(path.with_name(path.name.upper())),
    "a folder": replaced_by(lambda path: path.mkdir()),
    "a link to itself": replaced_by(lambda path: path.symlink_to(path)),
    "a link to its content": linked,
    "a link to nothing": replaced_by(lambda path: path.symlink_to("/nowhere")),
    "a pipe": replaced_by(os.mkfifo),
    "another file's content": swapped,
    "a pickle": lambda path: path.write_bytes(pickle.dumps({"a": 1})),
    "an array of objects": lambda path: np.save(path.open("wb"), np.array([{}], object), allow_pickle=True),
    "an array of floats": lambda path: np.save(path.open("wb"), np.zeros((40, 1, 32, 32))),
    "an array larger than the disk": npy_bomb,
    "a header of 4 EiB": lambda path: path.write_bytes((1 << 62).to_bytes(8, "little") + b"{}"),
    "a zip": lambda path: np.savez(path.open("wb"), a=np.zeros(3)),
    "a parquet of its own": lambda path: pd.DataFrame({"a": [1]}).to_parquet(path),
    "NaN": lambda path: path.write_text('{"unit": NaN}'),
    "an infinite number": lambda path: path.write_text('{"unit": 1e999}'),
    "a number of 5000 digits": lambda path: path.write_text('{"unit": ' + "9" * 5000 + "}"),
    "lists in lists": lambda path: path.write_text("[" * 100_000 + "]" * 100_000),
    "millions of lists": lambda path: path.write_text("[" + "[]," * 1_100_000 + "[]]"),
    "not UTF-8": lambda path: path.write_bytes(b'{"unit": "\xff\xfe"}'),
    "UTF-16": lambda path: path.write_bytes('{"unit": 1}'.encode("utf-16")),
    "half a surrogate pair": lambda path: path.write_text('{"unit": "\\ud800"}'),
    "a list": lambda path: path.write_text("[]"),
    "null": lambda path: path.write_text("null"),
    "a string": lambda path: path.write_text('"passed"'),
    "an empty object": lambda path: path.write_text("{}"),
}


def test_the_run_is_whole_before_it_is_damaged(damaged: Path) -> None:
    again(damaged)
    assert runner.verdict(damaged) == "pass"
    looked_at(damaged)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_found_before_it_is_used(damaged: Path, pristine: Path, damage: str) -> None:
    for name in FILES:
        shutil.rmtree(damaged)
        shutil.copytree(pristine, damaged)
        DAMAGES[damage](damaged / name)
        with pytest.raises(InputError) as caught:
            again(damaged)
        assert "\n" not in str(caught.value)
        assert name.split("/")[0] in str(caught.value) or damage == "another file's content", name
        assert not (damaged / "release").exists()
        looked_at(damaged)


def relabelled(run: Path) -> None:
    path = run / "generate" / "rows.parquet"
    rows = pd.read_parquet(path)
    rows[["finding_normal", "finding_nodule"]] = rows[["finding_nodule", "finding_normal"]].to_numpy()
    rows.to_parquet(path, index=False)


def edited_at_equal_size(run: Path) -> None:
    path = run / "audit" / "audit.json"
    path.write_text(path.read_text().replace('"flagged": 0', '"flagged": 9'))


def another_shard(run: Path) -> None:
    np.save(run / "generate" / "images-00001.npy", np.zeros((3, 1, 32, 32), np.uint8))


def moved_into_a_folder(run: Path) -> None:
    (run / "audit" / "deep").mkdir()
    (run / "audit" / "audit.json").rename(run / "audit" / "deep" / "audit.json")


def a_stage_of_another_run(run: Path) -> None:
    other = make_context(run.parent / "other", channels=3).run
    shutil.rmtree(run / "generate")
    shutil.copytree(other / "generate", run / "generate")


def stages_swapped(run: Path) -> None:
    (run / "audit").rename(run / "x")
    (run / "stress").rename(run / "audit")
    (run / "x").rename(run / "stress")


@pytest.mark.parametrize(
    "damage",
    [
        *(relabelled, edited_at_equal_size, another_shard, moved_into_a_folder, a_stage_of_another_run, stages_swapped),
        lambda run: (run / "train" / "more.txt").write_text("x"),
        lambda run: (run / "train" / "more").symlink_to("/nowhere"),
        lambda run: (run / "ingest" / ".hidden").write_text("x"),
        lambda run: (run / "train" / "deep").mkdir() or (run / "train" / "deep" / "record.json").write_text("{}"),
    ],
)
def test_a_damaged_stage_is_found_before_it_is_used(damaged: Path, damage: Callable[[Path], Any]) -> None:
    damage(damaged)
    refused(damaged)


Record = dict[str, Any]


def without(key: str) -> Callable[[Record], Any]:
    return lambda record: record.pop(key)


def with_(**entries: Any) -> Callable[[Record], Any]:
    return lambda record: record.update(entries)


def forged_file(record: Record) -> None:
    record["files"] = dict.fromkeys(record["files"], "0" * 64)


def unbound(record: Record) -> None:
    record["identity"]["config"]["smuggled"] = True


def older(record: Record) -> None:
    record["identity"]["version"] = 0
    record["fingerprint"] = artifacts.fingerprint(record["identity"])


def outside(record: Record) -> None:
    record["files"]["../../elsewhere"] = "0" * 64
    record["sizes"]["../../elsewhere"] = 0
    record["digest"] = artifacts.fingerprint(record["files"])


def fewer(record: Record) -> None:
    record["files"].pop(next(iter(record["files"])))


def consistently_fewer(record: Record) -> None:
    name = next(iter(record["files"]))
    record["files"].pop(name)
    record["sizes"].pop(name)
    record["digest"] = artifacts.fingerprint(record["files"])


RECORDS: list[Callable[[Record], Any]] = [
    *(without(key) for key in ("fingerprint", "identity", "digest", "files", "sizes")),
    *(with_(**{key: None}) for key in ("fingerprint", "identity", "digest", "files", "sizes", "summary")),
    *(with_(**{key: 3}) for key in ("fingerprint", "identity", "digest", "files", "sizes", "summary")),
    *(with_(**{key: []}) for key in ("fingerprint", "identity", "digest", "files", "sizes", "summary")),
    *(with_(**{key: {"a": {"b": []}}}) for key in ("fingerprint", "identity", "digest", "files", "sizes")),
    *(with_(fingerprint="0" * 64), with_(digest="0" * 64), forged_file, unbound, older, outside, fewer, consistently_fewer),
    lambda record: record["sizes"].update(dict.fromkeys(record["sizes"], -1)),
    lambda record: record["sizes"].update(dict.fromkeys(record["sizes"], "7")),
    lambda record: record["identity"].update(stage="release"),
    lambda record: record["identity"].update(inputs=[]),
    lambda record: record["identity"].update(config="x"),
]


@pytest.mark.parametrize("edit", RECORDS)
@pytest.mark.parametrize("stage", ["ingest", "audit"])
@pytest.mark.parametrize("seal", [False, True])
def test_an_edited_record_is_found(damaged: Path, stage: str, edit: Callable[[Record], Any], seal: bool) -> None:
    path = damaged / stage / "record.json"
    record = json.loads(path.read_text())
    edit(record)
    path.write_text(json.dumps(sealed(record) if seal else record))
    refused(damaged)


def test_an_edited_fact_of_a_record_is_found(damaged: Path) -> None:
    path = damaged / "audit" / "record.json"
    path.write_text(path.read_text().replace('"contains_patient_data": true', '"contains_patient_data": false'))
    refused(damaged, match="audit/record.json")


# The line break at its end says nothing.
@pytest.mark.parametrize("damage", [damage for damage in DAMAGES if not damage.startswith("one byte")])
def test_a_damaged_record_is_found(damaged: Path, damage: str) -> None:
    DAMAGES[damage](damaged / "train" / "record.json")
    refused(damaged, match="train|ingest")
    refused(damaged, redo=True)


def sealed(record: Record) -> Record:
    """The record after its seal was forged too."""
    record.pop("seal")
    record["seal"] = artifacts.fingerprint(record)
    return record


def forge(run: Path, name: str, change: Callable[[Path], Any]) -> None:
    """Edit a file, and its stage's record so that it matches."""
    stage, file = name.split("/")
    change(run / name)
    path = run / stage / "record.json"
    record = json.loads(path.read_text())
    record["files"][file] = artifacts.file_digest(run / name)
    record["sizes"][file] = (run / name).stat().st_size
    record["digest"] = artifacts.fingerprint(record["files"])
    path.write_text(json.dumps(sealed(record)))


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_edited_with_its_record_no_longer_fits_what_was_made_from_it(damaged: Path, name: str) -> None:
    again(damaged)
    forge(damaged, name, lambda path: flip(path, 0.9))
    with pytest.raises(InputError, match=r"(inputs changed|is missing or damaged).*release would be redone"):
        again(damaged)
    looked_at(damaged)


@pytest.mark.parametrize("name", FILES[:-3])
@pytest.mark.parametrize("damage", ["half", "empty", "zeros of its size", "an array of floats", "a list", "an empty object", "NaN"])
def test_a_file_that_is_edited_with_all_records_after_it_is_still_read_with_care(damaged: Path, name: str, damage: str) -> None:
    """Every later record is forged too, and the release removed: what is left is that the readers take nothing on trust."""
    forge(damaged, name, DAMAGES[damage])
    records: dict[str, Any] = {}
    for stage in stages.flow(config())[:-1]:
        record = json.loads((damaged / stage.name / "record.json").read_text())
        record["identity"]["inputs"] |= {needed: records[needed]["digest"] for needed in stage.needs}
        record["fingerprint"] = artifacts.fingerprint(record["identity"])
        sealed(record)
        (damaged / stage.name / "record.json").write_text(json.dumps(record))
        records[stage.name] = record
    assert "\n" not in (message(lambda: again(damaged)) or "")
    looked_at(damaged)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".json")])
@pytest.mark.parametrize("value", ["[1]", "null", '"passed"', "7", "{", '{"a": NaN}'])
def test_results_that_are_none_are_told_alike_by_plan_show_and_run_whatever_their_record_says(damaged: Path, name: str, value: str) -> None:
    forge(damaged, name, lambda path: path.write_text(value))
    stage = name.split("/")[0]
    steps = {step.stage.name: step.reason for step in runner.plan(config(), damaged, {"ingest": {"source": "source-digest"}})}
    assert steps[stage] == f"{name} is missing or damaged"
    stream = io.StringIO()
    show(damaged, Console(file=stream, width=150))
    assert re.search(rf"│ {stage} +│ damaged", stream.getvalue())
    refused(damaged, match=f"{name} is missing or damaged.*--redo")


def test_an_edited_verdict_is_not_shown(damaged: Path) -> None:
    again(damaged)
    path = damaged / "release" / "gate.json"
    path.write_text(path.read_text().replace('"pass"', '"fail"'))
    with pytest.raises(InputError, match=r"release/gate\.json is damaged"):
        runner.verdict(damaged)
    stream = io.StringIO()
    show(damaged, Console(file=stream, width=150))
    assert "images: fail" not in stream.getvalue()


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_mark_of_an_interrupted_attempt_is_not_trusted(damaged: Path, damage: str) -> None:
    attempt = damaged / "unfinished" / "release"
    attempt.mkdir(parents=True)
    (attempt / "partial.json").write_text(json.dumps({"program": "synthcohort", "stage": "release", "fingerprint": "0" * 64}))
    (attempt / "report.html").write_text("x")
    DAMAGES[damage](attempt / "partial.json") if damage != "another file's content" else None
    said = message(lambda: again(damaged))
    if said is None:
        assert runner.verdict(damaged) == "pass"
        assert "<html" in (damaged / "release" / "report.html").read_text()
    else:
        assert "unfinished/release" in said
        assert (attempt / "report.html").exists()


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_list_of_what_takes_its_place_is_not_trusted(damaged: Path, damage: str) -> None:
    (damaged / "unfinished").mkdir()
    (damaged / "unfinished" / "swap.json").write_text('["ingest", "train"]')
    if damage != "another file's content":
        DAMAGES[damage](damaged / "unfinished" / "swap.json")
    said = message(lambda: again(damaged))
    if said is None:
        assert runner.verdict(damaged) == "pass"
    else:
        assert "unfinished" in said
        assert "\n" not in said


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"a": 1}', '{"a": [1]}', '{"a": [{}]}', "[" * 90_000, "\udc00"])
def test_a_damaged_count_of_attempts_is_refused(damaged: Path, content: str) -> None:
    (damaged / "attempts.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match=r"attempts\.json"):
        again(damaged)
    assert not (damaged / "release").exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"files": 3, "seal": ""}', '{"files": {"a": []}, "seal": "x"}', "\ud800", "[" * 90_000])
def test_a_damaged_memory_of_the_sources_is_not_believed(tmp_path: Path, content: str) -> None:
    root = tmp_path / "pictures"
    root.mkdir()
    (root / "one.png").write_bytes(b"x")
    os.utime(root / "one.png", (1, 1))
    settings = Config.model_validate(
        config().model_dump() | {"ingest": {"source": "pictures", "path": root, "classes": ["a"], "labels": "labels.csv"}}
    )
    whole = source.source_digest(settings, tmp_path)
    cache = tmp_path / source.CACHE
    remembered = json.loads(cache.read_text())
    cache.write_bytes(content.encode("utf-8", "surrogatepass"))
    assert source.source_digest(settings, tmp_path) == whole
    assert json.loads(cache.read_text()) == remembered
    # An edited digest would hide that a file has changed.
    remembered["files"] = dict.fromkeys(remembered["files"], "0" * 64)
    cache.write_text(json.dumps(remembered))
    assert source.source_digest(settings, tmp_path) == whole


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("file", ["pixels.bin", "journal.jsonl"])
def test_what_an_interrupted_ingest_read_is_read_again_where_it_was_damaged(tmp_path: Path, file: str, place: float) -> None:
    from pipeline.ingest.collect import Store, _check
    from pipeline.ingest.standardize import Target

    store = Store(tmp_path, Target(4, 1, 8, None, {}), 2)
    assert store.open() == 0
    with store.appending() as (pixels, journal):
        for number in range(10):
            line, image = {"rows": [{"id": str(number)}], "left_out": []}, bytes([number] * 16)
            pixels.write(image)
            journal.write(json.dumps(line | {"check": _check(line, [image])}).encode() + b"\n")
    assert Store(tmp_path, Target(4, 1, 8, None, {}), 2).open() == 10
    flip(tmp_path / file, place)
    left = store.open()
    assert 0 < left + 1 <= 10
    assert abs(left - 10 * place) <= 1
    assert [line["rows"][0]["id"] for line in store.lines()] == [str(number) for number in range(left)]
