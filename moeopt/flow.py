"""Experts of several layers placed for the way of tokens from layer to layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moeopt import links
from moeopt.cluster import Cluster
from moeopt.placement import Placement
from moeopt.tolerance import exact_tolerance, gpu_caps
from moeopt.trace import Trace


@dataclass(frozen=True, eq=False)
class FlowProblem:
    """Place the experts of every layer, one copy each, so that tokens travel little between GPUs.

    | field | holds |
    |---|---|
    | flow | int64 [layers - 1, experts, experts]: transfers from expert e of a layer to expert f of the next |
    | home | int64 [layers, experts, gpus]: transfers between GPU g and expert e, either way; None: none |
    | cluster | GPUs, nodes, slots of a layer; a transfer costs gpu_cost, across nodes gpu_cost + node_cost |
    | load | int64 [layers, experts], activations; None without a load tolerance |
    | load_tolerance | each GPU serves at most (1 + tolerance) x its share of a layer's load; None: free |
    | layer_ids | absolute layer indices; 0, 1, ... when empty |
    | model | name of the model |

    cost = sum of flow[l, e, f] d(gpu_l(e), gpu_{l+1}(f)) + sum of home[l, e, g] d(g, gpu_l(e)), an integer, where d is
    the price of a transfer. Answers are partitions; GPUs keep their names from layer to layer.

    Source: J. Yao et al., Exploiting inter-layer expert affinity for accelerating mixture-of-experts model inference
    (ExFlow), arXiv 2401.08383. ExFlow is `from_trace(..., returning=False)` with top-1 and no home.
    Raises ValueError for what arithmetic alone rules out.
    """

    flow: NDArray[np.int64]
    home: NDArray[np.int64] | None
    cluster: Cluster
    load: NDArray[np.int64] | None = None
    load_tolerance: Fraction | float | str | None = None
    layer_ids: tuple[int, ...] = ()
    model: str = ""

    def __post_init__(self) -> None:
        flow = links.whole_counts("flow", self.flow, shape=(None, None, None))
        experts = flow.shape[2]
        if flow.shape[1] != experts or not experts:
            raise ValueError(f"flow must be [layers - 1, experts, experts], found {list(flow.shape)}")
        layers = len(flow) + 1
        object.__setattr__(self, "flow", flow)
        object.__setattr__(self, "layer_ids", links.named_layers(self.layer_ids, count=layers))
        if self.home is not None:
            shape = (layers, experts, self.cluster.gpus)
            object.__setattr__(self, "home", links.whole_counts("home", self.home, shape=shape))
        object.__setattr__(self, "load_tolerance", exact_tolerance(self.load_tolerance))
        if (self.load is None) != (self.load_tolerance is None):
            raise ValueError("load and load_tolerance go together: one of them is None")
        if self.load is not None:
            load = links.whole_counts("load", self.load, shape=(layers, experts))
            object.__setattr__(self, "load", load)
        self._check_arithmetic()

    def _check_arithmetic(self) -> None:
        links.check_slots(self.cluster, experts=self.n_experts)
        links.check_magnitude(self.flow, self.home, cluster=self.cluster)
        if self.load is None or self.load_caps is None:
            return
        heavy = self.load.max(axis=1) > self.load_caps.max(axis=1)
        heavy |= self.load.sum(axis=1) > self.load_caps.sum(axis=1)
        for layer in np.flatnonzero(heavy)[:1]:
            raise ValueError(
                f"load tolerance {float(self.load_tolerance or 0):g} cannot be met: layer {self.layer_ids[layer]} has "
                f"{self.load[layer].sum()} activations, {self.load[layer].max()} of one expert, GPUs may serve "
                f"{self.load_caps[layer].tolist()}"
            )

    @classmethod
    def from_trace(
        cls,
        trace: Trace,
        cluster: Cluster,
        *,
        returning: bool,
        home: ArrayLike | None = None,
        load_tolerance: Fraction | float | str | None = None,
    ) -> Self:
        """The problem of a whole trace; consecutive layers are those of the trace.

        Parameters
        ----------
        returning
            False: a token goes on from layer to layer. Every pair of one of its experts at a layer and one at the
            next is a transfer, k x k of them; with top-1 that is ExFlow's count. For larger k, cost / k^2 is, homes
            unknown, the expected cost of a walker that follows one of the token's experts, drawn evenly, at each
            layer: a proxy, for experts that share a GPU are counted one by one and the place where the k results
            are added is left open.
            True: after every layer a token goes back to its home. Each of its k activations is two transfers,
            home to expert and back; nothing passes from expert to expert. Layers are then independent, and
            copies of a token that go to one GPU are again counted one by one.
        home
            int [tokens]: GPU where each token starts. None: request % GPUs when returning, else unknown, and the
            way into the first layer costs nothing. When it is given and tokens do not return, each activation
            of the first layer is one transfer from home; the way out of the last layer never counts.
        load_tolerance
            Each GPU serves at most (1 + tolerance) x its share of the activations of a layer; None: free.

        Raises
        ------
        ValueError
            A home that is no GPU, a tolerance that cannot be met, or what the class refuses.
        """
        of = np.asarray(trace.request % cluster.gpus if home is None else home)
        if of.shape != (trace.n_tokens,) or of.dtype.kind not in "iu":
            raise ValueError(f"home must be int [{trace.n_tokens}], found {of.dtype} {list(of.shape)}")
        if int(of.min()) < 0 or int(of.max()) >= cluster.gpus:
            raise ValueError(
                f"home must be a GPU 0..{cluster.gpus - 1}, found {int(of.min())}..{int(of.max())}"
            )
        chosen, experts = trace.experts, trace.n_experts
        flow = np.zeros((trace.n_layers - 1, experts, experts), np.int64)
        at_home = None
        if returning:
            at_home = 2 * np.stack(
                [_pairs(layer, of[:, None], shape=(experts, cluster.gpus)) for layer in _layers(chosen)]
            )
        else:
            steps = zip(_layers(chosen[:, :-1]), _layers(chosen[:, 1:]), strict=True)
            for step, (here, there) in enumerate(steps):
                flow[step] = _pairs(here, there, shape=(experts, experts))
            if home is not None:
                at_home = np.zeros((trace.n_layers, experts, cluster.gpus), np.int64)
                at_home[0] = _pairs(chosen[:, 0], of[:, None], shape=(experts, cluster.gpus))
        load = None
        if load_tolerance is not None:
            load = np.stack([np.bincount(layer.ravel(), minlength=experts) for layer in _layers(chosen)])
        return cls(flow, at_home, cluster, load, load_tolerance, tuple(trace.layer_ids.tolist()), trace.model)

    @property
    def n_layers(self) -> int:
        return len(self.layer_ids)

    @property
    def n_experts(self) -> int:
        return int(self.flow.shape[1])

    @cached_property
    def pull(self) -> NDArray[np.int64]:
        """int64 [layers, experts, gpus]: cost of the transfers between homes and an expert on GPU g."""
        if self.home is None:
            return np.zeros((self.n_layers, self.n_experts, self.cluster.gpus), np.int64)
        return self.home @ links.distances(self.cluster)

    @cached_property
    def load_caps(self) -> NDArray[np.int64] | None:
        """int64 [layers, gpus]: largest load that the tolerance allows, in activations; None without a tolerance."""
        if self.load is None or self.load_tolerance is None:
            return None
        tolerance, speeds = Fraction(self.load_tolerance), self.cluster.speeds_of
        return np.stack([gpu_caps(int(load.sum()), tolerance, speeds=speeds) for load in self.load])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything that the cost and the rules depend on."""
        facts = (sorted(self.cluster.to_dict().items()), str(self.load_tolerance), self.layer_ids)
        return links.fingerprint("moeopt-flow", facts, self.flow, self.home, self.load)

    def partition(self, gpu_of: ArrayLike) -> Placement:
        """The placement of one copy each: `gpu_of` int [layers, experts]."""
        return Placement.partition(gpu_of, self.cluster, layer_ids=self.layer_ids, model=self.model)

    def cost(self, placement: Placement) -> int:
        """Exact price of all transfers; ValueError for copies or another shape."""
        gpu_of = links.check_shape(placement, self.cluster, layer_ids=self.layer_ids, experts=self.n_experts)
        apart = links.distances(self.cluster)[gpu_of[:-1, :, None], gpu_of[1:, None, :]]
        to_homes = np.take_along_axis(self.pull, gpu_of[..., None].astype(np.int64), axis=2)
        return int((self.flow * apart).sum()) + int(to_homes.sum())

    def violation(self, placement: Placement) -> str:
        """The first rule that the placement breaks, with its numbers; empty when it breaks none."""
        gpu_of = links.check_shape(placement, self.cluster, layer_ids=self.layer_ids, experts=self.n_experts)
        if broken := links.overfull(placement, self.cluster):
            return broken
        for layer, name in enumerate(self.layer_ids):
            served, caps = self._served(layer, gpu_of[layer])
            for gpu in np.flatnonzero(served > caps)[:1]:
                return f"layer {name}: GPU {gpu} serves {served[gpu]} activations, it may serve {caps[gpu]}"
        return ""

    def candidates(self) -> Iterator[Placement]:
        """Every admissible placement, GPUs named; ValueError above 100,000 to try."""
        seatings = links.every_seating(self.cluster.slots_of, experts=self.n_experts)
        allowed = [
            [gpu_of for gpu_of in seatings if np.less_equal(*self._served(layer, gpu_of)).all()]
            for layer in range(self.n_layers)
        ]
        yield from map(self.partition, links.every_choice(allowed))

    def _served(self, layer: int, gpu_of: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """int64 [gpus] twice: load of each GPU of a layer and its cap; zeros where there are no loads."""
        served = np.zeros(self.cluster.gpus, np.int64)
        if self.load is None or self.load_caps is None:
            return served, served
        np.add.at(served, np.asarray(gpu_of), self.load[layer])
        return served, self.load_caps[layer]


def _layers(chosen: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """[tokens, k] of each layer of [tokens, layers, k]."""
    return iter(chosen.transpose(1, 0, 2))


def _pairs(first: NDArray[Any], second: NDArray[Any], *, shape: tuple[int, int]) -> NDArray[np.int64]:
    """int64 `shape`: over the tokens, how often i is in `first` [tokens, a] and j in `second` [tokens, b]."""
    height, width = shape
    total = np.zeros(height * width, np.int64)
    for rows in first.T.astype(np.int64):
        for columns in second.T:
            total += np.bincount(rows * width + columns, minlength=height * width)
    return total.reshape(height, width)
