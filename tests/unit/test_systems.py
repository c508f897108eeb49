"""What the systems differ in: rights of new files, calls that some lack, what a terminal does with escapes."""

import csv
import importlib.util
import json
import os
import platform
import signal
import stat
import subprocess
import sys
from multiprocessing import forkserver
from pathlib import Path

import pytest
import torch

from pipeline import api, artifacts, folders, progress, provenance, runtime, system
from pipeline.errors import InputError
from pipeline.ingest.source import workers
from tests.unit.command import refused, run_main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def command(monkeypatch, capfd):
    return lambda *arguments: run_main(monkeypatch, capfd, *arguments)


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
                folders.open_stage(run / stage, {"stage": stage}, resumable=False, private=stage == "ingest")
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
import tempfile
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


@pytest.mark.parametrize("ended", [False, True])
def test_workers_do_not_hear_the_terminal(ended):
    pool = system.worker_processes()
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())
    if ended:  # the server of a pool whose processes somebody ended: the next worker starts another
        server = forkserver._forkserver._forkserver_pid
        os.kill(server, signal.SIGKILL)
        os.waitid(os.P_PID, server, os.WEXITED | os.WNOWAIT)
    ours, theirs = pool.Pipe()
    process = pool.Process(target=_blocked, args=(theirs,))
    process.start()
    assert ours.recv()
    process.join()
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def test_a_script_is_not_run_again_in_its_workers(tmp_path):
    (tmp_path / "script.py").write_text(
        """
with open("runs", "a") as file:
    file.write("x")
from isolated_work import work
from pipeline.ingest.isolate import isolated
print([answer.value["square"] for answer in isolated(work, [f"square:{n}" for n in range(70)], workers=2)][-1])
"""
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'unit'}"}
    done = subprocess.run(
        [sys.executable, "script.py"], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120, check=False
    )
    assert done.stdout == f"{69**2}\n", done.stderr
    assert (tmp_path / "runs").read_text() == "x"


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


def test_no_cell_of_the_phantoms_table_is_a_formula(tmp_path):
    api.phantom(tmp_path / "cohort", patients=30, size=32)
    with (tmp_path / "cohort" / "labels.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert len(cells) > 100
    assert not [cell for cell in cells if cell[:1] in ("=", "+", "-", "@", "\t", "\r")]


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        *(
            (version, version)
            for version in ("2.8.0", "2.15.0+cu128", "2.8.0+cpu", "3.13.0rc1", "1.0.post2.dev3", "2.1.0+rocm6.3.1", "0.1.0+gdeadbee")
        ),
        ("2.6.0a0+ecf3bae40a.nv25.01", "2.6.0a0+ecf3bae40a"),
        ("3.12.3+", "3.12.3"),
        ("1.26.4+our.hospital", "1.26.4"),
        ("1.2.jane", "1.2"),
        ("jane", "unknown"),
        ("", "unknown"),
        ("1.0\n", "1.0"),
        ("\u0661.0", "unknown"),
    ],
)
def test_versions_are_recorded_without_words_of_whoever_built_them(text, plain):
    assert provenance.plain_version(text) == plain


def test_what_is_released_names_no_gpu_and_no_machine_but_known_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "ward 7")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Ward 7")
    found = []
    for private in (True, False):
        folder = tmp_path / str(private)
        folder.mkdir()
        found.append(artifacts.publish(folder, {"stage": "x"}, contains_patient_data=private)["hardware"])
    assert found == [{"machine": "unknown", "cpus": os.cpu_count(), "gpu": "Ward 7"}, {"machine": "unknown", "cpus": os.cpu_count()}]
