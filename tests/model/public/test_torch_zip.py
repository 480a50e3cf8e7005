"""Torch's files without torch: what is read is right, and nothing else gets through or is executed."""

from __future__ import annotations

import io
import pickle
import struct
import sys
import zipfile

import numpy as np
import pytest
from torch_files import Call, Name, Storage, ordered, pickled, records_of, tensor, write, write_zip

from lamkit.errors import UserError
from lamkit.model.public.torch_zip import TorchFile, write_torch

RNG = np.random.default_rng(0)
ARRAYS = {
    "matrix": RNG.normal(size=(3, 4)).astype(np.float32),
    "cube": RNG.normal(size=(2, 3, 5)),
    "scalar": np.array(2.5, np.float32),
    "empty": np.zeros((0, 3), np.float32),
    "count": np.array([7, -1, 1 << 40]),
}


def read(path) -> dict[str, np.ndarray]:
    with TorchFile(path) as file:
        return {name: array.load() for name, array in file.arrays.items()}


def assert_same(found, expected) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert np.array_equal(found[name], array)


# -- what is read --------------------------------------------------------------------------------------


def test_arrays_of_every_kind_are_read_as_they_were_saved(tmp_path):
    assert_same(read(write(tmp_path / "a.ckpt", ARRAYS)), ARRAYS)


def test_a_state_dict_with_module_versions_is_read(tmp_path):
    assert_same(read(write_zip(tmp_path / "a.ckpt", records_of(ARRAYS, ordered))), ARRAYS)


def test_what_lamkit_writes_is_what_it_reads(tmp_path):
    stream = io.BytesIO()
    write_torch(stream, ARRAYS, {"note.json": b"{}"})
    (tmp_path / "a.ckpt").write_bytes(stream.getvalue())
    assert_same(read(tmp_path / "a.ckpt"), ARRAYS)
    with TorchFile(tmp_path / "a.ckpt") as file:
        assert file.record("note.json") == b"{}"
        assert file.record("other.json") is None


def test_numbers_of_every_record_begin_at_a_multiple_of_64_bytes(tmp_path):
    # torch.load(mmap=True) needs that.
    stream = io.BytesIO()
    write_torch(stream, ARRAYS)
    with zipfile.ZipFile(stream) as archive:
        for info in archive.infolist():
            stream.seek(info.header_offset + 26)
            name, extra = struct.unpack("<HH", stream.read(4))
            assert (info.header_offset + 30 + name + extra) % 64 == 0


def test_a_transposed_view_of_a_shared_storage_is_read_in_its_own_order(tmp_path):
    data = np.arange(12, dtype=np.float32)
    storage = Storage("FloatStorage", "0", 12)
    entries = {"t": tensor(storage, (3, 2), offset=2, strides=(1, 4)), "row": tensor(storage, (4,), offset=8)}
    records = {"data.pkl": pickled(entries), "data/0": data.tobytes(), "version": b"3\n"}
    found = read(write_zip(tmp_path / "a.ckpt", records))
    assert np.array_equal(found["t"], [[2, 6], [3, 7], [4, 8]])
    assert np.array_equal(found["row"], [8, 9, 10, 11])


def test_half_precisions_are_widened_exactly(tmp_path):
    bits = np.array([0x3FC0, 0xC2F7, 0x0001], np.uint16)  # bfloat16: 1.5, -123.5, the smallest number
    halves = np.array([0.1, -65504.0, 6e-8], np.float16)
    found = read(write(tmp_path / "a.ckpt", {"b": bits, "h": halves}))
    assert np.array_equal(found["b"], np.array([1.5, -123.5, 2.0**-133], np.float32))
    assert np.array_equal(found["h"], halves.astype(np.float32))
    assert found["b"].dtype == found["h"].dtype == np.float32


# -- what is refused -----------------------------------------------------------------------------------


def refused(path) -> str:
    with pytest.raises(UserError) as error:
        read(path)
    assert str(path) in str(error.value)
    return str(error.value)


