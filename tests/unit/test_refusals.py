"""What the system refuses ends in one line and exit code 2: full disks, rights, names, kinds of files."""

import contextlib
import errno
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from pipeline import api
from pipeline.errors import InputError, system_refusals
from tests.unit.command import refused, run_main

ROOT = Path(__file__).parents[2]
CONFIG = "name: c\ningest: {source: phantom, phantom_patients: 4}\ntrain: {images: 1}\ngenerate: {per_class: 1}\n"
REFUSALS = [
    "ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "ENAMETOOLONG", "ELOOP", "ENOTDIR", "EISDIR", "EEXIST", "ENOENT", "EMFILE",
    "ENFILE", "ENOMEM", "EAGAIN", "EIO", "EBUSY", "ENOLCK", "ESTALE", "ETXTBSY", "EINVAL", "EINTR", "EXDEV", "ENODEV", "ENXIO",
    "EOPNOTSUPP",
    "ENOSYS", "EBADF", "ETIMEDOUT", "EHOSTDOWN", "ENOTCONN", "EOVERFLOW", "EMLINK", "ENOTEMPTY",
]  # fmt: skip


@pytest.fixture
def command(monkeypatch, capfd):
    return lambda *arguments: run_main(monkeypatch, capfd, *arguments)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG)
    return path


@pytest.mark.parametrize("name", REFUSALS)
def test_what_the_system_refuses_is_one_line_wherever_it_refuses(command, config, tmp_path, monkeypatch, name):
    def stage(*args, **kwargs):
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)), str(tmp_path / "run" / "ingest" / "DOE_JANE.dcm"))

    for place in ("pipeline.runner.run_stages", "pipeline.artifacts.fcntl.flock", "pipeline.ingest.source.source_digest"):
        with monkeypatch.context() as patch:
            patch.setattr(place, stage)
            process = command("run", config, "--out", tmp_path / "run")
        refused(process, "run")
        assert "DOE" not in process.stderr


@pytest.mark.parametrize("path", ["/mnt/pacs/DOE_JANE/1.dcm", b"/mnt/pacs/DOE_JANE/1.dcm", "DOE_JANE", 7, None])
def test_no_path_but_the_users_own_is_named(path):
    with pytest.raises(InputError) as error, system_refusals(Path("runs/quick")):
        raise PermissionError(errno.EACCES, "Permission denied", path)
    assert "DOE" not in str(error.value)
    assert "quick" in str(error.value)


@pytest.mark.parametrize("bug", [ValueError("x"), KeyError("x"), RuntimeError("os error 28"), OSError("something"), AssertionError()])
def test_a_bug_stays_one(bug):
    with pytest.raises(type(bug)), system_refusals(Path("run")):
        raise bug


def test_a_bug_is_told_without_its_message(command, config, tmp_path, monkeypatch):
    name = "DOE^JANE"

    def stage(*args, **kwargs):
        raise ValueError(name)

    monkeypatch.setattr("pipeline.runner.run_stages", stage)
    monkeypatch.delenv("SYNTHCOHORT_DEBUG", raising=False)
    process = command("run", config, "--out", tmp_path / "run")
    assert process.returncode == 1
    assert "DOE" not in process.stdout + process.stderr
    assert "ValueError" in process.stderr
    assert "run_stages" in process.stderr
    monkeypatch.setenv("SYNTHCOHORT_DEBUG", "1")
    with pytest.raises(ValueError, match="DOE"):
        command("run", config, "--out", tmp_path / "run")


WRITERS = """
import json, os, resource, shutil, sys
from pathlib import Path
import numpy as np, pandas as pd, torch
from PIL import Image
from safetensors.torch import save_file
from pipeline import artifacts, images, progress
from pipeline.errors import InputError, system_refusals
from pipeline.release.dicom_export import dicom_bytes
from pipeline.release.formats import write_archive

place = Path(sys.argv[1])
(place / "large").write_bytes(bytes(100_000))
noise = np.random.default_rng(0).integers(0, 256, (4, 1, 128, 128), dtype=np.uint8)
rows = pd.DataFrame({"id": [f"{n}" * 5000 for n in range(4)], "finding_a": np.ones(4, np.int8)})
whole = images.ImageSet(noise, rows)
writers = {
    "json": lambda: artifacts.write_json(place / "a.json", ["x"] * 5000),
    "log": lambda: progress.Reporter(place / "log.jsonl").log("event", text="x" * 5000),
    "text": lambda: (place / "a.html").write_text("x" * 5000),
    "bytes": lambda: (place / "a.dcm").write_bytes(bytes(5000)),
    "npy": lambda: np.save(place / "a.npy", noise),
    "npz": lambda: write_archive(place / "a.npz", noise, np.zeros(4, np.int64), 1),
    "image set": lambda: whole.save(place / "set"),
    "rows": lambda: rows.to_parquet(place / "a.parquet", index=False),
    "csv": lambda: rows.to_csv(place / "a.csv"),
    "weights": lambda: save_file({"w": torch.zeros(5000)}, place / "a.safetensors"),
    "png": lambda: Image.fromarray(noise[0, 0]).save(place / "a.png"),
    "dicom": lambda: (place / "b.dcm").write_bytes(dicom_bytes(noise[0], image_id="a", label="a", cohort="c", version="1")),
    "copy": lambda: shutil.copyfile(place / "large", place / "copy"),
}
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for name, write in writers.items():
    try:
        with system_refusals(place):
            write()
        print(name, "wrote")
    except InputError as error:
        print(name, "refused", error)
    except BaseException as error:
        print(name, "bug", repr(error))
"""


