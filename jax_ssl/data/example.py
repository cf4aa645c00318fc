"""Finds the image bytes and the label in a `tf.train.Example`, without TensorFlow and without copying the image.

Reads only what is needed of the wire format (protobuf.dev/programming-guides/encoding). An Example is {1: Features},
Features is {1: map entries}, an entry is {1: name, 2: Feature}, a Feature is {1: BytesList} or {3: Int64List}, and each
list is {1: values}.
"""

import struct
from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
HEADER = struct.Struct("<QI")  # of a TFRecord: length of the data, its masked crc; another crc follows the data
FOOTER = 4
DAMAGED = (ValueError, IndexError, KeyError, struct.error)  # raised by the functions here for damaged bytes


def records(data) -> Iterator[tuple[int, int]]:
    """The (start, end) of each record in the bytes of a TFRecord file. Raises ValueError if it ends inside a record."""
    position, total = 0, len(data)
    while position < total:
        if position + HEADER.size > total:
            raise ValueError("the file ends inside a record")
        start = position + HEADER.size
        end = start + HEADER.unpack_from(data, position)[0]
        if end + FOOTER > total:
            raise ValueError("the file ends inside a record")
        yield start, end
        position = end + FOOTER


def image_and_label(data, start: int, end: int, image: bytes, label: bytes) -> tuple[int, int, int]:
    """(start of the image, end of the image, label or -1) of the Example in data[start:end].

    image, label: names of the features. Raises one of DAMAGED where there is no image.
    """
    place, number = None, -1
    for _, features_start, features_end in fields(data, start, end):
        for _, entry_start, entry_end in fields(data, features_start, features_end):
            parts = {field: (first, last) for field, first, last in fields(data, entry_start, entry_end)}
            name = bytes(data[slice(*parts[1])])
            if name == image:
                place = _first_bytes(data, *parts[2])
            elif name == label:
                number = _first_integer(data, *parts[2])
    if place is None:
        raise ValueError(f"a record has no feature {image.decode()!r}")
    return *place, number


def fields(data, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(field number, start of the value, end of the value) of each field of the message in data[start:end]."""
    while start < end:
        tag, start = varint(data, start)
        kind = tag & 7
        if kind == VARINT:
            after = varint(data, start)[1]
        elif kind == BYTES:
            length, start = varint(data, start)
            after = start + length
        elif kind in (FIXED64, FIXED32):
            after = start + (8 if kind == FIXED64 else 4)
        else:
            raise ValueError("not a tf.train.Example")
        if after > end:
            raise ValueError("not a tf.train.Example")
        yield tag >> 3, start, after
        start = after


def varint(data, position: int) -> tuple[int, int]:
    """The varint at `position` (seven bits a byte, lowest first), and the position after it."""
    value, shift = 0, 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("not a tf.train.Example")


def _first_bytes(data, start: int, end: int) -> tuple[int, int]:
    for _, list_start, list_end in fields(data, start, end):
        for _, first, last in fields(data, list_start, list_end):
            return first, last
    raise ValueError("a record has an empty image")


def _first_integer(data, start: int, end: int) -> int:
    """The first value of an Int64List, -1 if it is empty. Packed or not, the first varint is at the same place."""
    for _, list_start, list_end in fields(data, start, end):
        for _, first, _last in fields(data, list_start, list_end):
            value = varint(data, first)[0]
            return value - 2**64 if value >= 2**63 else value
    return -1
