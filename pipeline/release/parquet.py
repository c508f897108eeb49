"""Columns as a Parquet file that is a function of its values alone.

Libraries choose encodings, pages and statistics, state their version, and write other bytes with the next one: such a file cannot be made
again and compared, and has room for what nobody asked for. This one has one row group with one page a column, PLAIN, uncompressed, and no
nulls, statistics or key-value pairs (Apache Parquet format 2.10; its metadata in Thrift's compact protocol).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

_MAGIC = b"PAR1"
_I32, _I64, _BINARY, _LIST, _STRUCT = 5, 6, 8, 9, 12  # types of the compact protocol
_INT32, _INT64, _FLOAT, _BYTES = 1, 2, 4, 6  # Parquet's physical types
_UTF8, _INT_8 = 0, 15  # its converted types
_PLAIN, _RLE = 0, 3  # its encodings
Column = Sequence[str] | NDArray[np.int8] | NDArray[np.int64] | NDArray[np.float32]


def parquet_bytes(columns: Mapping[str, Column]) -> bytes:
    """A Parquet file.

    Args:
        columns: of equal lengths, by name, in their order: texts (UTF-8), or numbers of type int8, int64 or float32.
    """
    count = len(next(iter(columns.values())))
    file, chunks = bytearray(_MAGIC), []
    for name, values in columns.items():
        kind, data = _physical(values), _plain(values)
        levels = [(3, _I32, _RLE), (4, _I32, _RLE)]  # named as the format asks, and empty: no value is missing or repeated
        page = _fields((1, _I32, count), (2, _I32, _PLAIN), *levels)
        head = _fields((1, _I32, 0), (2, _I32, len(data)), (3, _I32, len(data)), (5, _STRUCT, page))
        size = len(head) + len(data)
        facts = _fields(
            (1, _I32, kind),
            (2, _LIST, (_I32, [_zigzag(_PLAIN), _zigzag(_RLE)])),
            (3, _LIST, (_BINARY, [_text(name)])),
            (4, _I32, 0),
            (5, _I64, count),
            (6, _I64, size),
            (7, _I64, size),
            (9, _I64, len(file)),
        )
        chunks.append(_fields((2, _I64, len(file)), (3, _STRUCT, facts)))
        file += head + data
    group = _fields((1, _LIST, (_STRUCT, chunks)), (2, _I64, len(file) - len(_MAGIC)), (3, _I64, count))
    root = _fields((4, _BINARY, _text("schema")), (5, _I32, len(columns)))
    schema = [root, *(_element(name, values) for name, values in columns.items())]
    footer = _fields((1, _I32, 1), (2, _LIST, (_STRUCT, schema)), (3, _I64, count), (4, _LIST, (_STRUCT, [group])))
    return bytes(file) + footer + struct.pack("<L", len(footer)) + _MAGIC


def _physical(values: Column) -> int:
    if not isinstance(values, np.ndarray):
        return _BYTES
    return {"int8": _INT32, "int64": _INT64, "float32": _FLOAT}[values.dtype.name]


def _plain(values: Column) -> bytes:
    """PLAIN encoding: texts led by their lengths, numbers in little-endian order, int8 as int32."""
    if not isinstance(values, np.ndarray):
        return b"".join(struct.pack("<L", len(data)) + data for data in (text.encode() for text in values))
    return values.astype({"int8": "<i4", "int64": "<i8", "float32": "<f4"}[values.dtype.name]).tobytes()


def _element(name: str, values: Column) -> bytes:
    """A column's entry in the schema: required, with the meaning of what is stored as bytes or wider than it is."""
    kind = _physical(values)
    meaning = {_BYTES: [(6, _I32, _UTF8)], _INT32: [(6, _I32, _INT_8)]}.get(kind, [])
    return _fields((1, _I32, kind), (3, _I32, 0), (4, _BINARY, _text(name)), *meaning)


def _fields(*fields: tuple[int, int, int | bytes | tuple[int, list[bytes]]]) -> bytes:
    """A struct of (id, type, value) in ascending order of ids, none 16 or more above the one before."""
    out, last = b"", 0
    for number, kind, value in fields:
        out += bytes([(number - last) << 4 | kind])
        if isinstance(value, tuple):
            element, items = value
            size = len(items)
            out += (bytes([size << 4 | element]) if size < 15 else bytes([0xF0 | element]) + _varint(size)) + b"".join(items)
        else:
            out += value if isinstance(value, bytes) else _zigzag(value)
        last = number
    return out + b"\0"


def _text(text: str) -> bytes:
    data = text.encode()
    return _varint(len(data)) + data


def _zigzag(value: int) -> bytes:
    """An integer that is not negative."""
    return _varint(2 * value)


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])
