"""What a person sees while a run works: progress bars, and one JSON line a step in the run's log."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import rich.console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from pipeline.terminal import shown


class Console(rich.console.Console):
    """A console that shows escapes in the text which it is given, instead of sending them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Text for a string, styled by its markup."""
        return super().render_str(shown(text), **options)


def silent() -> Console:
    """A console that shows nothing."""
    return Console(quiet=True)


class Reporter:
    """Progress bars on the console and JSON lines in ``log.jsonl``; neither ever holds a patient's data."""

    def __init__(self, log: Path, console: rich.console.Console | None = None) -> None:
        self.console = console or Console()
        self._log = log

    def log(self, event: str, **facts: Any) -> None:
        """Append one line ``{"time": ..., "event": event, ...}`` to the run's log."""
        line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "event": event, **facts})
        with self._log.open("a", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(line + "\n")

    def note(self, sentence: str) -> None:
        """What a person should know: on the console and in the log."""
        self.console.print(f"  [bold yellow]! {escape(sentence)}[/]")
        self.log("note", text=sentence)

    @contextlib.contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """A progress bar; the yielded function sets how many of ``total`` are done."""
        with bar(self.console, what, total) as done:
            yield done


@contextlib.contextmanager
def bar(console: rich.console.Console, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on a console; the yielded function sets how many of ``total`` are done."""
    columns = (
        TextColumn("  {task.description:<34}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task(what, total=total)
        yield lambda done: shown.update(task, completed=done)
