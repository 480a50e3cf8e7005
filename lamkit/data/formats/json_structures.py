"""pymatgen structures inside JSON, streamed so that a file of any size takes no memory: shared pieces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamkit.data.frame import numbers_of
from lamkit.errors import UserError

# What a record of another shape than expected raises, wherever it is looked into.
SHAPE_ERRORS = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)

Structure = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]


def structure(data: Mapping[str, Any], origin: str) -> Structure:
    """Numbers, positions (Å), cell (Å) and pbc of a pymatgen ``Structure.as_dict``.

    Raises:
        UserError: partial occupation, or something missing.
    """
    try:
        cell = np.array(data["lattice"]["matrix"], dtype=np.float64).reshape(3, 3)
        pbc = np.array(data["lattice"].get("pbc", (True, True, True)), dtype=bool)
        sites = data["sites"]
        if any(len(site["species"]) != 1 or site["species"][0].get("occu", 1) != 1 for site in sites):
            raise UserError(f"{origin}: a site is occupied in part; only ordered structures can be read")
        symbols = [site["species"][0]["element"] for site in sites]
        fractional = np.array([site["abc"] for site in sites], dtype=np.float64).reshape(-1, 3)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{origin}: not a pymatgen structure ({error!r})") from None
    return numbers_of(symbols, origin), fractional @ cell, cell, pbc


def stream(file: Path, prefix: str, source: str, *, pairs: bool) -> Iterator[Any]:
    """Objects of a JSON file one by one: key-value pairs of an object, or items of a list.

    Raises:
        UserError: the file is no JSON or ends too early.
    """
    import ijson

    with open(file, "rb") as handle:
        try:
            yield from (ijson.kvitems if pairs else ijson.items)(handle, prefix, use_float=True)
        except ijson.JSONError as error:
            raise UserError(f"{source}: not valid JSON, truncated? ({error})") from None


def keys_of_first(file: Path) -> tuple[str, set[str]]:
    """Kind of a JSON file: ``list`` or ``object``, and the keys of its first records at any depth up to 3.

    An empty kind means that it is no JSON.
    """
    import ijson

    keys: set[str] = set()
    kind, depth = "", 0
    with open(file, "rb") as handle:
        try:
            for n_events, (event, value) in enumerate(ijson.basic_parse(handle, use_float=True)):
                kind = kind or {"start_array": "list", "start_map": "object"}.get(event, "value")
                depth += event.startswith("start_") - event.startswith("end_")
                if event == "map_key" and depth <= 3:
                    keys.add(value)
                if n_events > 50_000:
                    break
        except ijson.JSONError:
            return (kind, keys) if keys else ("", set())
    return kind, keys
