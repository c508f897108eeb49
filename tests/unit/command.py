"""The command in this process: what it prints and how it ends, without a second of starting Python."""

import signal
import subprocess
import sys
import warnings

import pytest

from pipeline.commands.main import main


def run_main(monkeypatch, capfd, *arguments):
    """Call :func:`main` with the arguments, as the shell would, and put back what it changes of the process."""
    before, formatting, unraisable = signal.getsignal(signal.SIGINT), warnings.formatwarning, sys.unraisablehook
    streams = sys.stdout, sys.stderr
    monkeypatch.setattr(sys, "argv", ["synthcohort", *map(str, arguments)])
    capfd.readouterr()
    try:
        with pytest.raises(SystemExit) as end:
            main()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        sys.stdout, sys.stderr = streams
        signal.signal(signal.SIGINT, before)
        warnings.formatwarning, sys.unraisablehook = formatting, unraisable
    out, error = capfd.readouterr()
    return subprocess.CompletedProcess(arguments, end.value.code or 0, out, error)


def refused(process, *words):
    """One line on stderr that holds the words, and exit code 2."""
    assert process.returncode == 2, process.stdout + process.stderr
    assert process.stderr.startswith("synthcohort: ")
    assert process.stderr.count("\n") == 1, process.stderr
    assert process.stderr[:-1].isprintable(), process.stderr
    assert "Traceback" not in process.stderr
    for word in words:
        assert word in process.stderr, process.stderr
