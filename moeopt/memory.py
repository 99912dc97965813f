"""How many experts of one layer a GPU can hold, from its memory: exact bytes, and the arithmetic in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Self

from moeopt.architectures import Architecture, architecture

GIB = 1 << 30  # bytes


@dataclass(frozen=True)
class Precision:
    """How weights are stored: numbers of a few bits, and a scale for each block of a matrix.

    | field | holds |
    |---|---|
    | name | as in `PRECISIONS` |
    | bits | of one weight |
    | block | (outputs, inputs) that share a scale; None: no scales |
    | scale_bits | of one scale |
    """

    name: str
    bits: int
    block: tuple[int, int] | None = None
    scale_bits: int = 0

    @property
    def bits_per_weight(self) -> Fraction:
        """Scales included, for matrices that whole blocks fill."""
        height, width = self.block or (1, 1)
        return Fraction(self.bits) + Fraction(self.scale_bits, height * width)

    @property
    def bias_bits(self) -> int:
        """Of one number of a bias: biases are not quantised."""
        return max(self.bits, 16)

    def matrix_bytes(self, outputs: int, inputs: int) -> int:
        """Of one matrix with its scales; blocks that stick out have a scale as well."""
        scales = -(-outputs // self.block[0]) * -(-inputs // self.block[1]) if self.block else 0
        return -(-(outputs * inputs * self.bits + scales * self.scale_bits) // 8)


# Scales as checkpoints store them: fp8 of DeepSeek-V3 (weight_block_size 128 x 128, float32), int8 and int4 of
# GPTQ (groups of 128 inputs, float16, symmetric), mxfp4 of the OCP Microscaling specification 1.0 (32 inputs, 8 bits),
# nvfp4 (16 inputs, 8 bits; its one float32 a matrix is not counted).
PRECISIONS: Mapping[str, Precision] = MappingProxyType(
    {
        known.name: known
        for known in (
            Precision("fp32", 32),
            Precision("bf16", 16),
            Precision("fp16", 16),
            Precision("fp8", 8, (128, 128), 32),
            Precision("int8", 8, (1, 128), 16),
            Precision("int4", 4, (1, 128), 16),
            Precision("mxfp4", 4, (1, 32), 8),
            Precision("nvfp4", 4, (1, 16), 8),
        )
    }
)


def expert_bytes(shape: Architecture, precision: str | Precision) -> int:
    """Bytes of one routed expert: matrices, scales and biases."""
    stored = _precision(precision)
    matrices = sum(stored.matrix_bytes(outputs, inputs) for outputs, inputs in shape.shapes)
    return matrices + shape.bias * sum(outputs for outputs, _ in shape.shapes) * stored.bias_bits // 8


@dataclass(frozen=True)
class Capacity:
    """The memory of one GPU, divided up; made by `of`.

    | field | holds |
    |---|---|
    | model | its architecture |
    | gpus | GPUs that share the experts, all alike |
    | precision | of the routed experts |
    | gpu_bytes | memory of one GPU |
    | other_bytes | share of one GPU in the weights that are not routed experts |
    | kv_cache_bytes | set aside for the KV cache of one GPU |
    | reserve_bytes | set aside for activations, buffers and fragmentation |
    | other_how | where other_bytes comes from, in words |
    """

    model: Architecture
    gpus: int
    precision: Precision
    gpu_bytes: int
    other_bytes: int
    kv_cache_bytes: int
    reserve_bytes: int
    other_how: str = ""

    def __post_init__(self) -> None:
        rest = {
            "other weights": self.other_bytes,
            "KV cache": self.kv_cache_bytes,
            "reserve": self.reserve_bytes,
        }
        parts = ", ".join(f"{name} {_gib(size)}" for name, size in rest.items())
        experts = self.model.experts
        if not self.slots:
            largest = max(rest, key=lambda name: rest[name])
            room = self.left_bytes + rest[largest] - self.slot_bytes
            hint = (
                f"may take {_gib(room)} at most"
                if room >= 0
                else f"alone is not it: {_gib(-room)} short without"
            )
            raise ValueError(
                f"no slot fits: of {_gib(self.gpu_bytes)} a GPU, {parts} leave {_gib(self.left_bytes)}; one expert in "
                f"each of {self.model.layers} layers in {self.precision.name} takes {_gib(self.slot_bytes)}: "
                f"the {largest} {hint}"
            )
        if self.free_slots < 0:
            short = -(-experts // self.gpus) * self.slot_bytes - self.left_bytes
            raise ValueError(
                f"too few slots: {self.gpus} GPUs x {self.slots} = {self.gpus * self.slots} slots a layer for "
                f"{experts} experts: {-(-experts // self.slots)} GPUs at least, or {_gib(short)} more for experts on "
                f"each ({_gib(self.left_bytes)} are left of {_gib(self.gpu_bytes)} after {parts})"
            )

    @classmethod
    def of(
        cls,
        model: str | Architecture,
        *,
        gpus: int,
        gpu_memory_gib: float,
        kv_cache_gib: float = 0.0,
        reserve: float = 0.05,
        precision: str | Precision = "bf16",
        dense_precision: str | Precision = "bf16",
        dense_shards: int = 1,
        other_weights_gib: float | None = None,
    ) -> Self:
        """Divide up a GPU's memory.

        `reserve` is a fraction of it. Weights other than routed experts are `other_weights_gib` on each GPU, or what
        the model has in `dense_precision`, split over `dense_shards` GPUs (1: every GPU holds all of them).
        Raises ValueError, with every term, where no slot fits and where the GPUs together cannot hold each expert.
        """
        shape = architecture(model) if isinstance(model, str) else model
        stored, dense = _precision(precision), _precision(dense_precision)
        for name, count in (("gpus", gpus), ("dense_shards", dense_shards)):
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise ValueError(f"{name} must be a whole number, at least 1, found {count!r}")
        if gpus % dense_shards:
            raise ValueError(f"gpus must be divisible by dense_shards, found {gpus} and {dense_shards}")
        share = _number("reserve", reserve)
        if share >= 1:
            raise ValueError(f"reserve is a fraction of the memory, below 1, found {reserve}")
        gpu_bytes = _bytes("gpu_memory_gib", gpu_memory_gib)
        if other_weights_gib is not None:
            other_bytes, how = _bytes("other_weights_gib", other_weights_gib), "as given"
        elif shape.other_parameters is None:
            raise ValueError(f"{shape.name}: parameters are not known: give other_weights_gib")
        else:
            bits = shape.other_parameters * dense.bits_per_weight
            other_bytes = -(-bits // (8 * dense_shards))
            how = f"{shape.other_parameters:,} in {dense.name} / {dense_shards}"
        return cls(
            shape,
            gpus,
            stored,
            gpu_bytes,
            other_bytes,
            _bytes("kv_cache_gib", kv_cache_gib),
            -(-share * gpu_bytes // 1),
            how,
        )

    @property
    def expert_bytes(self) -> int:
        """One expert."""
        return expert_bytes(self.model, self.precision)

    @property
    def slot_bytes(self) -> int:
        """One slot in every MoE layer: slots are the same number in each."""
        return self.model.layers * self.expert_bytes

    @property
    def left_bytes(self) -> int:
        """Left for routed experts; negative where the rest alone is too big."""
        return self.gpu_bytes - self.other_bytes - self.kv_cache_bytes - self.reserve_bytes

    @property
    def slots(self) -> int:
        """Experts of one layer that a GPU can hold; never more than there are."""
        return min(max(0, self.left_bytes // self.slot_bytes), self.model.experts)

    @property
    def free_slots(self) -> int:
        """Slots of one layer, on all GPUs, that copies can use once every expert has one."""
        return self.gpus * self.slots - self.model.experts

    def terms(self) -> tuple[tuple[str, str, int], ...]:
        """(what, how, bytes) of each term, in the order of the subtraction and the division."""
        layers, matrices = self.model.layers, self.model.matrices
        widths = f"{matrices} x {self.model.hidden} x {self.model.intermediate}{' + bias' * self.model.bias}"
        return (
            ("GPU memory", "", self.gpu_bytes),
            ("- other weights", self.other_how, self.other_bytes),
            ("- KV cache", "", self.kv_cache_bytes),
            ("- reserve", "activations, buffers", self.reserve_bytes),
            ("= for experts", "", self.left_bytes),
            ("one expert", f"{widths} in {self.precision.name}", self.expert_bytes),
            ("/ one slot", f"{layers} layers of it", self.slot_bytes),
        )

    def answer(self) -> str:
        """The outcome in one line."""
        used = f"{self.gpus} GPUs x {self.slots} = {self.gpus * self.slots} slots a layer"
        return f"{used} for {self.model.experts} experts, {self.free_slots} free for copies"

    def explain(self) -> str:
        """The arithmetic, a line a term, in bytes and GiB."""
        lines = [
            f"{what:<16}{how:<32}{size:>17,} B {size / GIB:>8.3f} GiB" for what, how, size in self.terms()
        ]
        most = " (every expert)" if self.slots == self.model.experts else ""
        return "\n".join([*lines, f"= slots         {self.slots} a GPU and layer{most}", self.answer()])

    def to_dict(self) -> dict[str, Any]:
        """Every term, JSON-ready."""
        names = ("gpu_bytes", "other_bytes", "kv_cache_bytes", "reserve_bytes", "left_bytes")
        return {
            "model": self.model.name,
            "experts": self.model.experts,
            "layers": self.model.layers,
            "gpus": self.gpus,
            "precision": self.precision.name,
            "slots": self.slots,
            "free_slots": self.free_slots,
            **{name: getattr(self, name) for name in (*names, "expert_bytes", "slot_bytes")},
        }


def _precision(given: str | Precision) -> Precision:
    if isinstance(given, Precision):
        return given
    if given.lower() not in PRECISIONS:
        raise ValueError(f"no precision is named {given!r}; known are {', '.join(PRECISIONS)}")
    return PRECISIONS[given.lower()]


def _number(name: str, value: float) -> Fraction:
    """A number as the decimal fraction the user typed."""
    try:
        number = Fraction(str(value))
    except ValueError as error:
        raise ValueError(f"{name} must be a number, found {value!r}") from error
    if number < 0:
        raise ValueError(f"{name} must not be negative, found {value}")
    return number


def _bytes(name: str, gib: float) -> int:
    return int(_number(name, gib) * GIB)


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB"
