"""Interpret the pickle in a joblib file, without running what is in it.

A pickle is a program for a stack machine. This is another machine for the same programs: it knows the
instructions that build numbers, texts, lists and dicts, and none that calls. What a pickle may name, and what
stands for it, is in pickle_values.py; any other name or instruction ends the reading.

Instructions: the standard library's `pickletools`. Arrays: joblib writes a `NumpyArrayWrapper` with dtype,
shape and order and then, straight into the stream, the number of padding bytes (one byte), the padding, and
the values; joblib before 1.2 has no padding. Arrays of objects follow as a pickle of their own.
"""

from __future__ import annotations

import io
import math
import pickletools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from training.pickle_values import (
    CALLS,
    CLASSES,
    DTYPE,
    NAMES,
    NDARRAY,
    WRAPPER,
    DType,
    Instance,
    Name,
    PickleError,
    are_names,
    described,
)

MAX_INSTRUCTIONS = 1_000_000  # a probe of 43 classes takes 4,000
MAX_DIMENSIONS = 4
MAX_SIDE = 1 << 28


class _ObjectArray:
    """An array of objects; shape and values come in a second instruction."""


def run(stream: io.BytesIO) -> Any:
    """The value that a pickle with joblib's arrays builds; the stream is then right behind its end.

    Raises:
        PickleError: damaged, or it names or does what is not on the lists.
    """
    try:
        return _Machine(stream).run()
    except PickleError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, MemoryError) as error:
        raise PickleError(f"it is damaged, or not a joblib file ({str(error)[:200]})") from error