def test_a_call_of_a_system_command_is_refused_and_not_executed(tmp_path):
    victim = tmp_path / "victim"
    evil = Call(Name("os", "system"), f"touch {victim}")
    message = refused(
        write_zip(tmp_path / "a.ckpt", records_of(ARRAYS, lambda entries: {**entries, "x": evil}))
    )
    assert "os.system" in message
    assert "nothing of the file was executed" in message
    assert not victim.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"), ("posix", "system"), ("torch", "load"), ("torch._utils", "_rebuild_qtensor"),
        ("numpy.core.multiarray", "_reconstruct"), ("collections", "Counter"), ("torch.FloatStorage", "x"),
        ("collections.OrderedDict", "fromkeys"), ("lamkit.errors", "UserError"), ("", ""),
    ],
)  # fmt: skip
def test_every_name_that_weights_do_not_need_is_refused(tmp_path, module, name):
    call = Call(Name(module, name), "1")
    message = refused(
        write_zip(tmp_path / "a.ckpt", records_of(ARRAYS, lambda entries: {**entries, "x": call}))
    )
    assert "torch.save(model.state_dict(), FILE)" in message


def test_nothing_of_torch_is_imported(tmp_path):
    read(write(tmp_path / "a.ckpt", ARRAYS))
    assert "torch" not in sys.modules


class Evil:
    def __init__(self, victim) -> None:
        self.victim = victim

    def __reduce__(self):
        return (open, (str(self.victim), "w"))


@pytest.mark.parametrize("protocol", range(6))
def test_an_object_that_opens_a_file_when_unpickled_does_not(tmp_path, protocol):
    victim = tmp_path / "victim"
    write_zip(tmp_path / "a.ckpt", {"data.pkl": pickle.dumps(Evil(victim), protocol)})
    refused(tmp_path / "a.ckpt")
    assert not victim.exists()


FLOATS = {"data/0": b"\0" * 16}  # four of them


def one_tensor(shape, offset=0, strides=None, size=4, key="0", kind="FloatStorage"):
    return {"t": tensor(Storage(kind, key, size), shape, offset, strides)}


NOT_WEIGHTS = {
    "a list": ([1, 2], FLOATS, "holds a list"),
    "numbers among the tensors": ({"epoch": 3}, FLOATS, "epoch"),
    "a nested dictionary": ({"state": {"a": 1}}, FLOATS, "state"),
    "numbers as names": ({0: tensor(Storage("FloatStorage", "0", 4), (4,))}, FLOATS, "names and tensors"),
    "a shape beyond the storage": (one_tensor((5,)), FLOATS, "reaches beyond"),
    "an offset beyond the storage": (one_tensor((2,), 3), FLOATS, "reaches beyond"),
    "strides beyond the storage": (one_tensor((2, 2), 0, (3, 1)), FLOATS, "reaches beyond"),
    "a negative stride": (one_tensor((4,), 3, (-1,)), FLOATS, "not counts"),
    "a negative shape": (one_tensor((-4,)), FLOATS, "not counts"),
    "a negative offset": (one_tensor((4,), -1), FLOATS, "described wrongly"),
    "a shape of text": (one_tensor(("4",), 0, (1,)), FLOATS, "not counts"),
    "too many axes": (one_tensor((1,) * 9), FLOATS, "described wrongly"),
    "a storage larger than its record": (one_tensor((5,), size=5), FLOATS, "20 bytes are needed"),
    "a storage smaller than its record": (one_tensor((3,), size=3), FLOATS, "12 bytes are needed"),
    "a missing record": (one_tensor((4,), key="7"), FLOATS, "data/7 is missing"),
    "a path instead of a record": (one_tensor((4,), key="../../etc/passwd"), FLOATS, "is missing"),
    "an unknown storage": (one_tensor((4,), kind="ComplexFloatStorage"), FLOATS, "ComplexFloatStorage"),
    "one record a thousand times": (
        {f"t{i}": tensor(Storage("FloatStorage", "0", 4), (4,)) for i in range(1000)}
        | {"big": tensor(Storage("FloatStorage", "0", 4), (1 << 20, 1 << 20), 0, (0, 0))},
        FLOATS, "more than the file holds",
    ),
    "a tensor from nothing": ({"t": Call(Name("torch._utils", "_rebuild_tensor_v2"))}, FLOATS, "described wrongly"),
    "a tensor of text": ({"t": Call(Name("torch._utils", "_rebuild_tensor_v2"), *"abcdef")}, FLOATS, "wrongly"),
    "a filled dictionary": (Call(Name("collections", "OrderedDict"), {"a": 1}), FLOATS, "unknown form"),
    "a storage that is called": ({"t": Call(Name("torch", "FloatStorage"), 4)}, FLOATS, "no rebuilding function"),
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_WEIGHTS)
def test_a_file_of_something_else_than_weights_is_refused_with_the_reason(tmp_path, case):
    value, data, reason = NOT_WEIGHTS[case]
    assert reason in refused(write_zip(tmp_path / "a.ckpt", {"data.pkl": pickled(value), **data}))


