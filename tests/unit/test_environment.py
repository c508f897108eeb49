"""What the system refuses ends in one line and exit code 2: disks, rights, names, keys; and what systems lack is met."""

import errno
import importlib.util
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from pipeline import api, artifacts, progress, runtime, secret, system
from pipeline.errors import InputError, Notice, system_refusals
from pipeline.ingest.source import workers
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

    for place in ("pipeline.stages.run_stages", "pipeline.artifacts.fcntl.flock", "pipeline.ingest.source.source_digest"):
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

    monkeypatch.setattr("pipeline.stages.run_stages", stage)
    monkeypatch.delenv("SYNTHCOHORT_DEBUG", raising=False)
    process = command("run", config, "--out", tmp_path / "run")
    assert process.returncode == 1
    assert "DOE" not in process.stdout + process.stderr
    assert "ValueError" in process.stderr
    assert "run_stages" in process.stderr
    monkeypatch.setenv("SYNTHCOHORT_DEBUG", "1")
    with pytest.raises(ValueError, match="DOE"):
        run_stage_bug(config, tmp_path)


def run_stage_bug(config, tmp_path):
    from pipeline.commands import main

    sys.argv[1:] = ["run", str(config), "--out", str(tmp_path / "run")]
    main._outcome()


WRITERS = """
import json, os, resource, shutil, sys
from pathlib import Path
import numpy as np, pandas as pd, torch
from PIL import Image
from safetensors.torch import save_file
from pipeline import artifacts, images, progress
from pipeline.errors import InputError, system_refusals
from pipeline.release.dicom_export import write_secondary_capture
from pipeline.release.stage import save_medmnist

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
    "npz": lambda: save_medmnist(place / "a.npz", whole),
    "image set": lambda: whole.save(place / "set"),
    "rows": lambda: rows.to_parquet(place / "a.parquet", index=False),
    "csv": lambda: rows.to_csv(place / "a.csv"),
    "weights": lambda: save_file({"w": torch.zeros(5000)}, place / "a.safetensors"),
    "png": lambda: Image.fromarray(noise[0, 0]).save(place / "a.png"),
    "dicom": lambda: write_secondary_capture(place / "b.dcm", noise[0], image_id="a", label="a", cohort="c"),
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
    assert os.lstat(out) == before


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


@pytest.mark.parametrize(
    "kind", ["folder", "empty", "short", "binary", "two lines", "control", "latin-1", "huge", "dangling", "circle", "fifo", "device"]
)
def test_a_key_file_that_holds_no_key(command, config, tmp_path, monkeypatch, kind):
    path = tmp_path / "key"
    made = {
        "folder": path.mkdir,
        "empty": path.touch,
        "short": lambda: path.write_text("short\n"),
        "binary": lambda: path.write_bytes(bytes(range(1, 200))),
        "two lines": lambda: path.write_text("one line of a key\nand another"),
        "control": lambda: path.write_text("a key with an escape \x1b[31m"),
        "latin-1": lambda: path.write_bytes("clé secrète de l'hôpital".encode("latin-1")),
        "huge": lambda: path.write_bytes(b"a" * 100_000),
        "dangling": lambda: broken_link(path),
        "circle": lambda: circle(path),
        "fifo": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
    }
    made[kind]()
    monkeypatch.delenv("SYNTHCOHORT_KEY")
    monkeypatch.setenv("SYNTHCOHORT_KEY_FILE", str(path))
    (tmp_path / "npz").mkdir()
    process = command("run", "breastmnist", "--set", f"ingest.path={tmp_path / 'npz'}", "--out", tmp_path / "run")
    refused(process, "key")


def test_a_key_file_that_others_may_read_is_told(tmp_path):
    path = tmp_path / "key"
    path.write_text("a long random string\n")
    for mode in (0o644, 0o640, 0o604, 0o620, 0o666):
        path.chmod(mode)
        with pytest.warns(Notice, match="chmod 600"):
            assert secret.from_file(path) == b"a long random string"
    path.chmod(0o600)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert secret.from_file(path) == b"a long random string"


@pytest.mark.parametrize("value", [b"\xff\xfe not of any encoding", "clé secrète de l'hôpital".encode("latin-1"), "ключ больницы".encode()])
def test_a_key_in_the_environment_in_any_encoding(monkeypatch, value):
    monkeypatch.setenv("SYNTHCOHORT_KEY", os.fsdecode(value))
    assert secret.from_environment("SYNTHCOHORT_KEY") == value


def test_a_key_in_the_environment_that_is_short(monkeypatch):
    monkeypatch.setenv("SYNTHCOHORT_KEY", "short")
    with pytest.raises(InputError, match="SYNTHCOHORT_KEY"):
        secret.from_environment("SYNTHCOHORT_KEY")


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o027, 0o077, 0o777])
def test_only_the_release_can_be_read_by_others(tmp_path, umask):
    """``release`` is readable where the umask lets others through the folders above it, and nothing else is, whatever the umask."""
    run = tmp_path / "runs" / "r"
    before = os.umask(umask)
    try:
        with system.private_files(run), artifacts.lock(run):
            reporter = progress.Reporter(run / "log.jsonl", progress.silent())
            reporter.log("event")
            artifacts.write_json(run / ".sources.json", {})
            for stage in ("ingest", "release"):
                artifacts.open_stage(run / stage, {"stage": stage}, resumable=False, private=stage == "ingest")
                (run / stage / "below").mkdir()
                (run / stage / "below" / "file").write_text("x")
                artifacts.publish(run / stage, {"stage": stage}, contains_patient_data=stage == "ingest")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    modes = {path.relative_to(tmp_path).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    public = {name: mode for name, mode in modes.items() if name.startswith("runs/r/release")}
    assert set(public.values()) == {0o755, 0o644}
    for way in ("runs", "runs/r"):
        assert modes[way] == 0o700 | 0o011 & ~umask
    assert all(not mode & 0o077 for name, mode in modes.items() if name not in public and name not in ("runs", "runs/r")), modes


def test_a_log_that_others_could_read_is_closed_to_them(tmp_path):
    log = tmp_path / "log.jsonl"
    log.touch(mode=0o666)
    log.chmod(0o666)
    progress.Reporter(log).log("event")
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


@pytest.mark.parametrize("known", [{"SC_PHYS_PAGES": 1000}, {}, {"SC_AVPHYS_PAGES": -1, "SC_PHYS_PAGES": 1000}])
def test_training_starts_where_the_system_does_not_tell_what_memory_is_free(monkeypatch, known):
    def sysconf(name):
        if name == "SC_PAGE_SIZE":
            return 4096
        if name not in known:
            raise ValueError("unrecognized configuration name")
        return known[name]

    monkeypatch.setattr(os, "sysconf", sysconf)
    assert system.free_memory() == (1000 * 4096 // 2 if known else 0)
    assert runtime.fits(1000 * 1000, "cpu") == bool(known)
    assert not runtime.fits(2 << 20, "cpu")


def test_a_system_without_sysconf(monkeypatch):
    monkeypatch.delattr(os, "sysconf")
    assert system.free_memory() == 0


def test_a_system_that_does_not_tell_which_cores_are_ours(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    monkeypatch.delenv("SYNTHCOHORT_WORKERS", raising=False)
    assert system.usable_cores() == workers() == 1
    runtime.limit_threads()


@pytest.mark.parametrize("library", [AttributeError("no prctl"), OSError("no such library"), TypeError("None")])
def test_a_system_whose_library_has_no_such_calls(monkeypatch, library):
    import ctypes

    def none(*args):
        raise library

    monkeypatch.setattr(ctypes, "CDLL", none)
    system.end_with_parent()
    assert runtime.reuse_memory() is False


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "four", "²", "1e3", " 4", "99999", 5000 * "9", "\udcff", "\x1b[31m"])
def test_a_number_of_workers_that_is_none(monkeypatch, value):
    monkeypatch.setenv("SYNTHCOHORT_WORKERS", value)
    with pytest.raises(InputError, match="SYNTHCOHORT_WORKERS") as error:
        workers()
    assert len(str(error.value)) < 250
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    runtime.limit_threads()


@pytest.mark.parametrize("missing", ["fcntl", "resource"])
def test_windows_is_told_what_works(command, monkeypatch, missing):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == missing else find(name, *more))
    for words in (("run", "quickstart"), ("--help",), ()):
        refused(command(*words), "WSL2")


def test_windows_is_told_before_anything_is_imported():
    code = """
