"""The bytes of a release's images: PNG files and an archive that hold pixels and nothing else, and the check that they do.

Both are written by the byte, in one layout, because any freedom that a format leaves (chunks, comments, times, gaps) is a place to hide
something. So is compression: of many streams that unpack to the same bytes, each can say something else, from empty blocks to the choice of
every match, and no two libraries, nor versions of one, pack alike, so that a packed file cannot be made again and compared. Nothing is
packed, therefore: PNG has its pixels in stored blocks, the archive in stored members, and each file is a function of its pixels.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.release.bounded import Damage
from pipeline.release.contents import PICTURE_TEXT, Label, array_shapes, label_type, pixel_hash

MOST_PIXELS = 3 << 24
"""Bytes of one image, at the most."""
_BLOCK = 0xFFFF  # most bytes of a stored block (RFC 1951, section 3.2.4)
_PNG = b"\x89PNG\r\n\x1a\n"
_ZIP_DATE = 33  # 1980-01-01, the first day that the format knows
_ARRAY = re.compile(rb"\{'descr': '\|u1', 'fortran_order': False, 'shape': \((\d{1,9}), (\d{1,5}), (\d{1,5})(, 3)?\), \} *\n")


def pixel_digest(images: Any) -> str:
    """SHA-256 of ``uint8 [n, C, H, W]`` images by :func:`pipeline.release.contents.pixel_hash`, one in memory at a time."""
    code = pixel_hash(images.shape)
    for index in range(len(images)):
        code.update(np.asarray(images[index]).tobytes())
    return code.hexdigest()


def png_bytes(image: NDArray[np.uint8], text: tuple[bytes, bytes] = PICTURE_TEXT) -> bytes:
    """A ``uint8 [C, H, W]`` image, C = 1 (grey) or 3 (RGB), as a PNG file (ISO/IEC 15948) of IHDR, one tEXt with a keyword and a text, one
    IDAT that is neither filtered nor compressed, and IEND."""
    channels, height, width = image.shape
    size = struct.pack(">2L5B", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    rows = np.moveaxis(image, 0, -1).reshape(height, -1)
    lines = np.pad(rows, ((0, 0), (1, 0))).tobytes()  # each row begins with its filter's number, 0
    said = _chunk(b"tEXt", b"\0".join(text))
    return _PNG + _chunk(b"IHDR", size) + said + _chunk(b"IDAT", _stored(lines)) + _chunk(b"IEND", b"")


def png_size(shape: tuple[int, ...]) -> int:
    """Bytes of the PNG file of a ``C, H, W`` image, as it is released."""
    lines = shape[1] * (shape[2] * shape[0] + 1)
    return lines + 5 * -(-lines // _BLOCK) + 63 + len(_chunk(b"tEXt", b"\0".join(PICTURE_TEXT)))


def _stored(data: bytes) -> bytes:
    """A zlib stream (RFC 1950) of stored blocks (RFC 1951): all of them full but the last."""
    starts = range(0, len(data), _BLOCK)
    pieces = [data[start : start + _BLOCK] for start in starts]
    heads = [struct.pack("<B2H", start == starts[-1], len(piece), len(piece) ^ 0xFFFF) for start, piece in zip(starts, pieces)]
    blocks = b"".join(part for pair in zip(heads, pieces) for part in pair)
    return b"\x78\x01" + blocks + struct.pack(">L", zlib.adler32(data))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


def write_archive(path: Path, images: Any, labels: NDArray[Any], classes: int) -> None:
    """Write ``uint8 [n, C, H, W]`` images and their class indices ``[n]``, or several findings ``[n, K]``, in MedMNIST's layout, as numpy's
    ``load`` reads it.

    A zip file with 64-bit sizes throughout (APPNOTE 6.3.9, section 4.5.3), so that there is one layout for any size.
    """
    n, channels, height, width = images.shape
    shape = (n, height, width) if channels == 1 else (n, height, width, channels)
    several = labels.ndim == 2
    kind = label_type(classes, several)
    data: Mapping[str, Iterable[bytes]] = {
        "train_images": (np.moveaxis(np.asarray(images[i]), 0, -1).tobytes() for i in range(n)),
        "train_labels": [labels.astype(kind).tobytes()],
    }
    tail, count = b"", 0
    with path.open("wb") as file:
        for name, sides in array_shapes(shape, classes if several else None).items():
            header = _array_header("|u1" if name.endswith("images") else kind, sides)
            at = file.tell()
            file.write(_local(name, 0, 0))
            crc, size = 0, 0
            for piece in chain([header], data.get(name, ())):
                crc, size = zlib.crc32(piece, crc), size + len(piece)
                file.write(piece)
            end = file.tell()
            file.seek(at)
            file.write(_local(name, crc, size))
            file.seek(end)
            tail, count = tail + _central(name, crc, size, at), count + 1
        file.write(tail + _end(count, len(tail), file.tell()))


class Archive:
    """What :func:`write_archive` wrote, read forward with one image in memory at a time: first :meth:`images`, then :meth:`labels`.

    Args:
        file: at its start.
        n: how many images it must hold.
        classes: of how many classes.
        several: whether an image can have several of them.

    Attributes:
        shape: ``n, C, H, W``.
        digest: SHA-256 of what was read: of the file, after :meth:`labels`.

    Raises:
        Damage: here or on the way, where the file holds anything else.
    """

    def __init__(self, file: BinaryIO, n: int, classes: int, several: bool = False) -> None:
        self.file, self.kind = _Hashed(file), label_type(classes, several)
        self.findings = classes if several else None
        self.first = _Member(self.file, "train_images")
        self.layout = self.first.image_shape()
        count, height, width = self.layout[:3]
        if count != n or not 0 < height * width <= MOST_PIXELS // 3:
            raise Damage(f"holds {count} images, or some of an impossible size, where {n} were judged")
        self.shape = (n, self.layout[3] if len(self.layout) == 4 else 1, height, width)
        self.tail = b""

    @property
    def digest(self) -> str:
        """See the attributes of the class."""
        return self.file.code.hexdigest()

    def images(self) -> Iterator[NDArray[np.uint8]]:
        """The images ``uint8 [C, H, W]`` in their order; the end of the array is checked after the last."""
        n, channels, height, width = self.shape
        self.first.expect(_array_header("|u1", self.layout), self.layout, 1)
        for _ in range(n):
            pixels = np.frombuffer(self.first.read(height * width * channels), np.uint8).reshape(height, width, channels)
            yield np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
        self.tail += self.first.finish()

    def labels(self) -> list[Label]:
        """The label of every image; then nothing may follow but empty arrays and the archive's own table."""
        found: list[Any] = []
        shapes = array_shapes(self.layout, self.findings)
        for name, shape in list(shapes.items())[1:]:
            kind = "|u1" if name.endswith("images") else self.kind
            member, item = _Member(self.file, name), np.dtype(kind).itemsize
            member.expect(_array_header(kind, shape), shape, item)
            values = np.frombuffer(member.read(int(np.prod(shape, dtype=np.int64)) * item), kind)
            found += values.tolist() if self.findings is None else list(map(tuple, values.reshape(-1, self.findings).tolist()))
            self.tail += member.finish()
        expected = self.tail + _end(len(shapes), len(self.tail), self.file.tell())
        if self.file.read(len(expected) + 1) != expected:
            raise Damage("holds more than its arrays: other members, comments or bytes after its end")
        return found


