"""Hostile files cost themselves only: 200 mutants, files made by hand and by hypothesis, paths that lead out of the folder."""

from __future__ import annotations

import functools
import os
import struct
from pathlib import Path

import dicom_folder
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from pipeline.config import Config
from pipeline.context import Context
from pipeline.ingest import source, stage
from pipeline.ingest.isolate import Answer, Failed, isolated
from pipeline.ingest.readers import dicom
from pipeline.progress import Reporter
from tests.benchmarks.hostile_files import KEY, MEGABYTES, SECRET, bomb, data_of, examine, header, mutants, report, special, valid


def read_all(folder: Path, names: list[str], **bounds: float) -> dict[str, Answer | Failed]:
    return dict(zip(names, isolated(functools.partial(examine, root=folder), names, **bounds), strict=True))  # type: ignore[arg-type]


def reason(answer: Answer | Failed) -> str:
    return answer.reason if isinstance(answer, Failed) else " ".join(answer.value["left_out"])


def test_valid_files_of_each_kind_are_read(tmp_path: Path) -> None:
    """Otherwise the mutants below would prove nothing."""
    for name, data in valid().items():
        (tmp_path / name).write_bytes(data)
    for name, answer in read_all(tmp_path, sorted(valid())).items():
        assert isinstance(answer, Answer), name
        assert len(answer.arrays) == 1, (name, reason(answer))


def test_two_hundred_mutants(tmp_path: Path) -> None:
    files = mutants(200, 3)
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    answers = read_all(tmp_path, sorted(files))
    found = report(answers, 0)
    assert found["broken"] == []
    assert len(answers) == 200
    assert 20 < found["outcomes"]["read"] < 180, "mutants must be neither harmless nor all refused at the door"
    for answer in answers.values():
        images = answer.arrays if isinstance(answer, Answer) else ()
        assert all(np.isfinite(image).all() for image in images)


def test_files_made_by_hand_are_quarantined_with_a_reason_and_within_memory(tmp_path: Path) -> None:
    words = special(tmp_path)
    answers = read_all(tmp_path, sorted(words))
    for name, answer in answers.items():
        assert not isinstance(answer, Answer) or not answer.arrays, name
        assert reason(answer), name
        assert words[name] in reason(answer), (name, reason(answer))
        assert SECRET not in reason(answer)
        assert not isinstance(answer, Answer) or answer.value["peak"] < MEGABYTES, name


def test_the_result_does_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    for name, data in mutants(60, 11).items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "deflate-bomb.dcm").write_bytes(bomb())
    names = sorted(path.name for path in tmp_path.iterdir())
    one, three = (list(isolated(functools.partial(examine, root=tmp_path), names, workers=count)) for count in (1, 3))
    for first, second in zip(one, three, strict=True):
        assert reason(first) == reason(second)
        assert type(first) is type(second)
        if isinstance(first, Answer) and isinstance(second, Answer):
            assert first.value["rows"] == second.value["rows"]
            assert all((a == b).all() for a, b in zip(first.arrays, second.arrays, strict=True))


TAGS = (0x00080005, 0x00080018, 0x00280010, 0x00280008, 0x00281050, 0x52009229, 0x7FE00010)
ELEMENTS = st.lists(
    st.tuples(
        st.one_of(st.sampled_from(TAGS), st.integers(0, 2**32 - 1)),
        st.sampled_from([b"CS", b"LO", b"UI", b"US", b"DS", b"IS", b"SQ", b"UN", b"OB", b"OW", b"PN", b"??", b"FL", b"UT"]),
        st.one_of(st.none(), st.sampled_from([0xFFFFFFFF, 0x7FFFFFFF, 0, 1]), st.integers(0, 2**32 - 1)),
        st.binary(max_size=40),
    ),
    max_size=12,
)  # fmt: skip


