"""The process on a CPU: memory that a step frees serves the next one."""

import os
import platform
import subprocess
import sys

import pytest

CODE = """
import resource, torch
from pipeline import runtime
runtime.device = lambda: {device!r}
print(runtime.reuse_memory())
for count in (4, 40):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        torch.ones(1 << 21).add(1)  # two blocks of 8 MiB, 2048 pages each
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(device: str, **environment: str) -> tuple[str, int]:
    """What ``reuse_memory`` said, and the pages that 40 steps after the first four took from the system."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", CODE.format(device=device)]
    done = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True)
    said, _, pages = done.stdout.split()
    return said, int(pages)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_memory_that_is_freed_is_used_again_without_asking_the_system():
    said, pages = run("cpu")
    assert said == "True"
    assert pages < 40 * 4096 / 8  # without it every step takes 4096


@pytest.mark.parametrize(("device", "environment"), [("cuda", {}), ("cpu", {"MALLOC_ARENA_MAX": "4"})])
def test_a_gpus_process_and_the_users_own_settings_are_left_alone(device, environment):
    assert run(device, **environment)[0] == "False"
