"""The verdict's exit code survives whatever the output goes to, and letters that it does not know become others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A run that ends with a verdict, after more output than a pipe holds, with letters and boxes of this and other scripts.
PROGRAM = """
import sys
from pathlib import Path
from pipeline import api
from pipeline.progress import Console

def run(config, console, **options):
    for _ in range(500):
        console.print("Fréchet → 0.5 − 0.1 … • 肺 \\udcff ≥ ━━━━ [bold]bold[/bold]", highlight=False)
    with Reporter(Path("log.jsonl"), console).progress("training images", 10) as done:
        done(10)
    return api.Outcome(Path("."), "fail", ())

def show(folder, console):
    from rich.panel import Panel
    console.print(Panel("• Fréchet"))
    print("plain → é", file=sys.stdout)
    print("plain → é", file=sys.stderr)

from pipeline.progress import Reporter
api.run, api.show = run, show
sys.argv = ["synthcohort", "run", "quickstart"]
from pipeline.commands.main import main
main()
"""

SIMILAR = ("{} > /dev/full", "{} >&-", "{} 2>&-", "{} 2>&1 | head -1; exit ${PIPESTATUS[0]}", "{} > /dev/null")
ALIKE = (
    {"PYTHONIOENCODING": "ascii:strict"},
    {"PYTHONIOENCODING": "cp437"},
    {"LC_ALL": "C"},
    {"LC_ALL": "xx_XX.nothing"},
    {"PYTHONIOENCODING": "utf-16"},
    {"TERM": "dumb", "COLUMNS": "1"},
    {"TERM": "", "COLUMNS": "x", "LINES": "-1"},
)


def ended(shell, tmp_path, **environment):
    """The program under a line of the shell, where ``{}`` stands for it."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    words = f"{sys.executable} {path}"
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONIOENCODING", "PYTHONUTF8", "LC_ALL", "LANG")}
    return subprocess.run(
        ["bash", "-c", shell.replace("{}", words)],
        env=clean | {"PYTHONPATH": str(ROOT)} | environment,
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize(
    "shell",
    [
        "{} | head -1; exit ${PIPESTATUS[0]}",
        "{} | true; exit ${PIPESTATUS[0]}",
        "{} > /dev/full 2> /dev/full",
        "{} >&- 2>&- <&-",
        "{} 1< /dev/null",
        *(pytest.param(shell, marks=pytest.mark.slow) for shell in SIMILAR),
    ],
)
def test_the_exit_code_survives(tmp_path, shell):
    process = ended(shell, tmp_path)
    assert process.returncode == 3, process.stderr
    assert b"Traceback" not in process.stderr
    assert b"Exception" not in process.stderr


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        *(pytest.param(environment, marks=pytest.mark.slow) for environment in ALIKE),
    ],
)
def test_letters_that_the_terminal_does_not_know(tmp_path, environment):
    process = ended("{}", tmp_path, **environment)
    assert process.returncode == 3, process.stderr
    assert b"Traceback" not in process.stderr
    if environment.get("PYTHONIOENCODING", "").startswith("ascii"):
        process.stdout.decode("ascii")
        assert b"Frechet -> 0.5 - 0.1 ..." in process.stdout
        assert b"plain -> e\n" in process.stderr
        assert b"+---" in process.stdout