@given(st.lists(ELEMENTS, min_size=12, max_size=12))
@settings(
    max_examples=8, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_elements_that_lie_about_themselves(tmp_path: Path, files: list[list[tuple[int, bytes, int | None, bytes]]]) -> None:
    """Any tags in any order, with any VR and length, after a valid beginning. Some make pydicom 3.0 append empty items without end."""
    start = data_of(header(np.arange(256, dtype=np.uint16).reshape(16, 16)))
    start = start[: start.index(b"\x28\x00\x02\x00")]
    names = []
    for number, elements in enumerate(files):
        parts = []
        for tag, vr, length, value in elements:
            size = len(value) if length is None else length
            long = vr in (b"SQ", b"UN", b"OB", b"OW", b"UT")
            parts.append(struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr)
            parts.append((b"\0\0" + struct.pack("<I", size) if long else struct.pack("<H", size & 0xFFFF)) + value)
        names.append(f"h{number}.dcm")
        (tmp_path / names[-1]).write_bytes(start + b"".join(parts))
    for answer in read_all(tmp_path, names, memory=192 << 20).values():
        assert reason(answer)
        assert SECRET not in reason(answer)
        assert not isinstance(answer, Failed) or answer.kind in ("memory", "slow")


def test_a_file_that_never_ends_is_cut_off(tmp_path: Path) -> None:
    """A pipe in place of a file, which a reader waits on for ever."""
    os.mkfifo(tmp_path / "endless.dcm")
    (tmp_path / "fine.dcm").write_bytes(valid()["native.dcm"])
    answers = read_all(tmp_path, ["endless.dcm", "fine.dcm"], seconds=0.5)
    assert "longer than 0.5 s" in reason(answers["endless.dcm"])
    assert isinstance(answers["fine.dcm"], Answer)


def test_neither_links_nor_pipes_are_among_the_files(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "deep").mkdir(parents=True)
    outside.mkdir()
    (root / "inside.dcm").write_bytes(b"x")
    (outside / "secret.dcm").write_bytes(b"x")
    (root / "file.dcm").symlink_to(outside / "secret.dcm")
    (root / "folder").symlink_to(outside)
    (root / "deep" / "loop").symlink_to(root)
    (root / "deep" / "up").symlink_to("../..")
    os.mkfifo(root / "pipe.dcm")
    assert [name for name, _ in source.regular_files(root)] == ["inside.dcm"]
    assert [name for name, why in source.never_read(root) if "link" in why] == ["deep/loop", "deep/up", "file.dcm", "folder"]


def test_what_a_dicomdir_refers_to_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    special(tmp_path)
    opened: list[str] = []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *rest, **more: opened.append(self.name) or real(self, *rest, **more))
    [found] = dicom.read(tmp_path / "dicomdir.dcm")
    assert "DICOMDIR" in found.reason  # type: ignore[union-attr]
    assert set(opened) <= {"dicomdir.dcm"}


def test_a_label_table_cannot_reach_out_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are those that the folder holds; a row that leads out of it is refused, and nothing is opened for it."""
    root, run = dicom_folder.cohort(tmp_path / "in", 16, images=1), tmp_path / "run"
    outside = dicom_folder.write(tmp_path / "outside.dcm", dicom_folder.dataset(dicom_folder.ramp(), PatientID="MRN-9999"))
    escapes = ["../outside.dcm", str(outside), "p000/../../outside.dcm", "..\\outside.dcm"]
    with (root / "labels.csv").open("a") as file:
        file.write("".join(f"\n{name},normal" for name in escapes))
    monkeypatch.setenv("SYNTHCOHORT_KEY", KEY.decode())
    section = {"source": "dicom", "path": root, "classes": ("normal", "effusion")}
    config = Config.model_validate({"name": "t", "ingest": section, "train": {"images": 1}, "generate": {"per_class": 1}})
    (run / "ingest").mkdir(parents=True)
    summary = stage.run(Context(config, run, run / "ingest", Reporter(run / "log.jsonl", Console(quiet=True)), {}))
    assert summary["images"] == 16
    left = pd.read_parquet(run / "ingest" / "quarantine.parquet")
    named = left[left["file"].str.contains("outside")]
    assert len(named) >= 3  # two of the four are one path
    assert named["reason"].str.contains("out of the folder").all()
