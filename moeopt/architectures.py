"""The shape of Mixture-of-Experts models, as far as memory for experts depends on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Architecture:
    """A model, by the figures of its public configuration.

    | field | holds |
    |---|---|
    | name | as in `ARCHITECTURES` |
    | hidden | width of the model |
    | intermediate | width of one routed expert |
    | experts, layers | routed experts of a layer; MoE layers, dense ones not counted |
    | top_k, shared | routed experts a token uses; shared experts (of the same width) that every token uses |
    | parameters | of the whole model as published; None: not known |
    | matrices | of one expert: 3 when gated (gate, up, down), 2 when not (up, down) |
    | bias | whether each matrix has a bias |
    | source | repository on Hugging Face whose config.json gives the figures, and the keys that are not obvious |
    """

    name: str
    hidden: int
    intermediate: int
    experts: int
    layers: int
    top_k: int
    shared: int = 0
    parameters: int | None = None
    matrices: int = 3
    bias: bool = False
    source: str = ""

    def __post_init__(self) -> None:
        for field, least in (("hidden", 1), ("intermediate", 1), ("experts", 1), ("layers", 1), ("top_k", 1)):
            _check(self.name, field, getattr(self, field), least)
        _check(self.name, "shared", self.shared, 0)
        if self.top_k > self.experts:
            raise ValueError(f"{self.name}: top_k {self.top_k} exceeds the {self.experts} experts of a layer")
        if self.matrices not in (2, 3):
            raise ValueError(f"{self.name}: matrices must be 2 or 3, found {self.matrices!r}")
        if self.parameters is not None and self.parameters < self.routed_parameters:
            raise ValueError(
                f"{self.name}: {self.parameters} parameters in all, {self.routed_parameters} in routed experts alone"
            )

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(outputs, inputs) of each matrix of one expert."""
        inward = ((self.intermediate, self.hidden),) * (self.matrices - 1)
        return (*inward, (self.hidden, self.intermediate))

    @property
    def expert_parameters(self) -> int:
        """Of one routed expert, biases included."""
        return sum(outputs * (inputs + self.bias) for outputs, inputs in self.shapes)

    @property
    def routed_parameters(self) -> int:
        """Of all routed experts of all layers."""
        return self.layers * self.experts * self.expert_parameters

    @property
    def other_parameters(self) -> int | None:
        """Attention, embeddings, routers, norms, dense layers, shared experts: all but the routed experts."""
        return None if self.parameters is None else self.parameters - self.routed_parameters


def architecture(name: str) -> Architecture:
    """The architecture of this name, in any case; ValueError lists the known names."""
    if (known := ARCHITECTURES.get(name.lower())) is None:
        raise ValueError(f"no model is named {name!r}; known are {', '.join(ARCHITECTURES)}")
    return known


def _check(name: str, field: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: {field} must be a whole number, at least {least}, found {value!r}")


# Parameters are the totals that Hugging Face counts in the checkpoints. They equal what the configurations imply,
# but for the vision encoder of Llama-4 Maverick and for 1,728 numbers of Moonlight; the multi-token prediction
# module of DeepSeek-V3 (14 billion more) is left out.
ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        known.name: known
        for known in (
            Architecture(
                "deepseek-v3",
                7168,
                2048,
                experts=256,
                layers=58,
                top_k=8,
                shared=1,
                parameters=671_026_419_200,
                source="deepseek-ai/DeepSeek-V3: 61 layers, first_k_dense_replace 3",
            ),
            Architecture(
                "llama-4-maverick",
                5120,
                8192,
                experts=128,
                layers=24,
                top_k=1,
                shared=1,
                parameters=401_583_781_376,
                source="meta-llama/Llama-4-Maverick-17B-128E: 48 layers, interleave_moe_layer_step 2",
            ),
            Architecture(
                "qwen3-235b-a22b",
                4096,
                1536,
                experts=128,
                layers=94,
                top_k=8,
                parameters=235_093_634_560,
                source="Qwen/Qwen3-235B-A22B",
            ),
            Architecture(
                "qwen3-30b-a3b",
                2048,
                768,
                experts=128,
                layers=48,
                top_k=8,
                parameters=30_532_122_624,
                source="Qwen/Qwen3-30B-A3B",
            ),
            Architecture(
                "deepseek-moe-16b",
                2048,
                1408,
                experts=64,
                layers=27,
                top_k=6,
                shared=2,
                parameters=16_375_728_128,
                source="deepseek-ai/deepseek-moe-16b-base: 28 layers, first_k_dense_replace 1",
            ),
            Architecture(
                "deepseek-v2-lite",
                2048,
                1408,
                experts=64,
                layers=26,
                top_k=6,
                shared=2,
                parameters=15_706_484_224,
                source="deepseek-ai/DeepSeek-V2-Lite: 27 layers, first_k_dense_replace 1",
            ),
            Architecture(
                "moonlight-16b-a3b",
                2048,
                1408,
                experts=64,
                layers=26,
                top_k=6,
                shared=2,
                parameters=15_960_111_936,
                source="moonshotai/Moonlight-16B-A3B: 27 layers, first_k_dense_replace 1",
            ),
            Architecture(
                "qwen1.5-moe-a2.7b",
                2048,
                1408,
                experts=60,
                layers=24,
                top_k=4,
                shared=4,
                parameters=14_315_784_192,
                source="Qwen/Qwen1.5-MoE-A2.7B: shared_expert_intermediate_size 5632 = 4 x 1408",
            ),
            Architecture(
                "gpt-oss-20b",
                2880,
                2880,
                experts=32,
                layers=24,
                top_k=4,
                parameters=20_914_757_184,
                bias=True,
                source="openai/gpt-oss-20b: intermediate_size; released in mxfp4",
            ),
            Architecture(
                "olmoe-1b-7b",
                2048,
                1024,
                experts=64,
                layers=16,
                top_k=8,
                parameters=6_919_161_856,
                source="allenai/OLMoE-1B-7B-0924: intermediate_size",
            ),
            Architecture(
                "mixtral-8x7b",
                4096,
                14336,
                experts=8,
                layers=32,
                top_k=2,
                parameters=46_702_792_704,
                source="mistralai/Mixtral-8x7B-v0.1: intermediate_size",
            ),
        )
    }
)
