"""Ctrl-C in every stage, as a terminal sends it: to the command and to all that it started."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.small import quick

STAGES = ("ingest", "train", "generate", "audit", "evaluate", "stress", "release")
SENTENCE = "synthcohort: interrupted; the same command goes on where it stopped\n"
MIDDLE = {
    "drawing": "unfinished/ingest/phantom",
    "ingest": "unfinished/ingest/partial-*/journal.jsonl",
    "train": "unfinished/train/metrics.jsonl",
    "generate": "unfinished/generate/partial",
}


def start(config: Path, run: Path, *more: str) -> subprocess.Popen[str]:
    """The command as the leader of a session of its own, which hears Ctrl-C whatever this process does with it."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", "run", str(config), "--out", str(run), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def inside(process: subprocess.Popen[str], run: Path, stage: str) -> bool:
    """Wait until the run is in a stage; False where it ended before that was seen."""
    begun = MIDDLE.get(stage, f"unfinished/{stage}/partial.json")
    while process.poll() is None:
        if any(run.glob(begun)) and not (run / stage / "record.json").exists():
            return True
        time.sleep(0.005)
    return False


def alive(session: int) -> list[str]:
    """What still runs of a session, by its command line."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append((stat.parent / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def gone(session: int) -> bool:
    """Whether a session ends within half a minute."""
    for _ in range(600):
        if not alive(session):
            return True
        time.sleep(0.05)
    return False


def interrupted(process: subprocess.Popen[str], signals: int = 1) -> None:
    for _ in range(signals):
        os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert error.removeprefix("\x1b[?25h") == SENTENCE
    assert gone(process.pid), alive(process.pid)


@pytest.mark.parametrize(("stage", "signals"), [("drawing", 1), ("drawing", 20), ("ingest", 1)])
def test_interrupted_while_workers_draw_or_read(tmp_path, stage, signals):
    patients = 300 if stage == "drawing" else 80  # few are drawn without workers
    process = start(quick(tmp_path), tmp_path / "run", "--set", f"ingest.phantom_patients={patients}")
    assert inside(process, tmp_path / "run", stage)
    interrupted(process, signals)


def test_interrupted_as_it_starts(tmp_path):
    process = start(quick(tmp_path), tmp_path / "run")
    while not (tmp_path / "run").exists():
        time.sleep(0.005)
    interrupted(process)


@pytest.mark.parametrize("where", ["finaliser", "callback", "both"])
def test_interrupted_where_python_raises_nothing(where):
    code = f"""
import os, signal, sys, time, weakref
from pipeline.commands import main
def interrupt(*_):
    os.kill(os.getpid(), signal.SIGINT)
class Thing: pass
class Finalised(Thing): __del__ = interrupt
def work():
    if {where!r} != "finaliser":
        thing = Thing()
        seen = weakref.ref(thing, interrupt)
        del thing
    if {where!r} != "callback":
        Finalised()
    for _ in range(500):
        time.sleep(0.02)
    return 0
main._command = work
main.main()
"""
    listening = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, **listening)
    assert (done.returncode, done.stderr.removeprefix("\x1b[?25h")) == (130, SENTENCE)


def test_interrupted_again_while_it_says_so():
    """A second Ctrl-C that comes once the first one's end is decided says nothing more."""
    code = """
import os, signal, sys, time
from pipeline.commands import main
class Slow:
    def __getattr__(self, name):
        return getattr(sys.__stderr__, name)
    def write(self, text):
        written = sys.__stderr__.write(text)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        return written
def work():
    sys.stderr = Slow()
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)
main._command = work
main.main()
"""
    listening = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, **listening)
    assert (done.returncode, done.stderr) == (130, SENTENCE)


@pytest.mark.parametrize("turned", ["InputError('train/model.safetensors is damaged')", "RuntimeError('cannot read')"])
def test_interrupted_where_a_library_makes_an_error_of_it(turned):
    code = f"""
import os, signal, time
from pipeline.commands import main
from pipeline.errors import InputError
def work():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)
    except KeyboardInterrupt as error:
        raise {turned} from error
main._command = work
main.main()
"""
    listening = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, **listening)
    assert (done.returncode, done.stderr) == (130, SENTENCE)


def test_interrupted_inside_an_exec(tmp_path):
    """As in the making of a dataclass, while modules are imported."""
    (tmp_path / "interrupted.py").write_text("""
from pipeline.commands import main
main._command = lambda: exec("import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(10)")
main.main()
""")
    listening = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), "cwd": tmp_path}
    command = [sys.executable, "-m", "interrupted"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **listening)
    assert (done.returncode, done.stderr) == (130, SENTENCE)


def test_killed_its_workers_end_with_it(tmp_path):
    process = start(quick(tmp_path), tmp_path / "run")
    assert inside(process, tmp_path / "run", "drawing")
    process.kill()
    process.communicate()
    assert gone(process.pid), alive(process.pid)


@pytest.mark.slow
def test_interrupted_in_every_stage(tmp_path):
    config, run = quick(tmp_path), tmp_path / "run"
    for stage in STAGES[:-1]:
        process = start(config, run)
        assert inside(process, run, stage), stage
        interrupted(process)
    process = start(config, run)
    _, error = process.communicate(timeout=600)
    assert process.returncode in (0, 3, 4), error