class _Machine:
    """Stack, marks and memo of one pickle."""

    def __init__(self, stream: io.BytesIO, *, nested: bool = False) -> None:
        self.stream = stream
        self.nested = nested
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each MARK
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        # A text with a backslash that escapes nothing is no business of whoever reads what is printed.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self._follow()
        if len(self.stack) != 1 or self.below:
            raise PickleError("it is damaged: it does not end with one value")
        return self.stack.pop()

    def _follow(self) -> None:
        for count, (instruction, argument, _) in enumerate(pickletools.genops(self.stream)):
            name = instruction.name
            if count > MAX_INSTRUCTIONS:
                raise PickleError(f"it has more than {MAX_INSTRUCTIONS} instructions; no probe is that long")
            if name in _VALUES:
                self.stack.append(argument)
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name]())
            elif name in _STEPS:
                _STEPS[name](self, argument)
            elif name not in ("PROTO", "FRAME", "STOP"):
                raise PickleError(f"it has the pickle instruction {name}, which a linear probe does not need")

    def mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def above_mark(self) -> list[Any]:
        values, self.stack = self.stack, self.below.pop()
        return values

    def pop(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise PickleError("it is damaged: it takes from an empty stack")
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    def push_tuple(self, values: list[Any]) -> None:
        self.stack.append((*values,))

    def append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise PickleError(f"it appends to {described(target)}")
        target.extend(values)

    def set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict:
            raise PickleError(f"it sets items of {described(target)}")
        for key, value in zip(values[::2], values[1::2], strict=True):
            # Hashing a tuple of tuples of tuples can take for ever.
            if type(key) not in (str, int, float, bool):
                raise PickleError(f"it has a dict with a key of type {described(key)}")
            target[key] = value

    def memoize(self, index: int | None) -> None:
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def recall(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def name(self, argument: str | None) -> None:
        # STACK_GLOBAL has module and name on the stack, GLOBAL in its argument, with a space between.
        module, name = self.pop(2) if argument is None else argument.split(" ", 1)
        if type(module) is not str or type(name) is not str:
            raise PickleError("it is damaged: it names a class with something that is no text")
        path = f"{module}.{name}"
        if path not in NAMES:
            raise PickleError(f"it names {path[:200]!r}, which a linear probe does not need")
        self.stack.append(Name(path))

    def new(self, _: Any) -> None:
        cls, arguments = self.pop(2)
        if not isinstance(cls, Name) or cls.path not in CLASSES or arguments != ():
            raise PickleError(f"it makes an object of {described(cls)} as no linear probe does")
        self.stack.append(Instance(cls.path))

    def call(self, _: Any) -> None:
        function, arguments = self.pop(2)
        match CALLS.get(function.path) if isinstance(function, Name) else None, arguments:
            case "dtype", (str(code), *_) if DTYPE.fullmatch(code):
                self.stack.append(DType(code))
            case "scalar", (DType() as dtype, bytes(raw)) if not dtype.holds_objects:
                self.stack.append(np.frombuffer(raw, dtype.numpy(), 1)[0].item())
            case "array", (Name(path="numpy.ndarray"), (0,), b"b") if self.nested:
                self.stack.append(_ObjectArray())
            case "bytes", (str(text), "latin1"):
                self.stack.append(text.encode("latin1"))
            case _:
                raise PickleError(f"it calls {described(function)} as no linear probe does")

    def build(self, _: Any) -> None:
        target, state = self.pop(2)
        match target, state:
            case Instance(), dict() if all(type(key) is str for key in state):
                target.attributes.update(state)
                self.stack.append(self.array(target.attributes) if target.kind == WRAPPER else target)
            case DType(), (int(), "<" | ">" | "|" | "=" as order, None, None, None, *_):
                target.order = order
                self.stack.append(target)
            case _ObjectArray(), (int(), (int(count),), DType(), bool(), list(texts)):
                if len(texts) != count or not are_names(texts):
                    raise PickleError("it holds an array of objects that are not names of classes")
                self.stack.append(np.array(texts, dtype=np.str_))
            case _:
                raise PickleError(f"it sets the state of {described(target)} as no linear probe does")

    def array(self, wrapper: Mapping[str, Any]) -> npt.NDArray[Any]:
        """The array whose wrapper has just been built; its values come next in the stream."""
        shape, order, dtype = wrapper["shape"], wrapper["order"], wrapper["dtype"]
        if wrapper["subclass"] != Name(NDARRAY) or order not in ("C", "F") or not isinstance(dtype, DType):
            raise PickleError("it holds an array of another class than numpy.ndarray")
        if (
            type(shape) is not tuple
            or len(shape) > MAX_DIMENSIONS
            or not all(type(side) is int and 0 <= side <= MAX_SIDE for side in shape)
        ):
            raise PickleError("it holds an array of an impossible shape")
        if dtype.holds_objects:
            return self.names(shape)
        if wrapper.get("numpy_array_alignment_bytes") is not None:
            self.stream.seek(self.stream.read(1)[0], io.SEEK_CUR)
        expected = math.prod(shape) * dtype.numpy().itemsize
        if expected > (left := len(self.stream.getbuffer()) - self.stream.tell()):
            raise PickleError(
                f"it ends within an array: shape {shape} takes {expected} bytes, {left} are left"
            )
        values = np.frombuffer(self.stream.read(expected), dtype.numpy()).reshape(shape, order=order)
        return values.astype(values.dtype.newbyteorder("="))

    def names(self, shape: tuple[int, ...]) -> npt.NDArray[np.str_]:
        """An array of objects: a pickle of its own, of which only an array of texts is taken."""
        if self.nested:
            raise PickleError("it holds arrays of objects within each other")
        values = _Machine(self.stream, nested=True).run()
        if not isinstance(values, np.ndarray) or values.shape != shape:
            raise PickleError(f"it holds an array of objects that has not its shape, {shape}")
        return values


_VALUES = frozenset(
    {
        *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
    }
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "TUPLE": lambda machine, _: machine.push_tuple(machine.above_mark()),
    "TUPLE1": lambda machine, _: machine.push_tuple(machine.pop(1)),
    "TUPLE2": lambda machine, _: machine.push_tuple(machine.pop(2)),
    "TUPLE3": lambda machine, _: machine.push_tuple(machine.pop(3)),
    "APPEND": lambda machine, _: machine.append(machine.pop(1)),
    "APPENDS": lambda machine, _: machine.append(machine.above_mark()),
    "SETITEM": lambda machine, _: machine.set_items(machine.pop(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.above_mark()),
    "MEMOIZE": _Machine.memoize,
    "BINPUT": _Machine.memoize,
    "LONG_BINPUT": _Machine.memoize,
    "BINGET": _Machine.recall,
    "LONG_BINGET": _Machine.recall,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.name,
    "NEWOBJ": _Machine.new,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
}