def test_every_library_that_writes_is_understood_where_it_may_not_write_on(tmp_path):
    """A bound on the size of a file stands for a full disk, which the system tells the same way."""
    done = subprocess.run([sys.executable, "-c", WRITERS, tmp_path], capture_output=True, text=True, cwd=ROOT, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 13, done.stdout + done.stderr
    assert [line for line in lines if " refused " not in line] == []


@pytest.mark.parametrize("error", [MemoryError(), np._core._exceptions._ArrayMemoryError((9,), np.dtype("u1"))])
def test_memory_that_is_not_there(error):
    with pytest.raises(InputError, match="memory"), system_refusals(Path("run")):
        raise error


def broken_link(path):
    path.symlink_to("nowhere/at/all")


def circle(path):
    path.symlink_to(path.name)


def unix_socket(path):
    before = os.getcwd()
    os.chdir(path.parent)  # the name of a socket may have 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(path.name)
    finally:
        os.chdir(before)


KINDS = {
    "file": lambda path: path.write_text("mine"),
    "empty file": lambda path: path.touch(),
    "dangling link": broken_link,
    "circle": circle,
    "link to a file": lambda path: (path.with_name("f").touch(), path.symlink_to(path.with_name("f"))),
    "fifo": os.mkfifo,
    "socket": unix_socket,
    "device": lambda path: path.symlink_to("/dev/null"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_out_that_is_no_folder(command, config, tmp_path, kind):
    out = tmp_path / "out"
    KINDS[kind](out)
    before = os.lstat(out)
    for words in (("run", config, "--out", out), ("plan", config, "--out", out), ("run", config, "--out", out / "below")):
        refused(command(*words), "out" if words[-1] == out else "")
    for words in (("phantom", out), ("show", out), ("verify", out)):
        refused(command(*words), "out")
    assert (os.lstat(out).st_ino, os.lstat(out).st_mode) == (before.st_ino, before.st_mode)


@pytest.mark.parametrize(
    "name", [256 * "a", 100 * "é" + 100 * "肺", "a/" * 3000, b"\xff\xfe", b"caf\xe9", "/proc/nothing/x", "/sys/x", "/dev/null/x"]
)
def test_an_out_that_cannot_be_made(command, config, name):
    refused(command("run", config, "--out", os.fsdecode(name)))


@pytest.mark.parametrize("name", ["a\0b", "\0"])
def test_a_zero_byte_that_only_a_program_can_give(name):
    with pytest.raises(InputError, match="zero byte"):
        api.run("quickstart", out=Path(name))


@pytest.mark.parametrize("folder", [".", "./", "..", ""])
def test_a_folder_without_a_name_of_its_own_is_named(command, config, tmp_path, monkeypatch, folder):
    (tmp_path / "here" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "below")
    with (tmp_path / "here" / ("" if folder == ".." else "below") / ".lock").open("w") as lock:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX)
        refused(
            command("run", config, "--out", folder), "synthcohort: here: " if folder == ".." else "synthcohort: below: ", "another process"
        )


def test_the_current_folder_is_gone(command, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    refused(command("run", "quickstart"))
    monkeypatch.chdir(tmp_path)


@contextlib.contextmanager
def powerless():
    """As a user whom rights bind; root is bound by none."""
    if os.geteuid() == 0:
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)
    else:
        yield


@pytest.fixture
def open_folder():
    """A folder that anybody may enter; pytest's own are the user's alone."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o777)
        (path / "c.yaml").write_text(CONFIG)
        yield path
        for folder, _, _ in os.walk(path, onerror=lambda error: os.chmod(error.filename, 0o700)):
            os.chmod(folder, 0o700)


FOREIGN = {
    "the folder above": ((), "", 0o555),
    "the folder above, closed": (("above/",), "above", 0o000),
    "the run folder": (("run/",), "run", 0o555),
    "the run folder, closed": (("run/",), "run", 0o000),
    "the lock": (("run/.lock",), "run/.lock", 0o000),
    "the log": (("run/log.jsonl",), "run/log.jsonl", 0o444),
    "a stage": (("run/ingest/",), "run/ingest", 0o000),
    "a stage that can be looked at": (("run/ingest/partial.json",), "run/ingest", 0o555),
    "a file of a stage": (("run/ingest/record.json",), "run/ingest/record.json", 0o000),
    "the configuration": ((), "c.yaml", 0o000),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_run_of_somebody_else(command, open_folder, kind):
    made, closed, mode = FOREIGN[kind]
    command("plan", open_folder / "c.yaml", "--out", open_folder / "run")  # what it imports may not be read later
    for name in made:
        path = open_folder / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_text("{}")
    for path in open_folder.rglob("*"):
        path.chmod(0o777 if path.is_dir() else 0o666)
    (open_folder / closed).chmod(mode)
    out = open_folder / ("above/run" if "above/" in made else "run")
    with powerless():
        process = command("run", open_folder / "c.yaml", "--out", out, "--until", "ingest")
    refused(process)
    assert "DCM" not in process.stderr.upper()
