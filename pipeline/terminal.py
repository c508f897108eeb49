"""What is printed, and where it arrives: a terminal that knows ASCII alone, a closed one, a pipe that nobody reads, a full disk.

Nothing of it ends a run or changes its exit code, and no text from a file or a configuration steers the terminal.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import select
import sys
import unicodedata
from typing import Any

_PLAIN = {"→": "->", "•": "*", "−": "-", "–": "-", "—": "-", "…": "...", "×": "x", "≥": ">=", "≤": "<=", "·": ".", "’": "'"}
_ERRORS = "synthcohort.plain"


def shown(text: str) -> str:
    """The text with everything that would steer a terminal (escapes, control characters, marks of direction) written out, such as
    ``\\x1b``; line breaks and tabs stay."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") else ascii(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    """As :func:`shown`, in one line."""
    return shown(" ".join(text.split()))


def open_streams() -> None:
    """Let the process write to its standard streams whatever they are.

    A closed one leads nowhere, and keeps its number from the next file that is opened, into which errors would be written. What cannot be
    delivered is dropped, and letters that the terminal does not know become similar ones, or ``?``.
    """
    codecs.register_error(_ERRORS, _similar)
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        encoding = getattr(stream, "encoding", None) or "utf-8"
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
        raw = _Forgiving(number, "wb", closefd=False)
        buffered = io.BufferedWriter(raw)
        setattr(sys, name, io.TextIOWrapper(buffered, encoding, _ERRORS, line_buffering=number == 2 or raw.isatty()))


class _Forgiving(io.FileIO):
    """A file whose writes always succeed."""

    def write(self, data: Any) -> int:
        """Write what can be written, wait where the other side is slow, and drop the rest."""
        with contextlib.suppress(OSError):
            while (written := super().write(data)) is None:  # it does not block, and is full
                select.select([], [self], [])
            return written
        return memoryview(data).nbytes


def _similar(error: UnicodeError) -> tuple[str, int]:
    """What is written for letters that an encoding lacks: the handler of :func:`codecs.register_error`."""
    assert isinstance(error, UnicodeEncodeError)
    letters = error.object[error.start : error.end]
    plain = (_PLAIN.get(c) or unicodedata.normalize("NFKD", c).encode("ascii", "ignore").decode() or "?" for c in letters)
    return "".join(plain), error.end
