"""Check of semidefinite bounds, without a solver: one Cholesky factorisation whose rounding errors are accounted for.

Experts sit in G groups of m; free slots are filled with experts without traffic, so that n = G m experts fill all of
them. Y_ij = 1 when i and j share a group. Such a Y keeps

    Y_ii = 1,    Y >= 0,    Y1 = m1,    b'Yb >= least(b) for whole b,    Y = J/G + Z with Z psd and Z1 = 0,

least(b) being the least sum of squares of G whole numbers that sum to sum(b): b'Yb is the sum of squares of the b
summed over each group. The last because x'Yx, the sum over groups of (x summed over the group)^2, is at least
(1'x)^2 / G, and J/G 1 = m1 = Y1.

Let C = scale x weights, v any numbers, N >= 0 with zero diagonal, forces t >= 0 of cuts b, all whole, and

    S = Diag(v) - N - C - sum of t bb'.

If x'Sx >= 0 for all x with 1'x = 0, then <S, Y> = 1'S1 / G + <S, Z> >= 1'S1 / G, and by the properties of Y

    <C, Y> = sum(v) - <N, Y> - sum of t b'Yb - <S, Y>  <=  sum(v) - sum of t least(b) - 1'S1 / G.

<C, Y> is twice the sum over pairs, so with `moeopt.partition_lines` dual / (2 G scale) bounds constant - sum of
weights x y, where dual = 2 G scale constant - G (sum(v) - sum of t least(b)) + 1'S1. No multiplier of the rows
Y1 = m1 is needed: u1' + 1u' vanishes on 1'x = 0, and in the bound its share cancels.

x'Sx is positive for 1'x = 0, x not 0, exactly when V'SV is positive definite, V the columns e_i - e_n: a matrix A of
whole numbers below 2^53, hence exact in floating point. For the computed Cholesky factor R of a symmetric matrix B of
order n, |B - R'R| is at most g / (1 - g) trace(B) in norm, g = (n + 1) u / (1 - (n + 1) u), u = 2^-53, plus far less
than 1 for underflow, in whatever order sums are taken (S. M. Rump, Verification of positive definiteness, BIT
Numerical Mathematics 46, 2006). B = A - c I, exact as well, with a whole c above that error for trace(A) >= trace(B):
if the factorisation runs to its end, B + (R'R - B) is positive semidefinite, and A positive definite.

A tree of cases fixes pairs. Where Y_ij is known, N_ij may have any sign: <N, Y> is at least 2 times the sum of N_ij
over the pairs i < j that are together, for the others add nothing or something >= 0. So dual grows by 2 G times that
sum. The bound is the least of the leaves, except those whose pairs contradict each other.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.certificate import Proof
from moeopt.partition_lines import UNITS, Level, Lines, partition_levels
from moeopt.problem import Problem
from moeopt.semidefinite_tree_checker import OPEN, TOGETHER, cases_of, decided_pairs

__all__ = ["ALPHABET", "check_semidefinite", "dual_value", "surely_positive", "whole_list"]

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"  # digits of a reference
NAMES = {"scale", "references", "diagonal", "slack", "cuts", "forces", "dual"}
LARGEST = 1 << 50  # of every entry of S, and of what adds up to it
MOST_CUTS = 1 << 20
MOST_REFERENCES = 256
WIDEST = 10  # experts of a cut


def check_semidefinite(problem: Problem, proof: Proof) -> str:
    """Why a proof of kind "semidefinite" does not hold for the problem; empty when it does.

    numbers: `levels`, for the GPUs and the nodes as far as they cost something: `scale`; `references`, strings with
    a digit for each pair i < j; `diagonal` v; `slack` N for each pair; `cuts`, rows of +(i + 1) and -(i + 1); their
    `forces`; and `dual`, what they show. Or, for problems with one level, `tree` alone: nodes as
    `moeopt.semidefinite_tree_checker.cases_of` lists them, whose leaves hold such numbers, or nothing at all where
    their pairs contradict each other; N may be negative where a pair is decided.
    """
    try:
        levels = partition_levels(problem)
        if set(proof.numbers) == {"tree"}:
            return _of_tree(problem, levels, proof)
        given = proof.numbers.get("levels")
        if set(proof.numbers) != {"levels"} or not isinstance(given, list) or len(given) != len(levels):
            raise ValueError(f"expected {len(levels)} levels and nothing else")
        bound = sum(
            level.price * _proved(problem, level, numbers)
            for level, numbers in zip(levels, given, strict=True)
        )
        if bound != proof.bound:
            raise ValueError(f"the numbers prove {bound}, the certificate says {proof.bound}")
    except ValueError as error:
        return f"semidefinite proof: {error}"
    return ""


def _of_tree(problem: Problem, levels: list[Level], proof: Proof) -> str:
    """Why the leaves of a tree do not prove the bound; ValueError where they are not even well formed."""
    if len(levels) != 1:
        raise ValueError(f"a tree is about one level, the problem has {len(levels)}")
    (level,) = levels
    least: int | None = None
    for numbers, pairs in cases_of(proof.numbers["tree"], seats=level.seats):
        decided = decided_pairs(level, pairs)
        if decided is None:
            if numbers != {}:
                raise ValueError(f"pairs {pairs} contradict each other: nothing is left to prove")
            continue
        value = level.price * _proved(problem, level, numbers, decided=decided)
        least = value if least is None else min(least, value)
    if least != proof.bound:
        raise ValueError(f"the tree proves {least}, the certificate says {proof.bound}")
    return ""


def _proved(
    problem: Problem, level: Level, numbers: object, *, decided: NDArray[np.int8] | None = None
) -> int:
    """Least number of further groups, over all tokens, that the numbers of one level prove where pairs are decided."""
    if not isinstance(numbers, Mapping) or set(numbers) != NAMES:
        raise ValueError(f"expected {sorted(NAMES)}, found {numbers!r:.80}")
    n, texts = level.seats, numbers["references"]
    if not isinstance(texts, list) or len(texts) > MOST_REFERENCES:
        raise ValueError(f"references must be a list of at most {MOST_REFERENCES}")
    if (problem.objective == "cut") == bool(texts):
        raise ValueError(f"the {problem.objective} cannot be bounded with {len(texts)} references")
    lines = Lines.of(problem, level, references=[_reference(text, n) for text in texts])
    (scale,) = whole_list("scale", [numbers["scale"]], count=1, low=1)
    cuts = numbers["cuts"]
    if not isinstance(cuts, list) or len(cuts) > MOST_CUTS:
        raise ValueError(f"cuts must be a list of at most {MOST_CUTS}")
    for cut in cuts:
        row = whole_list("a cut", cut, count=None, low=-n)
        if not 2 <= len(row) <= WIDEST or len({abs(i) for i in row} - {0}) < len(row) or max(row) > n:
            raise ValueError(f"a cut lists 2 to {WIDEST} experts of {n} by sign, found {row}")
    upper = np.triu_indices(n, 1)
    low = 0 if decided is None else -LARGEST
    slack = np.array(whole_list("slack", numbers["slack"], count=upper[0].size, low=low), np.int64)
    if decided is not None and (slack[decided[upper] == OPEN] < 0).any():
        raise ValueError("slack: negative for a pair that is not decided")
    value, matrix = dual_value(
        lines,
        level,
        scale=scale,
        diagonal=np.array(whole_list("diagonal", numbers["diagonal"], count=n, low=-LARGEST), np.int64),
        slack=slack,
        cuts=cuts,
        forces=whole_list("forces", numbers["forces"], count=len(cuts), low=0),
        together=None if decided is None else decided[upper] == TOGETHER,
    )
    if type(numbers["dual"]) is not int or value != numbers["dual"]:
        raise ValueError(f"the multipliers show {value}, the certificate says {numbers['dual']!r:.40}")
    last = matrix[-1]
    if not surely_positive(matrix[:-1, :-1] - last[:-1] - last[:-1, None] + last[-1]):
        raise ValueError("the slack matrix is not surely positive definite where the x sum to 0")
    return lines.bound(value, scale=2 * level.groups * scale)


def dual_value(
    lines: Lines,
    level: Level,
    *,
    scale: int,
    diagonal: NDArray[np.int64],
    slack: NDArray[np.int64],
    cuts: list[list[int]],
    forces: list[int],
    together: NDArray[np.bool_] | None = None,
) -> tuple[int, NDArray[np.int64]]:
    """(dual, S int64 [n, n]) as in the module's text; ValueError where whole numbers would grow too large.

    `slack` [pairs] and `together` [pairs], the pairs known to share a group, run over i < j.
    """
    n, groups = level.seats, level.groups
    matrix = np.zeros((n, n), np.int64)
    matrix[np.triu_indices(n, 1)] = -slack
    matrix += matrix.T + np.diag(diagonal)
    if scale * int(np.abs(lines.weights).max()) > LARGEST or sum(forces) > LARGEST:
        raise ValueError(f"numbers at scale {scale} are too large")
    matrix -= scale * lines.weights
    value = 2 * groups * scale * lines.constant - groups * sum(diagonal.tolist())
    if together is not None:
        value += 2 * groups * sum(slack[together].tolist())
    for cut, force in zip(cuts, forces, strict=True):
        at, signs = np.abs(cut) - 1, np.sign(cut)
        matrix[at[:, None], at] -= force * signs[:, None] * signs
        whole, rest = divmod(abs(int(signs.sum())), groups)
        value += groups * force * ((groups - rest) * whole**2 + rest * (whole + 1) ** 2)
    if int(np.abs(matrix).max()) > LARGEST:
        raise ValueError(f"an entry of the slack matrix exceeds {LARGEST}")
    return value + sum(matrix.sum(axis=1).tolist()), matrix


def surely_positive(matrix: NDArray[np.int64]) -> bool:
    """Whether a symmetric matrix of whole numbers below 2^53 is positive definite; no when rounding leaves a doubt."""
    n = len(matrix)
    trace = sum(np.diag(matrix).tolist())
    if int(np.abs(matrix).max()) >= 1 << 53 or trace <= 0:
        return False
    shift = 2 + ((n + 2) * trace >> 52)  # g / (1 - g) < 2 (n + 2) u; 2 for rounding down and underflow
    rest = (matrix - shift * np.eye(n, dtype=np.int64)).astype(np.float64)
    factor = np.zeros((n, n))
    for j in range(n):
        column = rest[j:, j] - factor[j:, :j] @ factor[j, :j]
        if not column[0] > 0.0:
            return False
        pivot = np.sqrt(column[0])
        factor[j, j] = pivot
        factor[j + 1 :, j] = column[1:] / pivot
    return bool(np.isfinite(factor).all())


def _reference(text: object, n: int) -> NDArray[np.int64]:
    """int64 [n, n], symmetric, from a digit for each pair i < j."""
    pairs = n * (n - 1) // 2
    if not isinstance(text, str) or len(text) != pairs or not set(text) <= set(ALPHABET):
        raise ValueError(f"a reference is a text of {pairs} digits in base {UNITS}")
    digit = {letter: value for value, letter in enumerate(ALPHABET)}
    square = np.zeros((n, n), np.int64)
    square[np.triu_indices(n, 1)] = [digit[letter] for letter in text]
    return square + square.T


def whole_list(name: str, values: Any, *, count: int | None, low: int, high: int = LARGEST) -> list[int]:
    """The values, whole numbers from `low` to `high` and `count` of them if given; ValueError says what is wrong."""
    if not isinstance(values, list) or (count is not None and len(values) != count):
        raise ValueError(f"{name} must be a list of {count} whole numbers")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"{name}: a whole number from {low} to {high} is needed, found {value!r:.40}")
    return values
