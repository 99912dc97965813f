"""Check of bounds on the groups of requests and experts, without a solver: one Cholesky factorisation a layer.

Free seats are filled with requests and experts without activations, so that each of the G groups serves q requests
and holds m experts of every layer; requests come before experts. Y_ij = 1 when i and j share a group: one Y a layer,
the part between requests common to all. Such a Y keeps

    Y_ii = 1,    Y >= 0,    b'Yb >= least(b) for whole b,    Y = J/G + Z with Z psd, Zr = 0 and Ze = 0,

r and e the vectors of ones of the requests and of the experts: Yr = q1 and Ye = m1. For least(b), and why Z is psd,
see `moeopt.semidefinite_checker`, whose check of positive definiteness this is.

Let C hold scale x activations between a request and an expert, either way, and for each layer v any numbers, N with
zero diagonal, forces t >= 0 of cuts b, all whole, and

    S = Diag(v) - N - C - sum of t bb',

N >= 0 except between requests, where the sum of N over the layers is >= 0. If x'Sx >= 0 for all x that sum to 0 over
the requests and over the experts, then <S, Y> >= 1'S1 / G in every layer, and since Y is common between requests

    sum of <C, Y>  =  sum of (sum(v) - <N, Y> - sum of t b'Yb - <S, Y>)
                  <=  sum of (sum(v) - sum of t least(b) - 1'S1 / G)

over the layers. The left side is 2 scale times the local activations: no grouping costs less than dual / (2 G scale),
dual = 2 G scale (sum of activations) + sum over the layers of (G (sum of t least(b) - sum(v)) + 1'S1). With one layer,
or N >= 0 in every layer, that is the sum of what the layers prove alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moeopt.semidefinite_checker import surely_positive, whole_list

if TYPE_CHECKING:
    from moeopt.certificate import Proof
    from moeopt.grouping import GroupingProblem

__all__ = ["check_grouping", "layer_value", "positive_layer", "seated"]

NAMES = {"diagonal", "slack", "cuts", "forces"}
LARGEST = 1 << 48  # of every entry of S, and of what adds up to it
MOST_CUTS = 1 << 20
WIDEST = 10  # seats of a cut
MOST_SEATS = 1 << 13
MOST_LAYERS = 1 << 12


def check_grouping(problem: GroupingProblem, proof: Proof) -> str:
    """Why a proof of kind "grouping" does not hold for the problem; empty when it does.

    numbers: `scale`; `layers`, for each `diagonal` v, `slack` N for each pair i < j, `cuts`, rows of +(i + 1) and
    -(i + 1), and their `forces`; and `dual`, what they show.
    """
    try:
        if proof.digest != problem.digest:
            raise ValueError(f"it is about the problem {proof.digest:.12}, found {problem.digest:.12}")
        if set(proof.numbers) != {"scale", "layers", "dual"}:
            raise ValueError(f"expected scale, layers and dual, found {sorted(proof.numbers)}")
        activations, groups = seated(problem), problem.groups
        given = proof.numbers["layers"]
        if not isinstance(given, list) or len(given) != len(activations):
            raise ValueError(f"expected numbers of {len(activations)} layers")
        (scale,) = whole_list("scale", [proof.numbers["scale"]], count=1, low=1, high=LARGEST)
        if scale * int(activations.max()) > LARGEST:
            raise ValueError(f"activations at scale {scale} are too large")
        dual = 2 * groups * scale * int(activations.sum())
        requests = activations.shape[1]
        common = np.zeros((requests, requests), np.int64)
        for layer, (found, numbers) in enumerate(zip(activations, given, strict=True)):
            checked = _checked(numbers, requests=requests, seats=sum(found.shape))
            common += checked["slack"][:requests, :requests]
            value, slack = layer_value(found, groups, scale=scale, **checked)
            if not positive_layer(slack, requests=requests):
                raise ValueError(f"layer {layer}: the slack matrix is not surely positive definite")
            dual += value
        if common.min() < 0:
            raise ValueError(f"slack between requests sums to {common.min()} over the layers")
        if type(proof.numbers["dual"]) is not int or dual != proof.numbers["dual"]:
            raise ValueError(f"the numbers show {dual}, the certificate says {proof.numbers['dual']!r:.40}")
        if proof.bound > max(0, -(-dual // (2 * groups * scale))):  # no activation counts below 0
            raise ValueError(f"bound is {proof.bound}, proved are {dual} / {2 * groups * scale}")
    except ValueError as error:
        return f"grouping proof: {error}"
    return ""


def seated(problem: GroupingProblem) -> NDArray[np.int64]:
    """int64 [layers, requests, experts]: activations, with free seats until all groups are full and equal.

    ValueError where a row stands for several requests, or for more than 8,192 seats or 4,096 layers.
    """
    if (problem.size_of != 1).any():
        raise ValueError(f"rows of one request each are needed, found one of {problem.size_of.max()}")
    requests, experts = (
        problem.groups * int(bounds[1].max()) for bounds in (problem.request_bounds, problem.expert_bounds)
    )
    if requests + experts > MOST_SEATS or problem.n_layers > MOST_LAYERS:
        raise ValueError(
            f"at most {MOST_SEATS} seats and {MOST_LAYERS} layers can be bounded, "
            f"found {requests + experts} and {problem.n_layers}"
        )
    activations = np.zeros((problem.n_layers, requests, experts), np.int64)
    activations[:, : problem.n_requests, : problem.n_experts] = problem.activations.transpose(1, 0, 2)
    return activations


def layer_value(
    activations: NDArray[np.int64],
    groups: int,
    *,
    scale: int,
    diagonal: NDArray[np.int64],
    slack: NDArray[np.int64],
    cuts: list[list[int]],
    forces: list[int],
) -> tuple[int, NDArray[np.int64]]:
    """(its part of dual, S int64 [seats, seats]) of a layer of activations [requests, experts]; `slack` square.

    ValueError where whole numbers would grow too large.
    """
    requests = len(activations)
    if sum(forces) > LARGEST:
        raise ValueError(f"forces add up to {sum(forces)}, more than {LARGEST}")
    matrix = np.diag(diagonal) - slack
    matrix[:requests, requests:] -= scale * activations
    matrix[requests:, :requests] -= scale * activations.T
    value = -groups * sum(diagonal.tolist())
    for cut, force in zip(cuts, forces, strict=True):
        at, signs = np.abs(cut) - 1, np.sign(cut)
        matrix[at[:, None], at] -= force * signs[:, None] * signs
        whole, rest = divmod(abs(int(signs.sum())), groups)
        value += groups * force * ((groups - rest) * whole**2 + rest * (whole + 1) ** 2)
    if int(np.abs(matrix).max()) > LARGEST:
        raise ValueError(f"an entry of the slack matrix exceeds {LARGEST}")
    return value + sum(matrix.sum(axis=1).tolist()), matrix


def positive_layer(slack: NDArray[np.int64], *, requests: int) -> bool:
    """Whether x'Sx > 0 for all x but 0 that sum to 0 over requests and over experts; no when rounding leaves doubt."""
    last = np.full(len(slack), len(slack) - 1)
    last[:requests] = requests - 1
    kept = np.flatnonzero(last != np.arange(len(slack)))
    half = slack[kept] - slack[last[kept]]
    return surely_positive(half[:, kept] - half[:, last[kept]])


