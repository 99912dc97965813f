"""Stack, marks and memo of a pickle under interpretation, with bounds on all that they hold."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from struct import calcsize, unpack
from typing import Any

NESTED = 64  # containers within one another
EXPANDED = 1 << 26  # values of the content, those of a container shared n times counted n times
LINE = 256  # bytes of a module's or a function's name
CONTAINER = 512  # bytes charged for a container
KEPT = 128  # bytes charged for a place in the memo, in a dict or under a mark
CONTAINERS = (list, dict, tuple)


@dataclass
class Budget:
    """Bytes of memory that content may take; ValueError once it is spent."""

    limit: int
    spent: int = 0

    def charge(self, size: int) -> None:
        """Spend `size` bytes."""
        self.spent += size
        if self.spent > self.limit:
            raise ValueError(f"content must take at most {self.limit} bytes of memory, found more")


@dataclass(frozen=True)
class Named:
    """What a pickle may name; `call` makes the value of a REDUCE, and is our function, never the one named."""

    name: str
    call: Callable[..., Any] | None = None


class Machine:
    """The state of one pickle; ValueErrors name the byte where it goes wrong."""

    def __init__(
        self,
        program: bytes,
        names: Mapping[str, Any],
        persistent: Callable[[Any], Any],
        budget: Budget,
    ) -> None:
        self.program, self.names, self.persistent, self.budget = program, names, persistent, budget
        self.at = 0
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # stacks under the marks
        self.memo: dict[int, Any] = {}
        self.shared: set[int] = set()  # ids of containers that the memo gave out: they change no more
        self.extents: dict[int, tuple[int, int]] = {}  # id of a container -> (values in it, depth)

    def take(self, size: int) -> bytes:
        """The next bytes of the program."""
        end = self.at + size
        if end > len(self.program):
            raise ValueError(f"truncated pickle: {size} bytes are to follow byte {self.at}, found fewer")
        self.at, start = end, self.at
        return self.program[start:end]

    def number(self, form: str) -> Any:
        """A number of the program in the notation of `struct`."""
        return unpack(form, self.take(calcsize(form)))[0]

    def line(self) -> str:
        """The text up to the end of the line."""
        end = self.program.find(b"\n", self.at, self.at + LINE)
        if end < 0:
            raise ValueError(f"a name must end within {LINE} bytes, found none at byte {self.at}")
        return self.take(end + 1 - self.at)[:-1].decode("ascii", "backslashreplace")

    def pop(self, kind: type | tuple[type, ...] = object) -> Any:
        """The value on top, of this kind."""
        if not self.stack:
            raise ValueError(f"byte {self.at - 1}: a value is missing on the stack")
        value = self.stack.pop()
        if not isinstance(value, kind):
            raise ValueError(f"byte {self.at - 1}: found {type(value).__name__} in the wrong place")
        return value

    def marked(self) -> list[Any]:
        """What was pushed since the last mark."""
        if not self.below:
            raise ValueError(f"byte {self.at - 1}: a mark is missing on the stack")
        found, self.stack = self.stack, self.below.pop()
        return found

    def build(self, value: Any) -> None:
        """Push a new value; containers start with what is in them."""
        if type(value) in CONTAINERS:
            self.budget.charge(CONTAINER)
            self.extents[id(value)] = (0, 1)
            self.adopt(value, value if type(value) is tuple else ())
        self.stack.append(value)

    def adopt(self, container: Any, items: Any) -> None:
        """Count `items` into `container`."""
        count, depth = self.extents[id(container)]
        count += len(items)
        for item in items:
            if type(item) in CONTAINERS:
                inner, level = self.extents[id(item)]
                count, depth = count + inner, max(depth, level + 1)
        if depth > NESTED or count > EXPANDED:
            raise ValueError(
                f"content must be of at most {EXPANDED} values in {NESTED} levels, found {count} in {depth}"
            )
        self.extents[id(container)] = (count, depth)

    def target(self, kind: type) -> Any:
        """The container on top, which stays there."""
        container = self.pop(kind)
        if id(container) in self.shared:
            raise ValueError("content must not contain itself, found a container changed after it was shared")
        self.stack.append(container)
        return container

    def name(self, name: str) -> None:
        """Push what a name stands for."""
        if name not in self.names:
            raise ValueError(f"only plain data and tensors may be named, found {name!r:.80}")
        self.build(self.names[name])
