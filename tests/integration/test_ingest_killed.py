"""An ingest that is killed again and again gives the bytes of one that was left alone, and does not read a finished file twice."""

import signal
import subprocess
import sys
import time

import pytest

from pipeline.artifacts import folder_digests
from tests.unit import dicom_folder

CONFIG = """
name: killed
ingest: {{source: dicom, path: {root}, classes: [normal, effusion], burned_in: declared}}
train: {{images: 1}}
generate: {{per_class: 1}}
"""


def start(config, run):
    words = [sys.executable, "-m", "pipeline", "run", str(config), "--out", str(run), "--until", "ingest"]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def lines(run):
    """Files that the journal holds; its last line may be unfinished."""
    found = list(run.glob("unfinished/ingest/partial-*/journal.jsonl"))
    return found[0].read_bytes().count(b"\n") if found else 0


def kill_after(count, config, run):
    """Kill -9 the run once ``count`` files are done; how many were."""
    process = start(config, run)
    while process.poll() is None and lines(run) < count:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return lines(run)


@pytest.mark.slow
def test_killed_ingest_gives_the_same_bytes(tmp_path):
    root = dicom_folder.cohort(tmp_path / "in", 350)
    (root / "note.txt").write_text("x")
    config = tmp_path / "killed.yaml"
    config.write_text(CONFIG.format(root=root))
    straight, killed = tmp_path / "straight", tmp_path / "cut"
    process = start(config, straight)
    assert process.wait() == 0, process.stdout.read().decode()
    done = [kill_after(count, config, killed) for count in (1, 150, 400)]
    assert 0 < done[0] < done[1] < done[2] < 701, done
    assert not (killed / "ingest" / "record.json").exists()
    process = start(config, killed)
    assert process.wait() == 0, process.stdout.read().decode()
    assert folder_digests(killed / "ingest") == folder_digests(straight / "ingest")
