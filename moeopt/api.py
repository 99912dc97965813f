"""The verbs of the library: solve, verify, export."""

import math
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from moeopt import parallel, registry
from moeopt.certificate import Certificate
from moeopt.cluster import Cluster
from moeopt.method import Method, Resuming, refusal
from moeopt.model_method import ModelMethod, objection
from moeopt.news import News, heard, silence
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.result import Result
from moeopt.resuming import Known, known_layers, no_weaker, settled
from moeopt.stop import Stop, is_interrupt
from moeopt.storage import PathLike
from moeopt.trace import Trace


def solve(
    problem: Problem,
    method: str | Method = "auto",
    *,
    stop: Stop | None = None,
    seed: int = 0,
    start: Placement | None = None,
    resume: Certificate | PathLike | None = None,
    trace: Trace | None = None,
    executor: Executor | None = None,
    on_layer: Callable[[Result], object] = lambda result: None,
    on_news: Callable[[News], object] = lambda news: None,
) -> Result:
    """Solve every layer of `problem` and join the results; or all layers together by a `ModelMethod`.

    `stop` (default 60 seconds a layer) limits each layer; `resume` goes on from the certificate of an earlier run, or
    its file: layers that it proved are checked and kept, the others start from its placement and prices, and no bound
    gets weaker; `executor` runs the layers in parallel, without one they run here in turn; `on_layer` is called with
    each layer's result as it arrives, `on_news` with every better placement and bound while a layer runs (of an
    executor's, where it is one of `moeopt.parallel.processes`, or of threads). After Ctrl-C the layers that have no
    placement yet get that of lpt, and the status is "interrupted".

    `trace` is the one the problem was made from: a `ModelMethod` needs it, for what follows what is not in a workload;
    other methods ignore it. A `ModelMethod` runs here, not in the executor, has the seconds of all layers, its layers
    arrive together at the end, and it cannot resume. Raises ValueError when the method does not treat the problem, or
    needs a trace and has none that fits.
    """
    chosen = registry.named_method(method) if isinstance(method, str) else method
    stop = stop or Stop()
    if isinstance(chosen, ModelMethod):
        if resume is not None:
            raise ValueError(f"method {chosen.name} places all layers together: it resumes no certificate")
        with heard(on_news):
            return _solve_model(chosen, problem, trace, stop, seed, start, on_layer)
    if problem.total_replicas is not None:
        raise ValueError(
            "a budget over all layers couples them: use moeopt.allocate, or a method that places all layers together"
        )
    layers = range(len(problem.workload.layers))
    if reason := objection(chosen, problem):
        raise ValueError(f"method {chosen.name} does not treat this problem: {reason}")
    known = [None] * len(layers) if resume is None else known_layers(resume, problem)
    tasks = [
        (
            _solve_layer,
            (
                chosen,
                problem.layer(index),
                stop,
                seed,
                None if start is None else start.layer(index),
                earlier,
            ),
        )
        for index, earlier in zip(layers, known, strict=True)
    ]
    with heard(on_news):
        answers, interrupted = parallel.run(
            executor, tasks, done=on_layer, gave_up=lambda result: result.status == "interrupted"
        )
    results = [
        answer if answer is not None else _unsolved(chosen, problem.layer(index), seed)
        for index, answer in zip(layers, answers, strict=True)
    ]
    joined = Result.join(results)
    if chosen.evens:
        from moeopt.evening import evened

        try:
            joined = evened(joined, problem)
        except (KeyboardInterrupt, SystemError) as error:
            if not is_interrupt(error):
                raise
            interrupted = True  # what was solved stands, under the names it has
    return replace(joined, status="interrupted") if interrupted else joined


def _solve_model(
    method: ModelMethod,
    problem: Problem,
    trace: Trace | None,
    stop: Stop,
    seed: int,
    start: Placement | None,
    on_layer: Callable[[Result], object],
) -> Result:
    result = method.place(problem, trace, stop=stop, seed=seed, start=start)
    if result.status == "interrupted" and result.placement is None:
        indices = range(len(problem.workload.layers))
        result = Result.join([_unsolved(method, problem.layer(index), seed) for index in indices])
    for part in result.layers:
        on_layer(part)
    return result


@cache
def _warm(method: Method, *, objective: str, replicas: bool, capped: bool) -> None:
    """Compile the method's kernels, or load them, on a problem of no size: no layer's clock pays for it."""
    experts = np.array([[[0, 1]], [[1, 2]], [[2, 3]], [[0, 3]]], np.uint8)
    problem = Problem.from_trace(
        Trace(experts, 4),
        Cluster.of(gpus=2, slots=3 if replicas else 2),
        objective=objective,
        replicas=int(replicas),
        load_tolerance=0 if capped else None,
    )
    if not refusal(method, problem):
        with silence():
            method.solve(problem, stop=Stop(seconds=None, candidates=1), seed=0)


