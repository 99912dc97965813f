"""Pickles of plain data, read by an interpreter that knows no way to run code.

`pickle.Unpickler` with a `find_class` of one's own would still allocate what BYTEARRAY8 or LONG_BINPUT declare, build
objects that contain themselves, and apply BUILD to anything. The opcodes that plain data needs are few, so they are
interpreted here, and every other one is refused: `torch.load(weights_only=True)` made the same choice.
"""

import pickle
from collections.abc import Callable, Mapping
from typing import Any

from moeopt.pickle_machine import CONTAINERS, KEPT, LINE, Budget, Machine, Named

STEP, BATCH = 64, 4096  # bytes charged for an opcode; opcodes between two charges
INTEGER = 8  # bytes
OPCODES = {value[0]: name for name, value in vars(pickle).items() if type(value) is bytes and len(value) == 1}


def read_pickle(
    program: bytes,
    *,
    names: Mapping[str, Any],
    persistent: Callable[[Any], Any],
    budget: Budget,
) -> Any:
    """The value of a pickle of None, bool, int of 64 bits, float, str, list, tuple and dict, and of what is in `names`.

    `names`: "module.name" -> the value it stands for, or a `Named`; `persistent` answers persistent ids. Keys are str
    or int; a container may be shared, but not contain itself. ValueError names what was found instead.
    """
    machine = Machine(program, names, persistent, budget)
    done = 0
    while (code := machine.take(1)[0]) != pickle.STOP[0]:
        if done % BATCH == 0:
            budget.charge(STEP * BATCH if done else 0)
        done += 1
        if (step := STEPS.get(code)) is None:
            raise ValueError(
                f"byte {machine.at - 1}: opcode {OPCODES.get(code, '?')} (0x{code:02x}) has no place in plain data"
            )
        step(machine)
    if len(machine.stack) != 1 or machine.below:
        raise ValueError(f"a pickle ends with one value, found {len(machine.stack)}")
    if left := len(program) - machine.at:
        raise ValueError(f"a pickle ends at its STOP, found {left} bytes after it")
    return machine.stack[0]


def _proto(machine: Machine) -> None:
    if not 2 <= (found := machine.take(1)[0]) <= 5:
        raise ValueError(f"the pickle protocol must be 2 to 5, found {found}")


def _frame(machine: Machine) -> None:
    if (size := machine.number("<Q")) > (left := len(machine.program) - machine.at):
        raise ValueError(f"truncated pickle: a frame of {size} bytes, found {left}")


def _mark(machine: Machine) -> None:
    machine.budget.charge(KEPT)
    machine.below.append(machine.stack)
    machine.stack = []


def _constant(value: Any) -> Callable[[Machine], None]:
    return lambda machine: machine.stack.append(value)


def _number(form: str) -> Callable[[Machine], None]:
    return lambda machine: machine.stack.append(machine.number(form))


def _long(machine: Machine) -> None:
    if (size := machine.take(1)[0]) > INTEGER:
        raise ValueError(f"a whole number may have {INTEGER} bytes, found {size}")
    machine.stack.append(int.from_bytes(machine.take(size), "little", signed=True))


def _text(form: str) -> Callable[[Machine], None]:
    def step(machine: Machine) -> None:
        text = machine.take(machine.number(form)).decode("utf-8", "surrogatepass")
        machine.budget.charge(4 * len(text))
        machine.stack.append(text)

    return step


def _empty(kind: type) -> Callable[[Machine], None]:
    return lambda machine: machine.build(kind())


def _tuple(size: int) -> Callable[[Machine], None]:
    def step(machine: Machine) -> None:
        machine.build(tuple([machine.pop() for _ in range(size)][::-1]))

    return step


def _tuple_of_marked(machine: Machine) -> None:
    machine.build(tuple(machine.marked()))


def _append(machine: Machine) -> None:
    _extended(machine, [machine.pop()])


def _appends(machine: Machine) -> None:
    _extended(machine, machine.marked())


def _extended(machine: Machine, items: list[Any]) -> None:
    into = machine.target(list)
    into.extend(items)
    machine.adopt(into, items)


