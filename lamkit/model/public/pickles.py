"""The pickle inside a torch file, interpreted without executing anything.

Pickle is a program for a small stack machine. Python's own interpreter calls whatever the program names; this
one knows the few instructions that ``torch.save`` emits for a dictionary of tensors, and for every name that
such a program may call a function of its own that only notes what is asked for. All else is refused.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lamkit.errors import UserError
from lamkit.model.public.arrays import shown

# Storage classes of torch → element type in the file. bfloat16 is the upper half of a float32.
STORAGES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "i1", "ByteStorage": "u1",
    "BoolStorage": "?",
}  # fmt: skip
MAX_RANK = 8
MAX_BYTES = 1 << 26  # of the program; a dictionary of a thousand tensors takes 0.1 MB


@dataclass(frozen=True)
class Storage:
    """A run of numbers in the file.

    Attributes:
        dtype: element type, little-endian, or ``bfloat16``.
        key: name of the record that holds it.
        size: number of elements.
    """

    dtype: str
    key: str
    size: int

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class TensorView:
    """A tensor: which elements of a storage, in which order.

    Attributes:
        storage: where its numbers are.
        offset: first element.
        shape: its shape.
        strides: step of each axis, in elements.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Global:
    """A name that the program may use; only this module gives it a meaning."""

    module: str
    name: str


class _Mark:
    """Place on the stack from which a later instruction collects."""


def interpret(data: bytes, where: str) -> Any:
    """The object that a pickle describes: dictionaries, lists, tuples, numbers, text and tensors.

    Args:
        data: the pickle.
        where: file and record, for messages.

    Returns:
        The object, tensors as :class:`TensorView`.

    Raises:
        UserError: it is damaged, or names or does something that no file of weights needs.
    """
    if len(data) > MAX_BYTES:
        raise UserError(f"{where}: {len(data)} bytes of program; a file of weights needs far fewer")
    machine = _Machine(where)
    for name, argument, position in _instructions(data, where):
        step = _STEPS.get(name)
        if step is None:
            raise UserError(
                f"{where}: instruction {name} at byte {position} is not used by files of weights; "
                "nothing of the file was executed"
            )
        try:
            step(machine, argument)
        except (IndexError, KeyError) as error:
            raise UserError(
                f"{where}: damaged at byte {position} ({name} without its operand: {shown(str(error))})"
            ) from None
        if name == "STOP":
            break
    return machine.result


def _instructions(data: bytes, where: str) -> Iterator[tuple[str, Any, int]]:
    stream = pickletools.genops(data)
    while True:
        try:
            opcode, argument, position = next(stream)
        except StopIteration:
            return
        except (ValueError, OverflowError) as error:
            raise UserError(f"{where}: damaged or truncated ({shown(str(error))})") from None
        yield opcode.name, argument, position or 0


