"""Numbers out of a joblib file without unpickling it: no code of the file is ever run.

Interprets the data part of the pickle protocol (pickletools documents each opcode). A class is kept as its name, an
object as `Thing(name, state)`; what would call a function is only written down. Array bytes follow their header in
the stream, as joblib 0.10 and later write them, and become numpy arrays of plain numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_ARRAY = "joblib.numpy_pickle.NumpyArrayWrapper"
_MARK = object()


@dataclass(slots=True)
class Thing:
    """What an object would have been: the name of its class and what it was given."""

    name: str
    args: tuple[Any, ...] = ()
    state: dict[str, Any] = field(default_factory=dict)


class NotInert(Exception):
    """The file is not of the form that is read here."""


def read_inert(data: bytes) -> Any:
    """The object graph of a joblib or pickle file, as plain values and Things. Raises NotInert."""
    try:
        return _Reader(data).read()
    except (IndexError, KeyError, TypeError, AttributeError, struct.error, UnicodeDecodeError, ValueError) as e:
        raise NotInert(f"not the form that is read here: {e}") from e


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.stack: list[Any] = []
        self.memo: list[Any] = []
        self.result: Any = None

    def read(self) -> Any:
        while True:
            code = self.take(1)
            if code == b".":
                return self.stack.pop()
            step = _STEPS.get(code)
            if step is None:
                raise NotInert(f"opcode {code!r} at byte {self.at - 1}")
            step(self)

    def take(self, n: int) -> bytes:
        piece = self.data[self.at : self.at + n]
        if len(piece) < n:
            raise NotInert("the file ends early")
        self.at += n
        return piece

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def since_mark(self) -> list[Any]:
        found: list[Any] = []
        while (value := self.stack.pop()) is not _MARK:
            found.append(value)
        return found[::-1]

    def build(self) -> None:
        state = self.stack.pop()
        thing = self.stack[-1]
        if isinstance(thing, Thing):
            thing.state = state if isinstance(state, dict) else {"": state}
            if thing.name == _ARRAY:
                self.stack[-1] = array = self.array(thing.state)
                self.memo = [array if m is thing else m for m in self.memo]

    def array(self, wrapper: dict[str, Any]) -> Any:
        dtype = wrapper["dtype"]
        plain = np.dtype(dtype.args[0] if isinstance(dtype, Thing) else str(dtype))
        if plain.hasobject:
            raise NotInert("an array of objects")
        if wrapper.get("numpy_array_alignment_bytes") is not None:
            self.take(self.take(1)[0])
        shape = tuple(int(n) for n in wrapper["shape"])
        count = int(np.prod(shape, dtype=np.int64))
        return np.frombuffer(self.take(count * plain.itemsize), plain).reshape(shape, order=wrapper["order"])

    def set_items(self, pairs: list[Any]) -> None:
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            self.stack[-1][key] = value

    def global_name(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.push(f"{module}.{name}")

    def call(self) -> None:
        args, name = self.stack.pop(), self.stack.pop()
        scalar = name.endswith("multiarray.scalar") and isinstance(args[1], bytes)
        self.push(np.frombuffer(args[1], args[0].args[0])[0].item() if scalar else Thing(str(name), tuple(args)))

    def tuple_of(self, n: int) -> None:
        values = tuple(self.stack[-n:])
        del self.stack[-n:]
        self.push(values)

    def long(self) -> None:
        n = self.take(1)[0]
        self.push(int.from_bytes(self.take(n), "little", signed=True))

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1][key] = value

    def append(self) -> None:
        value = self.stack.pop()
        self.stack[-1].append(value)

    def appends(self) -> None:
        values = self.since_mark()
        self.stack[-1].extend(values)


_STEPS: dict[bytes, Callable[[_Reader], Any]] = {
    b"\x80": lambda r: r.take(1),  # PROTO
    b"\x95": lambda r: r.take(8),  # FRAME
    b"\x8c": lambda r: r.push(r.take(r.take(1)[0]).decode("utf-8")),  # SHORT_BINUNICODE
    b"X": lambda r: r.push(r.take(r.number("<I")).decode("utf-8")),  # BINUNICODE
    b"C": lambda r: r.push(r.take(r.take(1)[0])),  # SHORT_BINBYTES
    b"B": lambda r: r.push(r.take(r.number("<I"))),  # BINBYTES
    b"\x94": lambda r: r.memo.append(r.stack[-1]),  # MEMOIZE
    b"h": lambda r: r.push(r.memo[r.take(1)[0]]),  # BINGET
    b"j": lambda r: r.push(r.memo[r.number("<I")]),  # LONG_BINGET
    b"\x93": lambda r: r.global_name(),  # STACK_GLOBAL
    b"\x81": lambda r: r.call(),  # NEWOBJ
    b"R": lambda r: r.call(),  # REDUCE
    b"b": lambda r: r.build(),  # BUILD
    b"(": lambda r: r.push(_MARK),  # MARK
    b"0": lambda r: r.stack.pop(),  # POP
    b")": lambda r: r.push(()),  # EMPTY_TUPLE
    b"t": lambda r: r.push(tuple(r.since_mark())),  # TUPLE
    b"\x85": lambda r: r.tuple_of(1),
    b"\x86": lambda r: r.tuple_of(2),
    b"\x87": lambda r: r.tuple_of(3),
    b"}": lambda r: r.push({}),  # EMPTY_DICT
    b"s": lambda r: r.set_item(),  # SETITEM
    b"u": lambda r: r.set_items(r.since_mark()),  # SETITEMS
    b"]": lambda r: r.push([]),  # EMPTY_LIST
    b"a": lambda r: r.append(),  # APPEND
    b"e": lambda r: r.appends(),  # APPENDS
    b"N": lambda r: r.push(None),
    b"\x88": lambda r: r.push(True),
    b"\x89": lambda r: r.push(False),
    b"K": lambda r: r.push(r.take(1)[0]),  # BININT1
    b"M": lambda r: r.push(r.number("<H")),  # BININT2
    b"J": lambda r: r.push(r.number("<i")),  # BININT
    b"\x8a": lambda r: r.long(),  # LONG1
    b"G": lambda r: r.push(r.number(">d")),  # BINFLOAT
}
