"""What a person sees while a run works: progress bars, and one JSON line a step in the run's log."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Reporter:
    """Progress bars on the console and JSON lines in ``log.jsonl``; neither ever holds a patient's data."""

    def __init__(self, log: Path, console: Console | None = None) -> None:
        self.console = console or Console(stderr=False, highlight=False)
        self._log = log

    def log(self, event: str, **facts: Any) -> None:
        """Append one line ``{"time": ..., "event": event, ...}`` to the run's log."""
        line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "event": event, **facts})
        with self._log.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def note(self, sentence: str) -> None:
        """What a person should know: on the console and in the log."""
        self.console.print(f"  [bold yellow]! {escape(sentence)}[/]")
        self.log("note", text=sentence)

    @contextlib.contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """A progress bar; the yielded function sets how many of ``total`` are done."""
        columns = (
            TextColumn("  {task.description:<34}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda done: bar.update(task, completed=done)


def silent() -> Console:
    """A console that shows nothing."""
    return Console(quiet=True)
