"""What a stage is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.progress import Reporter


@dataclass(frozen=True)
class Context:
    """What a stage is given.

    Attributes:
        config: the whole configuration; a stage reads its own section, the seed and the name.
        run: the run folder.
        out: the stage's own folder, existing and writable; a resumed stage finds its earlier files in it.
        reporter: progress bars and the log.
        records: the records of the stages that it needs, by name.
        folders: where their folders are, by name: those that are made anew lie elsewhere until all are (:mod:`pipeline.folders`).
    """

    config: Config
    run: Path
    out: Path
    reporter: Reporter
    records: Mapping[str, Mapping[str, Any]]
    folders: Mapping[str, Path] = field(default_factory=dict)

    def folder(self, stage: str) -> Path:
        """The folder of a finished stage that this one needs."""
        return self.folders.get(stage, self.run / stage)
