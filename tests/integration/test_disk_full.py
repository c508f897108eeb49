"""A disk that fills up while a run works: one line, exit code 2, and the same command goes on once there is room."""

import os
import resource
import subprocess
import sys

import pytest

from tests.integration.small import quick


def refused(process, *words):
    assert process.returncode == 2, process.stderr
    assert process.stderr.count("\n") == 1, process.stderr
    assert "Traceback" not in process.stdout + process.stderr
    assert all(word in process.stderr for word in words), process.stderr


@pytest.fixture
def disk(tmp_path):
    """A disk of one's own, of so many KiB; only root can have one."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(kilobytes):
        if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", place], check=False).returncode:
            pytest.skip("no right to mount a disk")
        return place

    yield mount
    subprocess.run(["umount", place], check=False, capture_output=True)


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [4, 40, 400, 4000, 14_000])
def test_a_full_disk(command, disk, tmp_path, kilobytes):
    place = disk(kilobytes)
    refused(command("run", quick(tmp_path), "--out", place / "run"), "no space", "make room")
    subprocess.run(["mount", "-o", "remount,size=200m", place], check=True)
    assert command("run", quick(tmp_path), "--out", place / "run", "--until", "ingest").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("largest", [0, 100, 1000, 10_000, 100_000, 300_000])
def test_a_bound_on_the_size_of_files(tmp_path, largest):
    process = subprocess.run(
        [sys.executable, "-m", "pipeline", "run", str(quick(tmp_path)), "--out", str(tmp_path / "run")],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest)),
        capture_output=True,
        text=True,
        check=False,
    )
    refused(process, "ulimit -f")