class _Hashed:
    """A file that is read forward, and hashed on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.code = file, hashlib.sha256()

    def read(self, count: int) -> bytes:
        data = self.file.read(count)
        self.code.update(data)
        return data

    def tell(self) -> int:
        return self.file.tell()


class _Member:
    """One stored array of the archive, read forward within the bounds of its declared shape."""

    def __init__(self, file: _Hashed, name: str) -> None:
        self.file, self.name, self.at = file, name, file.tell()
        length = len(_local(name, 0, 0))
        head = file.read(length)
        if len(head) != length:
            raise Damage("is cut short")
        (self.crc,), (self.size,) = struct.unpack_from("<L", head, 14), struct.unpack_from("<Q", head, length - 8)
        if head != _local(name, self.crc, self.size):
            raise Damage(f"does not hold {name} where it must be, or with more than an array needs")
        self.found, self.ahead = 0, b""

    def image_shape(self) -> tuple[int, ...]:
        """The shape in the array's header, which stays to be read."""
        self.ahead = self.read(128)
        match = _ARRAY.fullmatch(self.ahead[10:])
        if match is None:
            raise Damage("does not begin with uint8 images [n, H, W] or [n, H, W, 3]")
        return tuple(int(side) for side in match.groups()[:3]) + ((3,) if match[4] else ())

    def expect(self, header: bytes, shape: tuple[int, ...], item: int) -> None:
        """Read the array's header, which must be this one, and whose size the member's must fit."""
        size = len(header) + int(np.prod(shape, dtype=np.int64)) * item
        if self.size != size or (self.ahead or self.read(len(header))) != header:
            raise Damage(f"has {self.name} of another shape or type than {','.join(map(str, shape))}")

    def read(self, count: int) -> bytes:
        """So many bytes of the array."""
        data = self.file.read(count)
        if len(data) != count:
            raise Damage(f"is cut short in {self.name}")
        self.found = zlib.crc32(data, self.found)
        return data

    def finish(self) -> bytes:
        """Its line in the archive's table, after the last byte that :meth:`expect` announced."""
        if self.found != self.crc:
            raise Damage(f"holds other bytes in {self.name} than its checksum says")
        return _central(self.name, self.crc, self.size, self.at)


def _array_header(kind: str, shape: tuple[int, ...]) -> bytes:
    """The header of a ``.npy`` array, format 1.0, in C order, 128 bytes."""
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + text.ljust(117) + b"\n"


def _local(name: str, crc: int, size: int) -> bytes:
    file = f"{name}.npy".encode()
    head = struct.pack("<4s5H3L2H", b"PK\x03\x04", 45, 0, 0, 0, _ZIP_DATE, crc, 0xFFFFFFFF, 0xFFFFFFFF, len(file), 20)
    return head + file + struct.pack("<2H2Q", 1, 16, size, size)


def _central(name: str, crc: int, size: int, at: int) -> bytes:
    file, full = f"{name}.npy".encode(), 0xFFFFFFFF
    head = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 45, 45, 0, 0, 0, _ZIP_DATE, crc, full, full, len(file), 28, 0, 0, 0, 0, full)
    return head + file + struct.pack("<2H3Q", 1, 24, size, size, at)


def _end(count: int, size: int, at: int) -> bytes:
    wide = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, at)
    where = struct.pack("<4sLQL", b"PK\x06\x07", 0, at + size, 1)
    return wide + where + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
