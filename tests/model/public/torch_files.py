"""Files as torch.save writes them, made without torch, and arrays of small Orb models to put into them.

The pickle comes from Python's own pickler, so that reader and writer of LAMKit are checked against a third.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np

from lamkit.model.config import TrunkConfig
from lamkit.model.public.names import public_shapes

CLASSES = {
    "float32": "FloatStorage", "float64": "DoubleStorage", "float16": "HalfStorage", "int64": "LongStorage",
    "bool": "BoolStorage", "uint16": "BFloat16Storage",
}  # fmt: skip


class Name:
    """Pickled as a global name, without anything of that name having to exist."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Storage:
    def __init__(self, kind: str, key: str, size: int, device: str = "cpu") -> None:
        self.reference = ("storage", Name("torch", kind), key, device, size)


class Call:
    """Pickled as a call of a global name; then entries and attributes are set, as for an OrderedDict."""

    def __init__(self, function: Name, *arguments, entries=None, state=None) -> None:
        self.function, self.arguments, self.entries, self.state = function, arguments, entries, state


class Pickler(pickle._Pickler):
    def persistent_id(self, value):
        return value.reference if isinstance(value, Storage) else None

    def save(self, value, save_persistent_id=True):
        if isinstance(value, Name):
            self.write(f"c{value.module}\n{value.name}\n".encode())
        elif isinstance(value, Call):
            self.save(value.function)
            self.save(tuple(value.arguments))
            self.write(pickle.REDUCE)
            if value.entries is not None:
                self._batch_setitems(value.entries.items())
            if value.state is not None:
                self.save(value.state)
                self.write(pickle.BUILD)
        else:
            super().save(value, save_persistent_id)


def pickled(value) -> bytes:
    stream = io.BytesIO()
    Pickler(stream, protocol=2).dump(value)
    return stream.getvalue()


def strides_of(shape) -> tuple[int, ...]:
    return tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))


def ordered(entries) -> Call:
    """An OrderedDict with module versions beside it, as model.state_dict() is."""
    return Call(
        Name("collections", "OrderedDict"), entries=entries, state={"_metadata": {"": {"version": 1}}}
    )


def tensor(storage: Storage, shape, offset=0, strides=None) -> Call:
    strides = strides_of(shape) if strides is None else strides
    hooks = Call(Name("collections", "OrderedDict"))
    rebuild = Name("torch._utils", "_rebuild_tensor_v2")
    return Call(rebuild, storage, offset, tuple(shape), tuple(strides), False, hooks)


def write_zip(path: Path, records: dict[str, bytes], folder: str = "archive", **options) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in records.items():
            archive.writestr(f"{folder}/{name}" if folder else name, data)
    return path


def records_of(arrays: dict[str, np.ndarray], wrap=lambda entries: entries) -> dict[str, bytes]:
    """The records of a torch file; ``wrap`` changes the object that is pickled."""
    records, entries = {}, {}
    for key, (name, array) in enumerate(arrays.items()):
        storage = Storage(CLASSES[array.dtype.name], str(key), array.size)
        entries[name] = tensor(storage, array.shape)
        records[f"data/{key}"] = np.ascontiguousarray(array).tobytes()
    return {"data.pkl": pickled(wrap(entries)), "byteorder": b"little", **records, "version": b"3\n"}


def write(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    return write_zip(path, records_of(arrays))


def small_trunk(**choices) -> TrunkConfig:
    """A few thousand numbers; keywords override."""
    sizes = {"latent": 8, "hidden": 10, "layers": 2, "head_hidden": 6, "confidence": True, "decoder": True}
    if choices.get("version") == "v2":
        sizes |= {"confidence": False, "repulsion": False, "output": "direct"}
    return TrunkConfig(**{**sizes, **choices})


def public_arrays(trunk: TrunkConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Random numbers under every public name of an architecture."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, shape in public_shapes(trunk).items():
        if name.endswith("num_batches_tracked"):
            arrays[name] = np.full(shape, 1000 + len(arrays), np.int64)
        elif name.endswith(("running_var", "layer_norm.weight")):
            arrays[name] = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        elif name.endswith("bessel_weights"):
            arrays[name] = (np.pi * np.arange(1, trunk.bessel + 1) / trunk.cutoff).astype(np.float32)
        elif name.endswith(("r_max", "prefactor")):
            value = trunk.cutoff if name.endswith("r_max") else np.sqrt(2 / trunk.cutoff)
            arrays[name] = np.array(value, np.float32)
        else:
            scale = shape[-1] ** -0.5 if len(shape) > 1 else 0.3
            arrays[name] = rng.normal(0, scale, shape).astype(np.float32)
    return arrays


def old_names(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Under the names of orb-models 0.4."""
    heads = {"heads.energy.": "graph_head.", "heads.forces.": "node_head.", "heads.stress.": "stress_head."}
    renamed = {}
    for name, array in arrays.items():
        prefix = next((p for p in heads if name.startswith(p)), None)
        renamed[heads[prefix] + name.removeprefix(prefix) if prefix else name] = array
    return renamed
