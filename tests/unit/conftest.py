"""What the unit tests share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYNTHCOHORT_KEY", raising=False)
    monkeypatch.delenv("SYNTHCOHORT_KEY_FILE", raising=False)


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run but for its release, with made-up results; to be copied."""
    from release_run import make_context  # pandas and more, which not every test needs

    run = tmp_path_factory.mktemp("pristine") / "run"
    ctx = make_context(run)
    shutil.rmtree(ctx.out)
    return run