def _set_item(machine: Machine) -> None:
    _updated(machine, [machine.pop(), machine.pop()][::-1])


def _set_items(machine: Machine) -> None:
    _updated(machine, machine.marked())


def _updated(machine: Machine, items: list[Any]) -> None:
    into = machine.target(dict)
    if len(items) % 2:
        raise ValueError("keys and values must come in pairs, found one alone")
    for key in items[::2]:
        if not isinstance(key, str | int):  # others take long to hash, or collide
            raise ValueError(f"a key must be str or int, found {type(key).__name__}")
    machine.budget.charge(KEPT * len(items))
    into.update(zip(items[::2], items[1::2], strict=True))
    machine.adopt(into, items[1::2])


def _put(form: str) -> Callable[[Machine], None]:
    return lambda machine: _remember(machine, machine.number(form))


def _memoize(machine: Machine) -> None:
    _remember(machine, len(machine.memo))


def _remember(machine: Machine, index: int) -> None:
    machine.budget.charge(KEPT)
    value = machine.pop()
    machine.memo[index] = value
    machine.stack.append(value)


def _get(form: str) -> Callable[[Machine], None]:
    def step(machine: Machine) -> None:
        if (index := machine.number(form)) not in machine.memo:
            raise ValueError(f"memo entry {index} is used before it is there")
        value = machine.memo[index]
        if type(value) in CONTAINERS:
            machine.shared.add(id(value))
        machine.stack.append(value)

    return step


def _global(machine: Machine) -> None:
    machine.name(f"{machine.line()}.{machine.line()}")


def _stack_global(machine: Machine) -> None:
    name, module = machine.pop(str), machine.pop(str)
    machine.name(f"{module:.{LINE}}.{name:.{LINE}}")


def _persistent(machine: Machine) -> None:
    machine.build(machine.persistent(machine.pop()))


def _reduce(machine: Machine) -> None:
    arguments, function = machine.pop(tuple), machine.pop()
    if not isinstance(function, Named) or function.call is None:
        found = function.name if isinstance(function, Named) else type(function).__name__
        raise ValueError(f"only what makes a tensor, a size or a dict may be called, found {found}")
    try:
        machine.build(function.call(*arguments))
    except TypeError as error:
        raise ValueError(f"{function.name} takes no {len(arguments)} arguments of these types") from error


STEPS: dict[int, Callable[[Machine], None]] = {
    code[0]: step
    for code, step in {
        pickle.PROTO: _proto,
        pickle.FRAME: _frame,
        pickle.MARK: _mark,
        pickle.NONE: _constant(None),
        pickle.NEWTRUE: _constant(True),
        pickle.NEWFALSE: _constant(False),
        pickle.BININT: _number("<i"),
        pickle.BININT1: _number("<B"),
        pickle.BININT2: _number("<H"),
        pickle.LONG1: _long,
        pickle.BINFLOAT: _number(">d"),
        pickle.SHORT_BINUNICODE: _text("<B"),
        pickle.BINUNICODE: _text("<I"),
        pickle.BINUNICODE8: _text("<Q"),
        pickle.EMPTY_LIST: _empty(list),
        pickle.EMPTY_DICT: _empty(dict),
        pickle.EMPTY_TUPLE: _empty(tuple),
        pickle.TUPLE1: _tuple(1),
        pickle.TUPLE2: _tuple(2),
        pickle.TUPLE3: _tuple(3),
        pickle.TUPLE: _tuple_of_marked,
        pickle.APPEND: _append,
        pickle.APPENDS: _appends,
        pickle.SETITEM: _set_item,
        pickle.SETITEMS: _set_items,
        pickle.BINPUT: _put("<B"),
        pickle.LONG_BINPUT: _put("<I"),
        pickle.MEMOIZE: _memoize,
        pickle.BINGET: _get("<B"),
        pickle.LONG_BINGET: _get("<I"),
        pickle.GLOBAL: _global,
        pickle.STACK_GLOBAL: _stack_global,
        pickle.BINPERSID: _persistent,
        pickle.REDUCE: _reduce,
    }.items()
}
