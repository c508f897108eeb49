"""Keys that cannot be used end in one line; keys that others may read are told."""

import os
import warnings

import pytest

from pipeline import secret
from pipeline.errors import InputError, Notice
from tests.unit.command import refused, run_main


@pytest.fixture
def command(monkeypatch, capfd):
    return lambda *arguments: run_main(monkeypatch, capfd, *arguments)


@pytest.mark.parametrize(
    "kind", ["folder", "empty", "short", "binary", "two lines", "control", "latin-1", "huge", "dangling", "circle", "fifo", "device"]
)
def test_a_key_file_that_holds_no_key(command, tmp_path, monkeypatch, kind):
    path = tmp_path / "key"
    made = {
        "folder": path.mkdir,
        "empty": path.touch,
        "short": lambda: path.write_text("short\n"),
        "binary": lambda: path.write_bytes(bytes(range(1, 200))),
        "two lines": lambda: path.write_text("one line of a key\nand another"),
        "control": lambda: path.write_text("a key with an escape \x1b[31m"),
        "latin-1": lambda: path.write_bytes("clé secrète de l'hôpital".encode("latin-1")),
        "huge": lambda: path.write_bytes(b"a" * 100_000),
        "dangling": lambda: path.symlink_to("nowhere/at/all"),
        "circle": lambda: path.symlink_to(path.name),
        "fifo": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
    }
    made[kind]()
    monkeypatch.delenv("SYNTHCOHORT_KEY")
    monkeypatch.setenv("SYNTHCOHORT_KEY_FILE", str(path))
    (tmp_path / "npz").mkdir()
    process = command("run", "breastmnist", "--set", f"ingest.path={tmp_path / 'npz'}", "--out", tmp_path / "run")
    refused(process, "key")


def test_a_key_file_that_others_may_read_is_told(tmp_path):
    path = tmp_path / "key"
    path.write_text("a long random string\n")
    for mode in (0o644, 0o640, 0o604, 0o620, 0o666):
        path.chmod(mode)
        with pytest.warns(Notice, match="chmod 600"):
            assert secret.from_file(path) == b"a long random string"
    path.chmod(0o600)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert secret.from_file(path) == b"a long random string"


@pytest.mark.parametrize("value", [b"\xff\xfe not of any encoding", "clé secrète de l'hôpital".encode("latin-1"), "ключ больницы".encode()])
def test_a_key_in_the_environment_in_any_encoding(monkeypatch, value):
    monkeypatch.setenv("SYNTHCOHORT_KEY", os.fsdecode(value))
    assert secret.from_environment("SYNTHCOHORT_KEY") == value


def test_a_key_in_the_environment_that_is_short(monkeypatch):
    monkeypatch.setenv("SYNTHCOHORT_KEY", "short")
    with pytest.raises(InputError, match="SYNTHCOHORT_KEY"):
        secret.from_environment("SYNTHCOHORT_KEY")
