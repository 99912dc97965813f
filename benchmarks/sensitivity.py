"""Settings of the published method, of guards and of calibration: arXiv 2606.01007, tables 2 and 3, figure 5."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from benchmarks.papers import on_nulls
from benchmarks.placing import MEMORY, Memory, make, method_for, placed, split
from benchmarks.schemes import SCHEMES, Scheme
from benchmarks.serving_figures import figures, linear_fan_out, summary
from benchmarks.suite import CORES, SEEDS, experiment
from moeopt.bench_rows import Key, Row, Task
from moeopt.comparison import served_traffic
from moeopt.heuristics.gesr import SCORERS, Gesr
from moeopt.heuristics.spectral import Spectral
from moeopt.heuristics.tacg import Tacg
from moeopt.load_guard import LoadGuard
from moeopt.load_priced import LoadPriced
from moeopt.placement import Placement
from moeopt.replay_rules import Guarded, Rule
from moeopt.replaying import replay
from moeopt.stop import Stop
from moeopt.trace import Trace

ALPHAS = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
CONSISTENCIES = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)  # lambda1
SPECIFICITIES = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)  # lambda2
THETAS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, float("inf"))
WIDTHS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
SECONDS = 300.0

SIZES = (1, 2, 4, 8, 16, 32, None)  # training requests a family; None: all
SEARCHED = ("search", "search with copies")
COPIES_SEEDS = range(2)
BUDGETS = {"search": 0.5, "search with copies": 1.0}  # seconds a layer
COMPARED = ("tacg", "spectral", "TACG + GESR", *SEARCHED)

Variants = Iterator[tuple[str, Scheme]]


def _copied(method: Gesr) -> Scheme:
    return Scheme(method.name, lambda: method, copies=True)


def alphas() -> Variants:
    """Share of the family kernel."""
    for alpha in ALPHAS:
        yield f"alpha {alpha:g}", _copied(Gesr(base=Tacg(alpha=alpha)))


def lambdas() -> Variants:
    """Consistency and specificity in the score of the copies."""
    for first, second in product(CONSISTENCIES, SPECIFICITIES):
        yield (
            f"lambda1 {first:g}, lambda2 {second:g}",
            _copied(Gesr(base=Tacg(), lambda1=first, lambda2=second)),
        )


def scorers() -> Variants:
    """What gets copies."""
    for scorer in SCORERS:
        yield f"scorer {scorer}", _copied(Gesr(base=Tacg(), scorer=scorer))


def ablations() -> Variants:
    """Parts left out; that of the guard is theta inf of `guards`."""
    yield "full", _copied(Gesr(base=Tacg()))
    uniform = Gesr(base=Tacg(normaliser="uniform"))
    yield "no co-activation", _copied(uniform)
    yield "no co-activation, copies too", _copied(replace(uniform, normaliser="uniform"))
    yield "no task preference", _copied(Gesr(base=Spectral()))
    yield "no GESR", Scheme("tacg", Tacg)


VARIED: Mapping[str, Callable[[], Variants]] = {
    "alpha": alphas,
    "lambdas": lambdas,
    "scorers": scorers,
    "ablations": ablations,
}
GUARDS = "guards"


@experiment("sensitivity", workers=CORES)
def sensitivity() -> Iterable[Task]:
    """Settings of TACG and GESR, of the guards and of priced serving, on held-out requests."""
    for prefix, seed in on_nulls(SEEDS):
        for model in MEMORY:
            source = prefix + model
            for group, variants in VARIED.items():
                last = [name for name, _ in variants()][-1]
                key = Key(source, None, f"{group}: {last}", seed, repr(Stop()))
                yield Task(key, vary, (group, source, model, key), SECONDS)
            last = [name for name, _ in rules()][-1]
            key = Key(source, None, f"{GUARDS}: {last}", seed, repr(Stop()))
            yield Task(key, vary_guards, (source, model, key), SECONDS)


def vary(group: str, source: str, model: str, key: Key) -> list[Row]:
    """A row a setting of one group; the last one bears the key."""
    return varied(group, *split(source, key.seed), memory=MEMORY[model], key=key)


def varied(group: str, seen: Trace, held: Trace, *, memory: Memory, key: Key) -> list[Row]:
    """As `vary`, of any split."""
    rows = []
    for name, scheme in VARIED[group]():
        method = method_for(scheme, memory)
        made = make(scheme, method, seen, seed=key.seed, memory=memory)
        own = replace(key, method=f"{group}: {name}")
        if made.placement is None:
            rows.append(own.row("failed", reason=f"no placement: {made.status}", group=group, setting=name))
            continue
        rows.append(
            own.row(
                "done",
                group=group,
                setting=name,
                placed_by=made.method,
                seconds=made.seconds,
                servings=figures(made.placement, held),
            )
        )
    return rows


def rules() -> Iterator[tuple[str, Rule | float]]:
    """Serving rules: the published guard, ours as its tolerance alone, and priced serving."""
    for theta in THETAS:
        yield f"published guard, theta {theta:g}", Guarded(LoadGuard(theta=theta))
    for theta in THETAS:
        yield f"guard, tolerance {theta:g}", theta
    for width in WIDTHS:
        yield f"priced, width {width:g}", LoadPriced(width=width)


def vary_guards(source: str, model: str, key: Key) -> list[Row]:
    """The published guard on TACG + GESR, the others on the search with copies."""
    held = split(source, key.seed)[1]
    placements = {}
    for name in ("TACG + GESR", "search with copies"):
        placement = placed(name, source, seed=key.seed, model=model).placement
        if placement is None:
            raise RuntimeError(f"{name} placed nothing")
        placements[name] = placement
    return guarded(placements["TACG + GESR"], placements["search with copies"], held, key=key)


def guarded(published: Placement, searched: Placement, held: Trace, *, key: Key) -> list[Row]:
    """A row a rule; the last one bears the key."""
    rows = []
    for name, rule in rules():
        placement = published if isinstance(rule, Guarded) else searched
        linear = linear_fan_out(held, gpus=placement.gpus)
        if isinstance(rule, float):
            tolerance = None if rule == float("inf") else str(rule)
            traffic = served_traffic(placement, held, load_tolerance=tolerance)
        else:
            traffic = replay(placement, held, rule=rule).traffic
        rows.append(
            replace(key, method=f"{GUARDS}: {name}").row(
                "done",
                group=GUARDS,
                setting=name,
                scheme="TACG + GESR" if placement is published else "search with copies",
                served=summary(traffic, linear=linear),
            )
        )
    return rows


@experiment("calibration", workers=CORES)
def calibration() -> Iterable[Task]:
    """Held-out reduction by the number of requests that a placement is made from."""
    for prefix, seed in on_nulls(SEEDS):
        for model in MEMORY:
            for size in SIZES:
                source, last = prefix + model, calibrated(seed)[-1]
                key = Key(source, None, f"{last}: {_size(size)}", seed, repr(Stop(seconds=BUDGETS[last])))
                yield Task(key, calibrate, (size, source, model, key), SECONDS)


def calibrated(seed: int) -> tuple[str, ...]:
    """Schemes compared with this seed: the search with copies takes long and is for the first few."""
    return COMPARED if seed in COPIES_SEEDS else COMPARED[:-1]


def calibrate(size: int | None, source: str, model: str, key: Key) -> list[Row]:
    """A row a scheme; the last one bears the key."""
    seen, held = split(source, key.seed)
    return learned(size, seen, held, memory=MEMORY[model], key=key)


def learned(size: int | None, seen: Trace, held: Trace, *, memory: Memory, key: Key) -> list[Row]:
    """As `calibrate`, of any split. A scheme that finds nothing within its load tolerance has a reason instead."""
    part = fewer(seen, size, seed=key.seed)
    tokens = np.bincount(part.family, minlength=len(part.families)).tolist()
    rows = []
    for name in calibrated(key.seed):
        scheme = SCHEMES[name]
        scheme = replace(scheme, seconds=BUDGETS.get(name, scheme.seconds))
        made = make(scheme, method_for(scheme, memory), part, seed=key.seed, memory=memory)
        own = replace(key, method=f"{name}: {_size(size)}", stop=repr(Stop(seconds=scheme.seconds)))
        found: dict[str, Any] = {
            "scheme": name,
            "size": size,
            "requests": len(np.unique(part.request)),
            "tokens": part.n_tokens,
            "by_family": dict(zip(part.families, tokens, strict=True)),
            "seconds": made.seconds,
        }
        if made.placement is None:
            rows.append(own.row("done", reason=f"no placement: {made.status}", served=None, **found))
            continue
        linear = linear_fan_out(held, gpus=memory.gpus)
        served = {"cover": summary(served_traffic(made.placement, held), linear=linear)}
        if not made.placement.is_partition:
            traffic = served_traffic(made.placement, held, load_tolerance="0.15")
            served["guard"] = summary(traffic, linear=linear)
        rows.append(own.row("done", served=served, **found))
    return rows


def fewer(seen: Trace, size: int | None, *, seed: int) -> Trace:
    """`size` requests of each family, or all it has; larger sizes hold the requests of smaller ones."""
    if size is None:
        return seen
    rng = np.random.default_rng(seed)
    chosen = []
    for family in range(len(seen.families)):
        requests = np.unique(seen.request[seen.family == family])
        chosen.append(rng.permutation(requests)[:size])
    return seen.take(np.isin(seen.request, np.concatenate(chosen)))


def _size(size: int | None) -> str:
    return "all requests" if size is None else f"{size} requests a family"
