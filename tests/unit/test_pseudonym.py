"""An image's pseudonym by its values: by the formula, and the same for the same values alone."""

from __future__ import annotations

import hashlib
import hmac

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from pipeline.artifacts import keyed
from pipeline.ingest import pseudonym

KEY = b"a key of the tests, long enough"
IMAGE = np.random.default_rng(0).normal(size=(1, 7, 5)).astype(np.float32)


def ghash(key: bytes, data: bytes) -> bytes:
    """AES-GCM's tag of associated data under a nonce of zeros, block by block and bit by bit (NIST SP 800-38D, algorithms 1, 2 and 4)."""
    cipher = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    subkey, mask = (int.from_bytes(cipher.update(block), "big") for block in (bytes(16), bytes(15) + b"\1"))
    padded = data + bytes(-len(data) % 16) + (8 * len(data)).to_bytes(8, "big") + bytes(8)
    state = 0
    for start in range(0, len(padded), 16):
        left, right, state = state ^ int.from_bytes(padded[start : start + 16], "big"), subkey, 0
        for bit in range(127, -1, -1):
            state ^= right if left >> bit & 1 else 0
            right = right >> 1 ^ (0xE1 << 120 if right & 1 else 0)
    return (state ^ mask).to_bytes(16, "big")


@pytest.mark.parametrize("part", [1 << 30, 48])
def test_it_follows_the_formula(monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    monkeypatch.setattr(pseudonym, "PART", part)
    data, key = IMAGE.tobytes(), bytes.fromhex(keyed(KEY, "key of the values' hash"))
    tags = b"".join(ghash(key, data[start : start + part]) for start in range(0, len(data), part))
    assert pseudonym.of_values(IMAGE, KEY) == keyed(KEY, "values", "(1, 7, 5)", tags)[:16]


def test_the_former_one_is_that_of_earlier_versions() -> None:
    parts = [b"content", b"(1, 7, 5)", hashlib.sha256(IMAGE.tobytes()).digest()]
    message = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    expected = {"values": pseudonym.of_values(IMAGE, KEY), "pixels": hmac.digest(KEY, message, "sha256").hex()[:16]}
    assert pseudonym.both(IMAGE, KEY, formerly=True) == expected


@pytest.mark.parametrize("name", [pseudonym.of_values, pseudonym.former])
def test_it_is_the_same_for_the_same_values_and_for_no_others(name) -> None:
    same = [IMAGE, IMAGE.copy(order="F"), np.repeat(IMAGE, 2, axis=2)[..., ::2], IMAGE.astype(np.float64).astype(np.float32)]
    assert len({name(image, KEY) for image in same}) == 1
    others = [IMAGE[..., ::-1], IMAGE.reshape(1, 5, 7), IMAGE[0], IMAGE[:, :-1], np.pad(IMAGE, ((0, 0), (0, 1), (0, 0)))]
    for place in (0, 17, 34):
        one = IMAGE.copy()
        one.flat[place] = np.nextafter(one.flat[place], np.float32(9))
        others.append(one)
    assert len({name(image, KEY) for image in [IMAGE, *others]} | {name(IMAGE, KEY + b".")}) == len(others) + 2