import sys
for name in ("fcntl", "resource", "pwd", "grp", "termios", "typer", "rich", "yaml", "pydantic", "torch", "numpy"):
    sys.modules[name] = None
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if sys.modules.get(name, 0) is None else find(name, *more)
import signal
del signal.pthread_sigmask
from pipeline.commands.main import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    refused(done, "WSL2")


def test_workers_do_not_hear_the_terminal():
    pool = system.worker_processes()
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())
    ours, theirs = pool.Pipe()
    process = pool.Process(target=_blocked, args=(theirs,))
    process.start()
    assert ours.recv()
    process.join()


def _blocked(pipe):
    pipe.send(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, set()))


def test_escapes_of_a_run_are_shown_not_sent(command, tmp_path):
    run = tmp_path / "\x1b[31mrun[bold]\u202e\x9b"
    (run / "release").mkdir(parents=True)
    hostile = "\x1b]0;title\x07 [red]x[/] \x9b31m \u202e \r"
    record = {"fingerprint": "", "sizes": {}, "summary": {hostile: hostile, "b": 1}, "seconds": hostile}
    (run / "release" / "record.json").write_text(json.dumps(record))
    check = dict.fromkeys(("name", "subject", "verdict", "n", "threshold", "value"), hostile)
    gate = {"images": {"verdict": hostile, "reasons": [hostile]}, "weights": {"verdict": hostile}, "checks": [check], "unit": hostile}
    (run / "release" / "gate.json").write_text(json.dumps(gate | {"needed": [hostile], "attempt": hostile}))
    process = command("show", run)
    shown = process.stdout + process.stderr
    assert process.returncode == 0, shown
    assert all(letter.isprintable() or letter == "\n" for letter in shown), ascii(shown)
    assert r"\x1b" in shown
    assert "[bold]" in shown
    refused(command("verify", tmp_path / "\x1b[31m"), r"\x1b[31m")
    refused(command("plan", tmp_path / "\x1b[31m.yaml"), r"\x1b[31m")


def test_markup_styles_and_escapes_do_not(capfd):
    console = progress.Console(force_terminal=False)
    console.print("[bold]x[/bold] \x1b[31m")
    assert capfd.readouterr().out == "x \\x1b[31m\n"
