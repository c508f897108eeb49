"""The entry point. Exit codes: 0 done, 2 the user's input is wrong (one line says what and how to mend it), 3 the gate says ``fail``,
4 the gate says ``inconclusive`` or there is too little data for it to say ``pass``, 130 stopped by Ctrl-C, 143 stopped by SIGTERM with a
checkpoint, 1 a bug. ``torchrun`` turns all but 0 into its own 1. Nothing else is imported until Ctrl-C is listened to and the system is
known to be one that works.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
import warnings
from types import FrameType
from typing import NoReturn

from pipeline import system, terminal
from pipeline.errors import InputError, NotEnough, Notice, Stopped

INTERRUPTED = "synthcohort: interrupted; the same command goes on where it stopped"


def main() -> NoReturn:
    """Run the command line and end the process."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where a shell started the command with it ignored
        signal.signal(signal.SIGINT, _interrupt)
        sys.unraisablehook = _unraisable
    terminal.open_streams()
    warnings.formatwarning = _formatted
    code, error = _outcome()
    # A library may answer a Ctrl-C in its own code with an error of its own, such as one of a damaged file.
    interrupted = error is not None and (isinstance(error, KeyboardInterrupt) or signal.getsignal(signal.SIGINT) is _end)
    # It is decided: another Ctrl-C, while it is told or while Python lets go of all, would say it twice or change the exit code.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if interrupted:
        code = 130
        print(INTERRUPTED, file=sys.stderr)
    elif isinstance(error, Exception):
        code = _told(error)
    # Of a Ctrl-C inside an exec of a text, as every dataclass is made by, `python -m` would die at its end instead of giving this code: it
    # remembers the last one's alone.
    exec("")
    raise SystemExit(code)


def _outcome() -> tuple[int | str | None, Exception | KeyboardInterrupt | None]:
    """The exit code of the command, or what ended it."""
    try:
        if not system.supported():
            raise InputError(system.UNSUPPORTED)
        return _command(), None
    except (Exception, KeyboardInterrupt) as error:
        return None, error


def _told(error: Exception) -> int:
    """The exit code of an error, after its line."""
    if isinstance(error, InputError):
        _say(str(error))
        return 4 if isinstance(error, NotEnough) else 2
    if isinstance(error, Stopped):
        _say(f"{error}; the same command goes on from there")
        return 143
    if os.environ.get("SYNTHCOHORT_DEBUG"):
        raise error
    # Where it happened, which is code: the message of a library may quote a file, and with it a patient.
    frames = "".join(traceback.format_tb(error.__traceback__))
    print(terminal.shown(frames), file=sys.stderr, end="")
    _say(f"a bug ({type(error).__name__}): report these lines; SYNTHCOHORT_DEBUG=1 shows the message too, which may hold patient data")
    return 1


def _command() -> int | str | None:
    from pipeline import ranks
    from pipeline.commands.app import app
    from pipeline.commands.typed import unusable

    # isort: off
    # they join the application, in the order of its help
    from pipeline.commands import first, runs, foreign, generation, readings, releases, consent, settings, phantoms  # noqa: F401
    # isort: on

    with ranks.joined() as driving:
        if not driving:
            return 0
        try:
            code = app(standalone_mode=False)
        except Exception as error:
            if (told := unusable(error, sys.argv[1:])) is None:
                raise
            raise InputError(told) from None
        if code == 130:
            raise KeyboardInterrupt  # typer's way of telling of one
    return code if isinstance(code, int) else 0


def _say(message: str) -> None:
    print(f"synthcohort: {terminal.one_line(message)}", file=sys.stderr)


def _formatted(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
    """A notice in one line; of any other warning its kind and place, without the words, which may quote a file."""
    if issubclass(category, Notice):
        return f"synthcohort: {terminal.one_line(str(message))}\n"
    return f"{filename}:{lineno}: {category.__name__}\n"


def _interrupt(number: int, frame: FrameType | None) -> None:
    """The first Ctrl-C lets the work end in order; the next ends the process as it is, and the kernel its workers."""
    signal.signal(signal.SIGINT, _end)
    raise KeyboardInterrupt


def _unraisable(lost: sys.UnraisableHookArgs) -> None:
    """A Ctrl-C that came where Python can raise nothing (a finaliser, the callback of a weak reference) comes again a moment later."""
    if not issubclass(lost.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
    elif signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, _interrupt)
        again = threading.Timer(0.05, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
        again.daemon = True
        again.start()


def _end(number: int, frame: FrameType | None) -> None:
    show_cursor = b"\x1b[?25h" if os.isatty(2) else b""
    os.write(2, show_cursor + INTERRUPTED.encode() + b"\n")
    os._exit(130)


if __name__ == "__main__":
    main()
