"""MindSpore's own ``.ckpt``: read with protobuf alone, and its names brought to the public ones.

The file is a run of protobuf messages, each a piece of one array: ``value { tag, tensor { dims, tensor_type,
tensor_content } }``; arrays above a few hundred megabytes come in several pieces. Only files written with
``crc_check=True`` end with a checksum; in all others changed numbers cannot be noticed.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamkit.errors import UserError
from lamkit.model.public.arrays import LazyArray, listed, shown

TYPES = {
    "Float64": "<f8", "Float32": "<f4", "Float16": "<f2", "Int64": "<i8", "Int32": "<i4", "Int16": "<i2",
    "Int8": "i1", "UInt8": "u1", "Bool": "?",
}  # fmt: skip
MAX_BYTES = 1 << 31
CHECKSUM = b"crc_num"
CHECKSUM_BYTES = len(CHECKSUM) + 10


def is_mindspore(path: Path) -> bool:
    """Whether a file begins as MindSpore's do: one message, in it a name made of text."""
    with open(path, "rb") as stream:
        head = stream.read(24)
    # Field 1 (value), its length in up to five bytes; in it field 1 (tag), its length, its first letter.
    match = re.match(rb"\x0a[\x80-\xff]{0,4}[\x00-\x7f]\x0a[\x00-\x7f][A-Za-z_]", head)
    return match is not None


def read_mindspore(path: Path) -> dict[str, LazyArray]:
    """Arrays of a MindSpore checkpoint.

    Raises:
        UserError: not readable, damaged, encrypted, or of a type that weights do not have.
    """
    from google.protobuf.message import DecodeError

    if (size := path.stat().st_size) >= MAX_BYTES:
        raise UserError(
            f"{path}: {size} bytes; a MindSpore checkpoint of an Orb model has a tenth of a gigabyte"
        )
    data = path.read_bytes()
    if data[-CHECKSUM_BYTES:-10] == CHECKSUM:
        data, expected = data[:-CHECKSUM_BYTES], int.from_bytes(data[-10:], "big")
        if zlib.crc32(data) != expected:
            raise UserError(
                f"{path}: its checksum does not fit; the file is damaged, copy or download it again"
            )
    message = _message()()
    try:
        message.ParseFromString(data)
    except (DecodeError, ValueError) as error:
        raise UserError(
            f"{path}: a damaged, truncated or encrypted MindSpore checkpoint ({shown(str(error))})"
        ) from None
    pieces: dict[str, list[Any]] = {}
    for value in message.value:
        if not value.HasField("tensor") or not value.tag:
            raise UserError(f"{path}: {shown(value.tag)} is no array; only plain weights are read")
        pieces.setdefault(value.tag, []).append(value.tensor)
    return {tag: _array(path, tag, parts) for tag, parts in pieces.items()}


def _array(path: Path, tag: str, parts: list[Any]) -> LazyArray:
    kind, dims = parts[0].tensor_type, tuple(parts[0].dims)
    where = f"{path}: {shown(tag)}"
    if kind not in TYPES:
        raise UserError(f"{where} is of type {shown(kind)}, which weights do not have")
    if any(p.tensor_type != kind or tuple(p.dims) != dims for p in parts) or any(n < 0 for n in dims):
        raise UserError(f"{where}: its pieces do not fit together; the file is damaged")
    content = b"".join(p.tensor_content for p in parts)
    needed = np.dtype(TYPES[kind]).itemsize
    for n in dims:
        needed *= n
    if needed != len(content):
        raise UserError(f"{where} has shape {dims} and {len(content)} bytes, {needed} are needed; damaged")
    numbers: NDArray[Any] = np.frombuffer(content, TYPES[kind]).reshape(dims)
    return LazyArray(dims, numbers.dtype, numbers.copy)