class _Machine:
    """Stack and memory of the interpreter."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}
        self.result: Any = None

    def refuse(self, reason: str) -> UserError:
        """The error to raise."""
        return UserError(f"{self.where}: {reason}; nothing of the file was executed")

    def push(self, value: Any) -> None:
        """Put on the stack."""
        self.stack.append(value)

    def take(self) -> Any:
        """Take from the stack a value that is no mark."""
        value = self.stack.pop()
        if isinstance(value, _Mark):
            raise self.refuse("damaged (a value is missing on the stack)")
        return value

    def collect(self) -> list[Any]:
        """Take everything down to the last mark."""
        values = []
        while not isinstance(value := self.stack.pop(), _Mark):
            values.append(value)
        return values[::-1]

    def top(self, kind: type) -> Any:
        """The value on top, which must be of ``kind``."""
        value = self.stack[-1]
        if not isinstance(value, kind):
            raise self.refuse(f"a {kind.__name__} is needed where a {type(value).__name__} stands")
        return value

    def store(self, items: list[Any]) -> None:
        """Put keys and values into the dictionary on top."""
        target = self.top(dict)
        if len(items) % 2:
            raise self.refuse("damaged (a key without a value)")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, int)):
                raise self.refuse(f"a dictionary has a {type(key).__name__} as a key")
            if key in target:
                raise self.refuse(f"the key {shown(key)} stands twice in a dictionary")
            target[key] = value

    def name(self, module: str, name: str) -> None:
        """A global name; only those that this module gives a meaning."""
        found = _Global(module, name)
        if found not in _CALLS and not (module == "torch" and name in STORAGES):
            raise self.refuse(
                f"names {shown(f'{module}.{name}')}, which no file of plain weights does; "
                "save the state dict alone: torch.save(model.state_dict(), FILE)"
            )
        self.push(found)

    def persistent(self) -> None:
        """A storage: ('storage', class, key, device, number of elements)."""
        value = self.take()
        if not isinstance(value, tuple) or len(value) != 5 or value[0] != "storage":
            raise self.refuse("a reference that is not to a storage of numbers")
        _, kind, key, device, size = value
        known = isinstance(kind, _Global) and kind.name in STORAGES
        if not known or not isinstance(key, str) or not isinstance(device, str) or not _count(size):
            raise self.refuse("a storage of numbers is described wrongly")
        self.push(Storage(STORAGES[kind.name], key, size))

    def call(self) -> None:
        """Our own function for a name that the program calls."""
        arguments, function = self.take(), self.take()
        if not isinstance(function, _Global) or function not in _CALLS or not isinstance(arguments, tuple):
            raise self.refuse("calls something that is no rebuilding function of torch")
        self.push(_CALLS[function](self, *arguments[:8]))

    def build(self) -> None:
        """Attributes of a dictionary (torch keeps version numbers of modules there): of no use here."""
        self.take()
        self.top(dict)


def _ordered(machine: _Machine, *arguments: Any) -> dict[Any, Any]:
    if arguments:
        raise machine.refuse("an OrderedDict with contents in an unknown form")
    return {}


def _tensor(machine: _Machine, *arguments: Any) -> TensorView:
    """From storage, offset, shape, strides and flags without meaning here; bounds are checked."""
    if len(arguments) < 4:
        raise machine.refuse("a tensor is described wrongly")
    storage, offset, shape, strides = arguments[:4]
    counts = isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides)
    if not isinstance(storage, Storage) or not counts or not _count(offset) or len(shape) > MAX_RANK:
        raise machine.refuse("a tensor is described wrongly")
    if not all(_count(n) for n in (*shape, *strides)):
        raise machine.refuse("a tensor has a shape or strides that are not counts")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if 0 not in shape and last >= storage.size:
        raise machine.refuse(
            f"a tensor of shape {shape} with strides {strides} from element {offset} on reaches beyond its "
            f"storage of {storage.size} elements"
        )
    return TensorView(storage, offset, shape, strides)


def _parameter(machine: _Machine, *arguments: Any) -> TensorView:
    if not arguments or not isinstance(arguments[0], TensorView):
        raise machine.refuse("a parameter without a tensor")
    return arguments[0]


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


_CALLS: dict[_Global, Callable[..., Any]] = {
    _Global("collections", "OrderedDict"): _ordered,
    _Global("torch._utils", "_rebuild_tensor_v2"): _tensor,
    _Global("torch._utils", "_rebuild_parameter"): _parameter,
}


def _constant(value: Any) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.push(value)


def _argument(machine: _Machine, argument: Any) -> None:
    machine.push(argument)


def _tuple(size: int) -> Callable[[_Machine, Any], None]:
    def step(machine: _Machine, _: Any) -> None:
        values = [machine.take() for _ in range(size)]
        machine.push(tuple(values[::-1]))

    return step


def _remember(machine: _Machine, argument: Any) -> None:
    index = len(machine.memory) if argument is None else argument
    machine.memory[index] = machine.stack[-1]


def _append(machine: _Machine, items: list[Any]) -> None:
    machine.top(list).extend(items)


def _global(machine: _Machine, argument: str) -> None:
    machine.name(*argument.split(" ", 1))


def _stack_global(machine: _Machine, _: Any) -> None:
    name, module = machine.take(), machine.take()
    if not isinstance(name, str) or not isinstance(module, str):
        raise machine.refuse("a global name that is not text")
    machine.name(module, name)


def _set_item(machine: _Machine, _: Any) -> None:
    value, key = machine.take(), machine.take()
    machine.store([key, value])


def _append_one(machine: _Machine, _: Any) -> None:
    item = machine.take()
    _append(machine, [item])


def _stop(machine: _Machine, _: Any) -> None:
    machine.result = machine.take()


_NUMBERS_AND_TEXT = (
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
)  # fmt: skip
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "STOP": _stop,
    **dict.fromkeys(_NUMBERS_AND_TEXT, _argument),
    "NONE": _constant(None),
    "NEWTRUE": _constant(True),
    "NEWFALSE": _constant(False),
    "MARK": lambda machine, _: machine.push(_Mark()),
    "EMPTY_TUPLE": _constant(()),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.collect())),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "BINPUT": _remember,
    "LONG_BINPUT": _remember,
    "MEMOIZE": _remember,
    "BINGET": lambda machine, index: machine.push(machine.memory[index]),
    "LONG_BINGET": lambda machine, index: machine.push(machine.memory[index]),
    "SETITEM": _set_item,
    "SETITEMS": lambda machine, _: machine.store(machine.collect()),
    "APPEND": _append_one,
    "APPENDS": lambda machine, _: _append(machine, machine.collect()),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": lambda machine, _: machine.call(),
    "BINPERSID": lambda machine, _: machine.persistent(),
    "BUILD": lambda machine, _: machine.build(),
}
