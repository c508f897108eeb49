"""What is typed that no command takes, in one line that says what to type instead."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.config.load import shipped


def unusable(error: Exception, words: Sequence[str]) -> str | None:
    """What to type instead of words that the parser of the command line refused; None for any other error.

    Args:
        error: as typer raises it, whose class depends on its version; it knows the command, but where an option is used wrongly.
        words: what was typed after ``synthcohort``.
    """
    message, context = getattr(error, "format_message", None), getattr(error, "ctx", None)
    if message is None:
        return None
    told = re.sub(r"[.\s]+$", "", str(message()))
    if not told:  # the help was asked for, by no word at all, and is printed
        return "no command is given: synthcohort run quickstart tries it on invented patients, synthcohort init FOLDER looks at your data"
    first = next(iter(words), "")
    if told.startswith("No such command"):
        if first in shipped() or Path(first).exists():
            return f"{first} is no command: synthcohort run {first}"
        return f"{told[0].lower()}{told[1:]}: synthcohort --help lists them"
    if "extra argument" in told and "--set" in words:
        return f"{told[0].lower()}{told[1:]}: each --set takes one word KEY=VALUE, in quotes where it has spaces: --set 'train.batch=64'"
    setting = next((word.lstrip("-") for word in words if re.match(r"(--)?[a-z]+\.[a-z_.]+=", word)), None)
    if setting is not None and "--set" not in words:
        return f"{told[0].lower()}{told[1:]}: a setting is given as --set {setting}"
    if context is None:
        return f"{told[0].lower()}{told[1:]}: synthcohort {first} --help says more"
    return f"{told[0].lower()}{told[1:]}: {context.get_usage().removeprefix('Usage: ').strip()}; {context.command_path} --help says more"
