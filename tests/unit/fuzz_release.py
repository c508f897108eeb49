"""Mutations of a release, verified in a child process with bounded memory and time: every one must be survived.

    python tests/unit/fuzz_release.py RELEASE [MUTATIONS SEED]

Without MUTATIONS, the releases named are verified as they are. It prints a JSON line for each: problems, peak memory in MB so far, seconds.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MEGABYTES, SECONDS = 1000, 10
NUMBERS = (b"0", b"-1", b"1e999", b"NaN", b"-0.0", b"9" * 5000, b"true", b"null", b'"x"', b"[]", b"{}", b"1e-400", b"[" * 3000)


def flip(data: bytearray, dice: random.Random) -> bytes:
    for _ in range(dice.choice((1, 1, 1, 8, 64))):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return bytes(data)


def cut(data: bytearray, dice: random.Random) -> bytes:
    return bytes(data[: dice.randrange(len(data))])


def garbage(data: bytearray, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    data[at : at + dice.choice((1, 16, 300))] = dice.randbytes(dice.choice((1, 16, 300, 5000)))
    return bytes(data)


def remove(data: bytearray, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    del data[at : at + dice.choice((1, 16, 300))]
    return bytes(data)


def swap(data: bytearray, dice: random.Random) -> bytes:
    one, other = sorted(dice.randrange(len(data)) for _ in range(2))
    return bytes(data[:one] + data[other:] + data[one:other])


def numbers(data: bytearray, dice: random.Random) -> bytes:
    """A digit, wherever one is, becomes another value."""
    places = [place for place, byte in enumerate(data) if chr(byte).isdigit()]
    place = dice.choice(places or [0])
    return bytes(data[:place] + dice.choice(NUMBERS) + data[place + 1 :])


def lengths(data: bytearray, dice: random.Random) -> bytes:
    """Four bytes become a length at the edge of what its field can say, as in a zip's, PNG's or DICOM's headers."""
    at = dice.randrange(max(1, min(len(data) - 4, 400))) if dice.random() < 0.5 else dice.randrange(max(1, len(data) - 4))
    data[at : at + 4] = struct.pack(dice.choice("<>") + "L", dice.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFF, len(data))))
    return bytes(data)


def doubled(data: bytearray, dice: random.Random) -> bytes:
    return bytes(data + data[-dice.randrange(1, len(data) + 1) :])


CHANGES: tuple[Callable[[bytearray, random.Random], bytes], ...] = (flip, flip, cut, garbage, remove, swap, numbers, lengths, doubled)


def mutations(release: Path, count: int, seed: int) -> Iterator[tuple[str, bool]]:
    """Make one mutation after another, each undone before the next: what it did, and whether the checksums must tell of it."""
    from pipeline.release import stage

    dice = random.Random(seed)
    paths = sorted(path for path in release.rglob("*") if path.is_file())
    whole = [path for path in paths if path.parent == release]
    for number in range(count):
        path = dice.choice(whole if dice.random() < 0.8 else paths)
        before, change, resealed = path.read_bytes(), dice.choice(CHANGES), dice.random() < 0.3
        sums = release / "SHA256SUMS"
        listed = sums.read_bytes() if sums.exists() else None
        if dice.random() < 0.05:
            yield from swapped(path, dice.choice(paths), number)
            continue
        path.write_bytes(change(bytearray(before), dice))
        if resealed and listed is not None and path != sums:
            stage.seal(release)
        told = listed is not None and not resealed and path.name != "record.json"
        yield f"{number}: {change.__name__} of {path.name}", told and path.read_bytes() != before
        path.write_bytes(before)
        if listed is not None:
            sums.write_bytes(listed)


def swapped(path: Path, other: Path, number: int) -> Iterator[tuple[str, bool]]:
    """A file becomes a copy of another one, a link or a folder."""
    before = path.read_bytes()
    kind = ("copy", "link", "folder", "nothing")[number % 4]
    path.unlink()
    if kind == "copy":
        path.write_bytes(other.read_bytes() if other != path else b"")
    elif kind == "link":
        path.symlink_to(other)
    elif kind == "folder":
        path.mkdir()
    must = path.name != "record.json" and (kind != "copy" or other.read_bytes() != before)
    yield f"{number}: {kind} of {other.name} for {path.name}", must
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.write_bytes(before)


def child(*words: str | Path) -> list[dict[str, Any]]:
    """What this program says of releases, in a process of its own; a traceback, a signal or a broken bound is an AssertionError."""
    command = [sys.executable, __file__, *map(str, words)]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3600)
    assert found.returncode == 0, found.stdout[-300:] + found.stderr[-2000:]
    return [json.loads(line) for line in found.stdout.splitlines()]


def verified(release: Path) -> dict[str, Any]:
    from pipeline.release.verify import verify

    started = time.process_time()
    signal.alarm(6 * SECONDS)  # an end for what hangs; the bound itself is of processor time
    problems = verify(release)
    signal.alarm(0)
    # Not ru_maxrss, which holds what the process that forked this one had reached.
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024
    return {"problems": problems, "megabytes": peak, "seconds": time.process_time() - started}


def main(words: list[str]) -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    os.environ.setdefault("SYNTHCOHORT_KEY", "a key that only the tests use")
    from release_run import LENIENT

    from privacy import limits

    limits.MAX_COPY_RATE = LENIENT
    if len(words) == 3 and words[1].isdigit():
        for name, must in mutations(Path(words[0]), int(words[1]), int(words[2])):
            print(json.dumps({"mutation": name, "must": must} | verified(Path(words[0]))), flush=True)
    else:
        for word in words:
            print(json.dumps(verified(Path(word))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
