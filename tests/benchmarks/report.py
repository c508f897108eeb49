"""What the benchmarks share: the facts of the machine, records that several short runs add to one folder, and a table of them."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline import runtime


def facts() -> dict[str, Any]:
    """When and on what a run is made."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
        "hardware": torch.cuda.get_device_name(0) if runtime.device() == "cuda" else f"{cpu_name()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "command": " ".join(["python -m", *sys.orig_argv[2:]]) if sys.orig_argv[1:2] == ["-m"] else " ".join(sys.orig_argv),
    }


def cpu_name() -> str:
    """The processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


class Record:
    """One run of a benchmark: its facts and its rows, in a file of its own that is rewritten with every row.

    A run that is stopped so leaves what it has measured, and runs that write to one folder never meet.
    """

    def __init__(self, folder: Path, benchmark: str, about: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # Runs of one process may begin within a second.
        self.path = folder / f"{benchmark}_{time.strftime('%Y%m%d_%H%M%S')}_{os.getpid()}_{time.monotonic_ns()}.json"
        self.content: dict[str, Any] = {"benchmark": benchmark, "facts": about, "rows": []}

    def add(self, row: dict[str, Any]) -> None:
        """Add a row and write the file."""
        self.content["rows"].append(row)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.content, indent=1))
        part.replace(self.path)


def load(folder: Path, benchmark: str) -> list[dict[str, Any]]:
    """The records of a benchmark's runs in a folder, oldest first: ``{"benchmark", "facts", "rows"}`` each."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob(f"{benchmark}_*.json"))]
    records = [record for record in found if isinstance(record, dict) and record.get("benchmark") == benchmark]
    return sorted(records, key=lambda record: str(record["facts"]["date"]))


def rows(folder: Path, benchmark: str) -> list[dict[str, Any]]:
    """The rows of all these records. Raises SystemExit where there are none."""
    found = [row for one in load(folder, benchmark) for row in one["rows"]]
    if not found:
        raise SystemExit(f"no records of {benchmark} in {folder}: run it without --table, or name the folder that it wrote to")
    return found


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; floats to three significant digits or as whole numbers."""
    lines = [header, ["---"] * len(header), *([shown(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def shown(value: object) -> str:
    """A cell: a dash for nothing, three significant digits for a float (whole where it is 100 or more)."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)
