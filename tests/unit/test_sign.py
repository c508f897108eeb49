"""Signed releases: who holds the public key knows who released, and that nobody changed it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import stage_stubs
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from release_run import LENIENT, config, released
from stage_stubs import stubbed  # noqa: F401

from pipeline.errors import InputError
from pipeline.release import contents, stage
from pipeline.release.sign import check_signature, private_key, public_key
from pipeline.release.verify import verify
from pipeline.runner import check_settings
from pipeline.stages import BY_NAME, identity
from privacy import limits


def write_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """A private and a public key file."""
    key = ed25519.Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("keys")
    return {name: write_pair(folder, name) for name in ("ours", "theirs")}


@pytest.fixture(autouse=True)
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_COPY_RATE", LENIENT)


@pytest.mark.parametrize("verdict", ["pass", "fail"])
def test_a_signed_release_is_verified_with_its_key_and_with_no_other(
    tmp_path: Path, keys: dict[str, tuple[Path, Path]], verdict: str
) -> None:
    out = released(tmp_path / "run", verdict, sign=keys["ours"][0]).out
    assert verify(out) == []
    assert verify(out, key=public_key(keys["ours"][1])) == []
    assert verify(out, key=public_key(keys["theirs"][1])) == ["SHA256SUMS.sig was not made with this key for these checksums"]


@pytest.mark.parametrize("verdict", ["pass", "fail"])
def test_an_unsigned_release_is_a_finding_where_a_key_is_given(tmp_path: Path, keys: dict[str, tuple[Path, Path]], verdict: str) -> None:
    out = released(tmp_path / "run", verdict).out
    assert verify(out, key=public_key(keys["ours"][1])) == ["it is not signed: there is no SHA256SUMS.sig"]


@pytest.mark.parametrize("verdict", ["pass", "fail"])
def test_a_forger_who_writes_fitting_checksums_is_found_by_the_signature(
    tmp_path: Path, keys: dict[str, tuple[Path, Path]], verdict: str
) -> None:
    out = released(tmp_path / "run", verdict, sign=keys["ours"][0]).out
    (out / "record.json").unlink()
    page = (out / "report.html").read_text()
    (out / "report.html").write_text(page.replace("data steward", "evil steward"))
    stage.seal(out)
    assert verify(out) == []
    assert verify(out, key=public_key(keys["ours"][1])) == ["SHA256SUMS.sig was not made with this key for these checksums"]


@pytest.mark.parametrize("name", ["SHA256SUMS", "SHA256SUMS.sig"])
def test_a_signature_without_checksums_or_of_another_size_is_a_finding(
    tmp_path: Path, keys: dict[str, tuple[Path, Path]], name: str
) -> None:
    out = released(tmp_path / "run", "fail", sign=keys["ours"][0]).out
    (out / name).write_bytes(b"")
    assert verify(out)
    assert verify(out, key=public_key(keys["ours"][1]))
    (out / name).unlink()
    assert verify(out)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_checks_the_signature_too(tmp_path: Path, keys: dict[str, tuple[Path, Path]]) -> None:
    out = released(tmp_path / "run", "pass", sign=keys["ours"][0]).out
    words = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(keys["ours"][1]), "-rawin", "-in", contents.CHECKSUMS]
    found = subprocess.run([*words, "-sigfile", contents.SIGNATURE], cwd=out, capture_output=True, text=True, check=False)
    if "rawin" in found.stderr:
        pytest.skip("this openssl has no Ed25519 on the command line")
    assert "Signature Verified Successfully" in found.stdout


def test_the_key_is_no_part_of_the_identity_and_of_no_file(tmp_path: Path, keys: dict[str, tuple[Path, Path]]) -> None:
    records = {name: {"digest": "0"} for name in BY_NAME}
    wanted = [identity(BY_NAME["release"], config(sign), {}, records) for sign in (None, keys["ours"][0])]
    assert wanted[0] == wanted[1]
    out = released(tmp_path / "run", "pass", sign=keys["ours"][0]).out
    assert all(b"ours.pem" not in path.read_bytes() for path in out.rglob("*") if path.is_file())


@pytest.mark.usefixtures("stubbed")
def test_a_release_is_signed_once_its_pages_were_read_and_nothing_else_is_done_again(
    tmp_path: Path, keys: dict[str, tuple[Path, Path]]
) -> None:
    run = tmp_path / "run"
    stage_stubs.run(stage_stubs.config(), run)
    unsigned = (run / "release" / contents.CHECKSUMS).read_bytes()
    for name in ("ours", "theirs"):
        settings = stage_stubs.config(release={"sign": str(keys[name][0])})
        with pytest.raises(InputError, match=rf"\(not signed with {name}\.pem\): release would be redone; add --redo"):
            stage_stubs.run(settings, run)
        assert stage_stubs.run(settings, run, redo=True) == ["release"]
        check_signature(run / "release", public_key(keys[name][1]))
        assert stage_stubs.run(settings, run) == []
    assert stage_stubs.run(stage_stubs.config(), run) == [], "what is signed stays, whoever runs it again"
    assert (run / "release" / contents.CHECKSUMS).read_bytes() == unsigned


def bad_keys(folder: Path) -> dict[str, Path]:
    made = {name: folder / name for name in ("text", "empty", "elliptic", "locked", "bytes")}
    made["text"].write_text("my key")
    made["empty"].write_text("")
    made["bytes"].write_bytes(bytes(range(256)))
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    made["elliptic"].write_bytes(ec.generate_private_key(ec.SECP256R1()).private_bytes(pem, pkcs8, serialization.NoEncryption()))
    locked = serialization.BestAvailableEncryption(b"secret")
    made["locked"].write_bytes(ed25519.Ed25519PrivateKey.generate().private_bytes(pem, pkcs8, locked))
    return made | {"folder": folder, "missing": folder / "nothing"}


@pytest.mark.parametrize("name", ["text", "empty", "elliptic", "locked", "bytes", "folder", "missing"])
def test_a_key_file_that_is_none_is_one_line_before_any_work(tmp_path: Path, name: str) -> None:
    path = bad_keys(tmp_path)[name]
    for read in (private_key, public_key, lambda key: check_settings(config(key))):
        with pytest.raises(InputError, match="key") as raised:
            read(path)
        assert "\n" not in str(raised.value)


def test_a_public_key_does_not_sign_and_a_private_one_does_not_check(keys: dict[str, tuple[Path, Path]]) -> None:
    with pytest.raises(InputError, match="no Ed25519 private key"):
        private_key(keys["ours"][1])
    with pytest.raises(InputError, match="no Ed25519 public key"):
        public_key(keys["ours"][0])