def _checked(numbers: object, *, requests: int, seats: int) -> dict[str, Any]:
    """The numbers of a layer, each within its range; slack as int64 [seats, seats]."""
    if not isinstance(numbers, Mapping) or set(numbers) != NAMES:
        raise ValueError(f"a layer has {sorted(NAMES)}, found {numbers!r:.80}")
    cuts = numbers["cuts"]
    if not isinstance(cuts, list) or len(cuts) > MOST_CUTS:
        raise ValueError(f"cuts must be a list of at most {MOST_CUTS}")
    for cut in cuts:
        row = whole_list("a cut", cut, count=None, low=-seats, high=LARGEST)
        if not 2 <= len(row) <= WIDEST or len({abs(i) for i in row} - {0}) < len(row) or max(row) > seats:
            raise ValueError(f"a cut lists 2 to {WIDEST} seats of {seats} by sign, found {row}")
    above = whole_list("slack", numbers["slack"], count=seats * (seats - 1) // 2, low=-LARGEST, high=LARGEST)
    slack = np.zeros((seats, seats), np.int64)
    slack[np.triu_indices(seats, 1)] = above
    slack += slack.T
    if (least := int(slack[:, requests:].min())) < 0:
        raise ValueError(f"slack is negative only between requests, found {least}")
    diagonal = whole_list("diagonal", numbers["diagonal"], count=seats, low=-LARGEST, high=LARGEST)
    return {
        "diagonal": np.array(diagonal, np.int64),
        "slack": slack,
        "cuts": cuts,
        "forces": whole_list("forces", numbers["forces"], count=len(cuts), low=0, high=LARGEST),
    }
