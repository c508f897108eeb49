"""What the tests share: the real data, where it is, and running the command as a user does."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("SYNTHCOHORT_KEY", "a key that only the tests use")
# Here and in every process that a test starts: networks this small gain nothing from a second thread, and threads that wait for each
# other's cores cost ten times the work.
os.environ.setdefault("OMP_NUM_THREADS", "1")
COUNT = itertools.count()


@pytest.fixture(scope="module", autouse=True)
def cohorts_of_the_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test meets what another settled of a cohort, and none writes where the developer keeps that: runs that a module's tests share."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cohorts") / "cohorts"
        patch.setenv("SYNTHCOHORT_COHORTS", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def cohorts(cohorts_of_the_module: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the cohorts of one test, which does not exist yet."""
    # Not mktemp, which lists all folders of the session for each of thousands of tests.
    folder = cohorts_of_the_module.with_name(f"cohorts-{next(COUNT)}")
    monkeypatch.setenv("SYNTHCOHORT_COHORTS", str(folder))
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images; tests that need it are skipped where SYNTHCOHORT_DATA does not name one."""
    folder = os.environ.get("SYNTHCOHORT_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("SYNTHCOHORT_DATA names no folder of real images")
    return Path(folder)


@pytest.fixture(scope="session")
def command():
    """Run ``synthcohort`` with these arguments: the finished process, with its output as text."""

    def run(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "pipeline", *map(str, arguments)]
        return subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=900, check=False)

    return run


@pytest.fixture
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """No bfloat16 on any machine: it turns differences in the last bit of a float32 into visible ones."""
    for module in ("pipeline.runtime", "pipeline.diffusion.muon"):
        monkeypatch.setattr(f"{module}.bf16_pays", lambda where: False)