def raw(*parts: bytes) -> dict[str, bytes]:
    return {"data.pkl": b"\x80\x02" + b"".join(parts)}


TEXT = b"X\x01\0\0\0a"
PROGRAMS = {
    "without an end": (raw(b"}"), "truncated"),
    "empty": ({"data.pkl": b""}, "truncated"),
    "an unknown instruction": (raw(b"\xff."), "damaged"),
    "an instruction cut off": (raw(b"X\xff\xff\xff\x7fabc"), "truncated"),
    "memory never written": (raw(b"h\x05."), "without its operand"),
    "an empty stack": (raw(b"\x85."), "without its operand"),
    "a collection without a mark": (raw(b"}u."), "without its operand"),
    "a mark as a value": (raw(b"(."), "missing on the stack"),
    "a value without a key": (raw(b"}(", TEXT, b"u."), "key without a value"),
    "one key twice": (raw(b"}(", TEXT, b"N", TEXT, b"Nu."), "stands twice"),
    "a tuple as a key": (raw(b"}()Nu."), "a tuple as a key"),
    "a new object": (raw(b"ccollections\nOrderedDict\n)\x81."), "NEWOBJ"),
    "an old-style instance": (raw(b"(icollections\nOrderedDict\n."), "INST"),
    "an extension code": (raw(b"\x82\x01."), "EXT1"),
    "a list in place of a dictionary": (raw(b"]", TEXT, b"Ns."), "is needed where a list stands"),
    "a reference to anything": (raw(TEXT, b"Q."), "not to a storage"),
    "a call of text": (raw(TEXT, b")R."), "no rebuilding function"),
}


@pytest.mark.parametrize("case", PROGRAMS)
def test_a_malformed_program_is_refused_with_the_reason(tmp_path, case):
    records, reason = PROGRAMS[case]
    assert reason in refused(write_zip(tmp_path / "a.ckpt", {**records, **FLOATS}))


def test_a_program_that_doubles_itself_costs_no_time_or_memory(tmp_path):
    # Tuples of the same tuple twice, sixty deep: 2**60 elements for whoever walks through them.
    doubled = b"".join(b"q%ch%c\x86" % (i, i) for i in range(60))
    refused(write_zip(tmp_path / "a.ckpt", raw(b")", doubled, b".")))
    refused(write_zip(tmp_path / "a.ckpt", raw(b"}(", b")", doubled, b"Nu.")))


def test_a_program_with_a_huge_memory_index_takes_no_memory(tmp_path):
    refused(write_zip(tmp_path / "a.ckpt", raw(b"Nr\xff\xff\xff\x7f.")))


def test_a_thousandfold_nesting_is_refused_not_a_crash(tmp_path):
    refused(write_zip(tmp_path / "a.ckpt", raw(b")" + b"\x85" * 100_000 + b".")))


# -- the archive ---------------------------------------------------------------------------------------


def good() -> dict[str, bytes]:
    return records_of(ARRAYS)


def test_compressed_records_are_refused_so_that_nothing_grows(tmp_path):
    path = write_zip(tmp_path / "a.ckpt", good(), compression=zipfile.ZIP_DEFLATED)
    assert "compressed" in refused(path)


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "archive/../evil", "archive//evil", "archive/a\\b", "elsewhere/x"]
)
def test_records_outside_of_the_folder_are_refused(tmp_path, name):
    path = write_zip(tmp_path / "a.ckpt", good())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"x")
    assert "outside of the archive's one folder" in refused(path)


def test_two_records_of_one_name_are_refused(tmp_path):
    path = write_zip(tmp_path / "a.ckpt", good())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("archive/data/0", b"\0" * 48)
    assert "two records of one name" in refused(path)


