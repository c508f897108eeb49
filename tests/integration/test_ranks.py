"""A run on several ranks of ``torchrun`` gives the bytes of a run on one, also after it was killed."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.artifacts import folder_digests
from tests.unit import dicom_folder

CONFIG = """
name: ranks
ingest: {{source: dicom, path: {root}, classes: [normal, effusion], burned_in: declared, size: 16}}
train: {{images: 256, batch: 32, widths: [8], blocks: 1}}
generate: {{per_class: 25, batch: 8, steps: 4, levels: [0.02, 8]}}
"""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "SYNTHCOHORT_WORKERS": "1"}


def start(launcher, config, run, *words):
    command = [*launcher, "pipeline", "run", str(config), "--out", str(run), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | ONE_THREAD, start_new_session=True)


def alive(run):
    """Whether a process that was started on this run folder is there."""
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            commands.append(path.read_bytes())
    return any(str(run).encode() in command for command in commands)


def blocks_begun(run):
    return list(run.glob("unfinished/ingest/partial-*/blocks/*/journal.jsonl"))


@pytest.fixture
def config(tmp_path):
    root = dicom_folder.cohort(tmp_path / "in", 350)
    (root / "note.txt").write_text("x")
    path = tmp_path / "ranks.yaml"
    path.write_text(CONFIG.format(root=root))
    return path


@pytest.mark.slow
def test_two_ranks_give_the_bytes_of_one(tmp_path, config):
    for name, launcher in (("one", [sys.executable, "-m"]), ("two", TORCHRUN)):
        process = start(launcher, config, tmp_path / name, "--until", "generate")
        said = process.communicate()[0].decode()
        assert process.returncode == 0, said
        assert said.count("per class 25  sampler") == 1, said  # one rank speaks
    for stage in ("ingest", "train", "generate"):
        assert folder_digests(tmp_path / "one" / stage) == folder_digests(tmp_path / "two" / stage), stage
    assert not list((tmp_path / "two").glob("**/partial*"))


@pytest.mark.slow
def test_killed_on_two_ranks_it_goes_on_with_one(tmp_path, config):
    process = start([sys.executable, "-m"], config, tmp_path / "straight", "--until", "ingest")
    assert process.wait() == 0
    process = start(TORCHRUN, config, tmp_path / "cut", "--until", "ingest")
    deadline = time.time() + 120
    while process.poll() is None and time.time() < deadline and sum(path.stat().st_size > 0 for path in blocks_begun(tmp_path / "cut")) < 2:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)  # torchrun alone: its ranks must not outlive it
    process.wait()
    deadline = time.time() + 10
    while alive(tmp_path / "cut") and time.time() < deadline:
        time.sleep(0.05)
    assert not alive(tmp_path / "cut")
    assert len(blocks_begun(tmp_path / "cut")) == 2  # both ranks were reading
    assert not (tmp_path / "cut" / "ingest" / "record.json").exists()
    process = start([sys.executable, "-m"], config, tmp_path / "cut", "--until", "ingest")
    assert process.wait() == 0, process.stdout.read().decode()
    assert folder_digests(tmp_path / "cut" / "ingest") == folder_digests(tmp_path / "straight" / "ingest")


@pytest.mark.slow
def test_an_error_ends_all_ranks_with_one_line(tmp_path, config):
    text = config.read_text().replace("per_class: 25", "per_class: 25, negative_class: effusoin, guidance_scale: 2")
    config.write_text(f"{text}\nanyway: true\n")
    process = start(TORCHRUN, config, tmp_path / "run")
    said = process.communicate(timeout=300)[0].decode()
    assert process.returncode == 1
    assert said.count("synthcohort: generate.negative_class 'effusoin' is no class of the model") == 1, said
