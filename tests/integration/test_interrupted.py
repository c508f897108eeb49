"""A run that is killed in the middle of every stage ends as one that was left alone."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.integration.small import quick

STAGES = ("ingest", "train", "generate", "audit", "evaluate", "stress", "review", "release")
MIDDLE = {
    "ingest": "unfinished/ingest/partial-*/journal.jsonl",
    "train": "unfinished/train/checkpoint/state.*.safetensors",
    "generate": "unfinished/generate/partial/*.npy",
}


def kill_in(stage, config, run):
    """Start the run and kill -9 it once it is inside ``stage``; True if it was."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "run", str(config), "--out", str(run)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    pattern = MIDDLE.get(stage, f"unfinished/{stage}/partial.json")
    deadline = time.time() + 240
    while time.time() < deadline and process.poll() is None:
        if any(run.glob(pattern)) and not (run / stage / "record.json").exists():
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.01)
    process.kill()
    process.wait()
    return False


@pytest.mark.slow
def test_killed_in_every_stage_it_ends_the_same(tmp_path, command):
    config = quick(tmp_path)
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    reference = command("run", config, "--out", straight)
    assert reference.returncode in (0, 3, 4), reference.stderr
    hit = {stage: kill_in(stage, config, killed) for stage in STAGES}
    assert all(hit[stage] for stage in STAGES if stage not in ("review", "release")), hit
    process = command("run", config, "--out", killed)
    assert process.returncode == reference.returncode, process.stderr
    for stage in STAGES[:-1]:
        ours, theirs = (json.loads((run / stage / "record.json").read_text()) for run in (killed, straight))
        assert ours["fingerprint"] == theirs["fingerprint"], stage
        assert ours["files"] == theirs["files"], stage
    gates = [json.loads((run / "release" / "gate.json").read_text()) for run in (killed, straight)]
    assert gates[0] == gates[1]
    assert not [name for name in os.listdir(killed / "train") if name.startswith(("checkpoint", "partial"))]
    assert not (killed / "unfinished").exists()
