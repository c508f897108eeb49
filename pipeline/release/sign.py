"""An Ed25519 signature (RFC 8032) over a release's checksums: who holds the public key knows who released it, and that nobody changed it.

``SHA256SUMS.sig`` holds the 64 bytes of the signature of ``SHA256SUMS``, as ``openssl pkeyutl -verify -rawin`` checks it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import InputError
from pipeline.release.bounded import Damage, content
from pipeline.release.contents import CHECKSUMS, SIGNATURE, SIGNATURE_BYTES

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

KEY_BYTES = 1 << 16


def private_key(path: Path) -> Ed25519PrivateKey:
    """The key to sign with. Raises InputError where the file holds no Ed25519 private key in PEM, or one under a passphrase."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_pem(path, "release.sign"), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(
            f"release.sign: {path.name} holds no Ed25519 private key in PEM without a passphrase: make one with "
            "openssl genpkey -algorithm ed25519"
        )
    return key


def public_key(path: Path) -> Ed25519PublicKey:
    """The key to check with. Raises InputError where the file holds no Ed25519 public key in PEM."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(_pem(path, "--key"))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(f"--key: {path.name} holds no Ed25519 public key in PEM: openssl pkey -pubout writes one from the private key")
    return key


def sign(release: Path, key: Ed25519PrivateKey) -> None:
    """Write the signature of the release's checksums beside them."""
    (release / SIGNATURE).write_bytes(key.sign((release / CHECKSUMS).read_bytes()))


def check_signature(release: Path, key: Ed25519PublicKey) -> None:
    """Raise Damage unless the holder of the private key signed these checksums."""
    from cryptography.exceptions import InvalidSignature

    signature, signed = content(release / SIGNATURE, SIGNATURE_BYTES), (release / CHECKSUMS).read_bytes()
    try:
        key.verify(signature, signed)
    except InvalidSignature:
        raise Damage("was not made with this key for these checksums") from None


def lacks(release: Path, key: Path | None) -> str | None:
    """Why a finished release is not what ``release.sign`` asks for; None where it is, or where no signature is asked for.

    The key is no part of a release's identity: a person signs once the pages were read, and what is signed stays the same.
    """
    if key is None:
        return None
    try:
        check_signature(release, private_key(key).public_key())
    except (Damage, OSError):
        return f"not signed with {key.name}"
    return None


def _pem(path: Path, setting: str) -> bytes:
    if not path.is_file():
        raise InputError(f"{setting}: there is no key file {path.name}: give the path of a PEM file")
    try:
        with path.open("rb") as file:
            return file.read(KEY_BYTES)
    except OSError as error:
        raise InputError(f"{setting}: the key file {path.name} cannot be read ({error.strerror}): give the path of a PEM file") from None