@cache
def _message() -> Any:
    """The message class; protobuf comes with MindSpore, which itself is not needed."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="lamkit_mindspore_ckpt.proto", package="lamkit", syntax="proto2"
    )
    layout = {
        "Tensor": [("dims", 1, field.TYPE_INT64, ""), ("tensor_type", 2, field.TYPE_STRING, ""),
                   ("tensor_content", 3, field.TYPE_BYTES, "")],
        "Value": [("tag", 1, field.TYPE_STRING, ""), ("tensor", 2, field.TYPE_MESSAGE, ".lamkit.Tensor")],
        "Checkpoint": [("value", 1, field.TYPE_MESSAGE, ".lamkit.Value")],
    }  # fmt: skip
    repeated = {"dims", "value"}
    for name, fields in layout.items():
        message = file.message_type.add(name=name)
        for label, number, kind, type_name in fields:
            message.field.add(
                name=label, number=number, type=kind, type_name=type_name or None,
                label=field.LABEL_REPEATED if label in repeated else field.LABEL_OPTIONAL,
            )  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("lamkit.Checkpoint"))


# -- names -----------------------------------------------------------------------------------------------

# MindSpore's own names of what torch calls weight and bias.
_PARTS = {"gamma": "weight", "beta": "bias", "embedding_table": "weight", "weight": "weight", "bias": "bias"}
# A network under its public name. The port puts numbered members in it: linear layers, activations (without
# arrays) and at the end the norm.
_NETWORK = r"((?:graph_head|node_head|stress_head|heads\.\w+)\.mlp|model\.(?:_encoder|gnn_stacks\.\d+|_decoder)\.\w+)"
_MEMBER = re.compile(_NETWORK + r"((?:\.\d{1,4})+)\.(weight|bias)")
_NORM = re.compile(_NETWORK + r"(?:\.\d{1,4})+\.(gamma|beta)")


def public_names(arrays: Mapping[str, LazyArray], where: str) -> dict[str, LazyArray]:
    """Arrays under public names (those of orb-models 0.4, whose heads the port has).

    The port flattens each network with its norm into one numbered sequence (``_node_mlp.0.weight`` …
    ``_node_mlp.6.gamma``), calls the norm's numbers gamma and beta and the embedding ``embedding_table``.
    A file none of whose names is known is matched by order and shape instead (see :func:`by_order`).

    Raises:
        UserError: neither names nor order and shapes fit.
    """
    members: dict[str, set[int]] = {}
    for name in arrays:
        if match := _MEMBER.fullmatch(name):
            members.setdefault(match[1], set()).add(_number(match[2]))
    ranks = {network: {n: k for k, n in enumerate(sorted(found))} for network, found in members.items()}
    renamed = {_renamed(name, ranks): array for name, array in arrays.items()}
    if len(renamed) < len(arrays):
        raise UserError(f"{where}: several arrays would get the same public name; its naming is not known")
    if any(name.startswith("model.") or ".mlp." in name for name in renamed):
        return renamed
    return by_order(arrays, where)


def _renamed(name: str, ranks: Mapping[str, Mapping[int, int]]) -> str:
    """``ranks``: network → number of a member → its rank among the linear layers."""
    if match := _MEMBER.fullmatch(name):
        network, place, part = match.groups()
        inner = network if network.endswith(".mlp") else f"{network}.mlp"
        return f"{inner}.NN-{ranks[network][_number(place)]}.{part}"
    if match := _NORM.fullmatch(name):
        return f"{match[1]}.layer_norm.{_PARTS[match[2]]}"
    stem, _, last = name.rpartition(".")
    return f"{stem}.{_PARTS.get(last, last)}"


def _number(place: str) -> int:
    return int(place.rsplit(".", 1)[1])


def by_order(arrays: Mapping[str, LazyArray], where: str) -> dict[str, LazyArray]:
    """Arrays under public names, by their order in the file and their shapes alone (orb-v2 only).

    Order of the port: heads before or after the network; within the network embedding first or last; each
    layer's node network before its edge network, the receive gate before the send gate. Every order is
    tried; the names are given only if exactly one of them fits all shapes.

    Raises:
        UserError: no order fits, or more than one.
    """
    from lamkit.model.public.orders import candidates

    shapes = [array.shape for array in arrays.values()]
    fitting = list(candidates(shapes))
    if len(fitting) != 1:
        raise UserError(
            f"{where}: neither the names nor the order and shapes of its {len(arrays)} arrays are those of an "
            f"Orb model ({len(fitting)} orders fit):{listed(arrays, 6)}"
        )
    return dict(zip(fitting[0], arrays.values(), strict=True))