def _solve_layer(
    method: Method, problem: Problem, stop: Stop, seed: int, start: Placement | None, known: Known | None
) -> Result:
    if known is not None and (before := settled(problem, known)) is not None:
        return replace(before, method=repr(method), seed=seed)
    _warm(
        method,
        objective=problem.objective,
        replicas=problem.replicas > 0,
        capped=problem.load_tolerance is not None,
    )
    mixed = np.random.SeedSequence([seed, problem.workload.layer_ids[0]]).generate_state(1)[0]
    layer_seed = int(mixed) >> 1  # solvers take 31 bits
    if known is None:
        result = method.solve(problem, stop=stop, seed=layer_seed, start=start)
    else:
        start = known.placement if start is None else start
        earlier = {"earlier": known.proof} if isinstance(method, Resuming) else {}
        result = method.solve(problem, stop=stop, seed=layer_seed, start=start, **earlier)
        result = no_weaker(problem, result, known=known)
    if result.status == "interrupted" and result.placement is None:
        return _unsolved(method, problem, seed)
    return replace(result, seed=seed)


def _unsolved(method: Method, problem: Problem, seed: int) -> Result:
    """A layer that the user's interrupt left without a placement."""
    from moeopt.heuristics.linear import Linear
    from moeopt.heuristics.lpt import Lpt

    quick = [Lpt(), *([] if refusal(Linear(), problem) else [Linear()])]
    found = {one.name: one.solve(problem, stop=Stop(), seed=seed) for one in quick}
    name = min(found, key=lambda one: math.inf if (cost := found[one].cost) is None else cost)
    message = f"interrupted before anything was found: placed by {name}"
    return replace(found[name], status="interrupted", method=repr(method), message=message)


def verify(certificate: Certificate | Mapping[str, Any] | PathLike, trace: Any) -> Any:
    """Re-prove a certificate, its document or its file; see `moeopt.checker.verify`.

    `trace` is the Trace, Workload or Problem that the certificate speaks of, or its file. A certificate that is about
    other rules or other layers than those of a problem is not accepted; of a trace it may be about some layers.
    """
    from moeopt import checker, storage
    from moeopt.allocation_checker import FORMAT as ALLOCATION
    from moeopt.certificate import FORMAT
    from moeopt.problem import FORMAT as PROBLEM
    from moeopt.problem_files import holds_problem, read_problem
    from moeopt.recording import read_recording
    from moeopt.workload import Workload

    if not isinstance(certificate, Certificate | Mapping):
        certificate = storage.read_json(certificate, kind=FORMAT, other_kinds=(ALLOCATION,))
    traffic = trace
    if not isinstance(trace, Trace | Workload | Problem):
        held = holds_problem(trace)
        traffic = read_problem(trace) if held else read_recording(trace, also=(PROBLEM,))
    if isinstance(certificate, Mapping) and certificate.get("format") == ALLOCATION:
        from moeopt.allocation_checker import verify_allocation

        return verify_allocation(certificate, traffic)
    if isinstance(traffic, Problem):
        if reason := _other_rules(certificate, traffic):
            return checker.Verdict(False, reason)
        traffic = traffic.workload
    return checker.verify(certificate, traffic)


def _other_rules(certificate: Certificate | Mapping[str, Any], problem: Problem) -> str:
    """The first rule in which a certificate differs from the problem, or its layers; empty when all are the same."""
    from moeopt.checker import differing_rule

    fields = certificate.fields if isinstance(certificate, Certificate) else certificate.get("problem")
    if not isinstance(fields, Mapping):
        return f"the certificate must hold the problem's fields, found {fields!r:.60}"
    if differing := differing_rule(fields, problem.fields()):
        return f"the certificate is about another problem: {differing}"
    layers, own = _layers_of(certificate), list(problem.workload.layer_ids)
    if layers != own:
        return f"the certificate is about layers {layers!s:.80}, the problem has {own!s:.80}"
    return ""


def _layers_of(certificate: Certificate | Mapping[str, Any]) -> list[Any]:
    if isinstance(certificate, Certificate):
        return list(certificate.layer_ids)
    parts = certificate.get("layers")
    return (
        [part.get("layer") for part in parts if isinstance(part, Mapping)] if isinstance(parts, list) else []
    )


def export(placement: Placement, path: PathLike, *, engine: str, **settings: Any) -> None:
    """Write the placement as a file that `engine` loads; some engines go by the ending of its name."""
    from moeopt import storage

    chosen = registry.named_engine(engine)
    if Path(path).suffix != chosen.suffix:
        raise ValueError(f"{path}: a file for {engine} must be named *{chosen.suffix}")
    storage.write_bytes(path, chosen.dump(placement, **settings))


def read_placement(path: PathLike) -> Placement:
    """A placement file; ValueError names the file and the rule it breaks."""
    from moeopt import storage
    from moeopt.placement import FORMAT

    document = storage.read_json(path, kind=FORMAT)
    try:
        return Placement.from_dict(document)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