def test_big_endian_files_are_refused(tmp_path):
    assert "byte order" in refused(write_zip(tmp_path / "a.ckpt", {**good(), "byteorder": b"big"}))


def test_two_programs_are_refused(tmp_path):
    path = write_zip(tmp_path / "a.ckpt", good())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other/data.pkl", b"x")
    assert "not one of torch.save" in refused(path)


def test_a_torchscript_program_is_named(tmp_path):
    assert "TorchScript" in refused(write_zip(tmp_path / "a.ckpt", {**good(), "constants.pkl": b"x"}))


def test_a_numpy_archive_is_named(tmp_path):
    np.savez(tmp_path / "a.npz", **ARRAYS)
    assert "numpy's .npz" in refused(tmp_path / "a.npz")


FOREIGN = {
    b"": "empty",
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.": "torch before 1.6",
    b"\x80\x04]\x94.": "bare pickle",
    b"<!DOCTYPE html><html>": "web page",
    b"<?xml version='1.0'?><Error><Code>AccessDenied</Code>": "web page",
    b"version https://git-lfs.github.com/spec/v1\n": "git-lfs",
    b"\0" * 257 + b"ustar\x0000" + b"\0" * 300: "tar archive",
    b"hello": "not a file of torch.save",
    b"PK\x03\x04": "damaged, truncated",
}


@pytest.mark.parametrize("content", FOREIGN, ids=FOREIGN.values())
def test_a_file_that_is_no_torch_file_is_called_by_its_name(tmp_path, content):
    (tmp_path / "a.ckpt").write_bytes(content)
    assert FOREIGN[content] in refused(tmp_path / "a.ckpt")


# -- fuzzing -------------------------------------------------------------------------------------------


def survives(path, content: bytes) -> bool:
    """Read a damaged file: the right numbers or a user error; returns whether it was read."""
    path.write_bytes(content)
    try:
        found = read(path)
    except UserError:
        return False
    assert_same(found, ARRAYS)
    return True


def test_a_file_truncated_anywhere_is_refused(tmp_path):
    content = write(tmp_path / "a.ckpt", ARRAYS).read_bytes()
    for end in range(len(content)):
        assert not survives(tmp_path / "b.ckpt", content[:end]), f"cut to {end} bytes of {len(content)}"


@pytest.mark.parametrize("writer", ["python", "lamkit"])
def test_a_changed_byte_is_noticed_or_without_effect(tmp_path, writer):
    path = write(tmp_path / "a.ckpt", ARRAYS)
    if writer == "lamkit":
        with open(path, "wb") as stream:
            write_torch(stream, ARRAYS)
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(1)
    for place in range(len(content)):
        old = content[place]
        content[place] = old ^ int(rng.integers(1, 256))
        survives(tmp_path / "b.ckpt", bytes(content))
        content[place] = old


def test_numbers_changed_in_the_data_are_always_noticed(tmp_path):
    content = bytearray(write(tmp_path / "a.ckpt", ARRAYS).read_bytes())
    start = content.find(ARRAYS["matrix"].tobytes())
    for place in range(start, start + 48):
        content[place] ^= 1
        assert not survives(tmp_path / "b.ckpt", bytes(content))
        content[place] ^= 1


def test_many_changed_bytes_end_in_a_user_error(tmp_path):
    content = write(tmp_path / "a.ckpt", ARRAYS).read_bytes()
    rng = np.random.default_rng(2)
    for _ in range(400):
        damaged = bytearray(content)
        for _ in range(int(rng.integers(2, 30))):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        survives(tmp_path / "b.ckpt", bytes(damaged))


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_a_program_changed_under_a_valid_checksum_gives_arrays_or_a_user_error(tmp_path):
    # Whoever writes a hostile file writes the checksum that fits.
    records = good()
    rng = np.random.default_rng(3)
    program = records["data.pkl"]
    for _ in range(1500):
        changed = bytearray(program)
        for _ in range(int(rng.integers(1, 5))):
            changed[rng.integers(len(changed))] = rng.integers(256)
        write_zip(tmp_path / "b.ckpt", {**records, "data.pkl": bytes(changed)})
        try:
            found = read(tmp_path / "b.ckpt")
        except UserError:
            continue
        assert sum(a.nbytes for a in found.values()) < 10_000
