"""Cutting a big JSON file ``{key: {key: record}}`` into ranges that other processes read alone.

A scan over the bytes finds where records end, at about the speed of the disk: only quotes, braces and
backslashes are looked at. Whether the text between is valid is seen when it is parsed; a range that a strict
parser does not accept with the number of records that the scan has counted is read again by the streaming one,
which says where the file is broken.
"""

from __future__ import annotations

import gc
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lamkit.data.formats.reading import Range
from lamkit.errors import UserError

_CHUNK = 1 << 20  # bytes looked at together: they and the masks over them stay in the processor's cache
_QUOTE, _BACKSLASH, _OPEN, _CLOSE = b'"\\{}'
PIECE = 8 << 20  # bytes that a reader of the whole file takes at a time
_RECORD = 2  # depth of braces outside of a record: inside the file's object and that of a key
_KEY = re.compile(rb'"((?:[^"\\]|\\.)*)"\s*:\s*\Z', re.DOTALL)
_KEY_ROOM = 1 << 16  # bytes within which a key must lie before its brace


def cut(file: Path, n_bytes: int) -> Iterator[Range]:
    """Ranges of about ``n_bytes`` that cover the file; each ends after a record, the last with the file."""
    size = file.stat().st_size
    start = first = n = 0
    opened, key = 0, ""  # where the object began that holds the next record; the key of the range's first
    with open(file, "rb") as handle:
        for opens, ends in _marks(handle):
            done = 0
            while True:
                k = int(np.searchsorted(ends, start + n_bytes))
                if k >= len(ends):
                    break
                stop = int(ends[k])
                n += k + 1 - done
                yield Range(start, stop, first, n, key)
                before = opens[: np.searchsorted(opens, stop)]
                opened = int(before[-1]) if len(before) else opened
                start, first, n, key, done = stop, first + n, 0, _key_before(file, opened), k + 1
            n += len(ends) - done
            opened = int(opens[-1]) if len(opens) else opened
    yield Range(start, size, first, n, key)


def _marks(handle: BinaryIO) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """For each chunk: positions of the braces that open a key's object, and of the bytes after each record."""
    position, depth, inside = 0, 0, False
    while chunk := handle.read(_CHUNK):
        while chunk.endswith(b"\\"):  # what it escapes must be seen with it
            more = handle.read(1)
            if not more:
                break
            chunk += more
        text = np.frombuffer(chunk, dtype=np.uint8)
        marked = (text == _QUOTE) | (text == _OPEN) | (text == _CLOSE) | (text == _BACKSLASH)
        places = np.flatnonzero(marked)
        signs = text[places]
        if (signs == _BACKSLASH).any():
            plain = _not_escaped(places, signs)
            places, signs = places[plain], signs[plain]
        in_string = np.logical_xor.accumulate(signs == _QUOTE) ^ inside
        braces = (signs != _QUOTE) & ~in_string
        inside = bool(in_string[-1]) if len(in_string) else inside
        places, signs = places[braces] + position, signs[braces]
        depths = depth + np.cumsum(np.where(signs == _OPEN, 1, -1))
        depth = int(depths[-1]) if len(depths) else depth
        at = depths == _RECORD
        yield places[at & (signs == _OPEN)], places[at & (signs == _CLOSE)] + 1
        position += len(chunk)


def _not_escaped(places: NDArray[np.int64], signs: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which signs are no backslashes and do not follow one that escapes them."""
    plain = signs != _BACKSLASH
    escaped = -1  # position of the byte that the last backslash escapes
    for k in np.flatnonzero(~plain):
        if places[k] == escaped:
            continue
        escaped = int(places[k]) + 1
        if k + 1 < len(places) and places[k + 1] == escaped:
            plain[k + 1] = False
    return plain


def _key_before(file: Path, brace: int) -> str:
    """The key whose object opens at ``brace``, as it stands in the file, without quotes."""
    begin = max(0, brace - _KEY_ROOM)
    with open(file, "rb") as handle:
        handle.seek(begin)
        found = _KEY.search(handle.read(brace - begin))
    if found is None:
        raise UserError(f"{file}: byte {brace}: an object without a key before it: not valid JSON")
    return found.group(1).decode()


def records(file: Path, part: Range, source: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Key and records of each object in a range, those of one key perhaps in several ranges.

    Raises:
        UserError: the text is not valid JSON, or not an object.
    """
    text = _text(file, part)
    found = _parsed(text)
    if found is not None and not isinstance(found, dict):
        raise UserError(f"{source}: holds a {type(found).__name__}, not an object of objects")
    plain = found is not None and not all(isinstance(value, dict) for value in found.values())
    if found is not None and (plain or _n_records(found) == part.n):
        yield from found.items()  # the reader says what is wrong with a value that is no object
    else:
        yield from _streamed(text, part, source)


def _parsed(text: bytes) -> Any:
    """The text as objects; None if it is not valid JSON. NaN is let through, which only the second parser does."""
    import orjson

    with gc_paused():
        try:
            return orjson.loads(text)
        except ValueError:
            pass
        try:
            return json.loads(text)
        except ValueError:
            return None


@contextmanager
def gc_paused() -> Iterator[None]:
    """No search for reference cycles, which costs more than all else while many containers are made at once."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _n_records(found: dict[str, Any]) -> int:
    """Records in it, so that a key given twice is noticed: the parser keeps only the last of them."""
    return sum(len(value) for value in found.values())


def _text(file: Path, part: Range) -> bytes:
    """The range as a JSON object of its own."""
    with open(file, "rb") as handle:
        handle.seek(part.start)
        body = handle.read(part.stop - part.start)
    if part.start:
        body = body.lstrip()
        body = b'{"' + part.key.encode() + b'": {' + body.removeprefix(b",")
    return body if part.stop == file.stat().st_size else body + b"}}"


def _streamed(text: bytes, part: Range, source: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a streaming parser finds before it fails, record by record; a key given twice counts twice."""
    import ijson

    depth, key, name, builder = 0, "", "", None
    try:
        for event, value in ijson.basic_parse(io.BytesIO(text), use_float=True):
            if event == "map_key" and depth == 1:
                key = value
            elif event == "map_key" and depth == _RECORD:
                name, builder = value, ijson.ObjectBuilder()
            elif builder is not None:
                builder.event(event, value)
            depth += event.startswith("start_") - event.startswith("end_")
            if builder is not None and depth == _RECORD and event != "map_key":
                yield key, {name: builder.value}
                builder = None
    except ijson.JSONError as error:
        where = f"bytes {part.start} to {part.stop}"
        raise UserError(f"{source}: {where}: not valid JSON, truncated? ({error})") from None
