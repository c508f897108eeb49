"""Pseudonyms of images by their values: the same in whatever kind of file they lie, and whatever its name, labels and metadata are.

A pseudonym takes two steps under the key of the cohorts: the values' GHASH under an AES key that follows from it, as AES-GCM makes it for
associated data (NIST SP 800-38D, 6.4), and HMAC-SHA-256 of that and the shape. GHASH is almost universal: whoever does not hold the key
makes two images of n blocks of 16 bytes that agree in it with a probability of at most (n + 1) / 2^128 (McGrew and Viega, "The Security
and Performance of the Galois/Counter Mode", 2004, Lemma 2), 2^-112 for a million values and far less than what the 64 bits that are kept
of the HMAC admit. One nonce for all is no weakness here: a tag, from equal nonces of which the key of GHASH can be found, never leaves the
HMAC, which hides all of it but whether two are equal.

Whoever does hold the key can make images that agree, as they could with any hash that is cut to 64 bits. It would join cohorts to each
other, splits and attempts included. To be taken for another cohort, they need no collision but one value that differs by one; so no hash,
however strong, keeps them from it, and the ledger itself is sealed under the key that they have.

GHASH takes a tenth of SHA-256's time where processors multiply polynomials, which all servers' do.
"""

from __future__ import annotations

import hashlib

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from pipeline.artifacts import keyed

NONCE = bytes(12)
# Bytes that are hashed at once: AES-GCM takes less than 2 GiB.
PART = 1 << 30


def of_values(pixels: NDArray[np.float32], key: bytes) -> str:
    """Pseudonym of an image by its values, 16 hexadecimal digits.

    Args:
        pixels: ``[C, (D,) H, W]``, as the reader gives them: before a mask, a crop and the standardisation, which hang on settings.
        key: of the cohorts.
    """
    data = np.ascontiguousarray(pixels).data.cast("B")
    cipher = AESGCM(bytes.fromhex(keyed(key, "key of the values' hash")))
    tags = [cipher.encrypt(NONCE, b"", data[start : start + PART]) for start in range(0, len(data), PART)]
    return keyed(key, "values", str(pixels.shape), b"".join(tags))[:16]


def former(pixels: NDArray[np.float32], key: bytes) -> str:
    """The pseudonym that :func:`of_values` gave in earlier versions, ten times as slow: ledgers that those wrote know images by it."""
    digest = hashlib.sha256(np.ascontiguousarray(pixels).data.cast("B")).digest()
    return keyed(key, "content", str(pixels.shape), digest)[:16]


def both(pixels: NDArray[np.float32], key: bytes, *, formerly: bool) -> dict[str, str]:
    """``values``, and ``pixels`` for the former one where it is wanted too."""
    return {"values": of_values(pixels, key)} | ({"pixels": former(pixels, key)} if formerly else {})
