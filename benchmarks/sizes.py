"""The sizes people run: how far each layer is certified, in how long, and what verification costs."""

import resource
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from benchmarks.cases import Case, case
from benchmarks.suite import CORES, experiment, judged, linear_fan_out, peak, solved_row
from moeopt import parallel, registry
from moeopt.api import solve
from moeopt.bench_referee import judge
from moeopt.bench_rows import Key, Row, Task
from moeopt.stop import Stop

MINUTE, FIVE, TEN, FIFTEEN = (Stop(seconds=60 * minutes) for minutes in (1, 5, 10, 15))
OVERHEAD = 1_800.0  # seconds beside the limit: search, reading, verification
_LITE, _GPT = case("deepseek-v2-lite"), case("gpt-oss-20b")


def _cuts(one: Case) -> tuple[Case, Case]:
    return one, replace(one, name=f"{one.name}, cut", objective="cut")


def _shaped(one: Case, gpus: int, slots: int) -> Case:
    return replace(one, name=f"{one.name}, {gpus} x {slots}", gpus=gpus, slots=slots)


def _whole() -> Iterable[tuple[Case, Stop]]:
    """Every layer of the recorded models, beside what `certified` asks."""
    worst = replace(_LITE, name="deepseek-v2-lite, worst family", tail="0")
    yield worst, MINUTE
    yield replace(worst, name="deepseek-v2-lite, worst family, load 10 %", load_tolerance="0.10"), MINUTE
    for one in _cuts(_shaped(_LITE, 8, 8)):
        yield one, FIVE if one.objective == "cut" else TEN
    _, small = _cuts(_shaped(_GPT, 8, 4))
    for one in (small, *_cuts(_shaped(_GPT, 4, 8))):
        yield one, FIVE


def _single() -> Iterable[tuple[Case, Stop]]:
    """One layer each."""
    for experts, gpus, slots, stop in (
        (128, 32, 4, TEN),
        (128, 16, 8, TEN),
        (256, 64, 4, FIFTEEN),
        (256, 32, 8, FIFTEEN),
        (256, 8, 32, FIFTEEN),
        (512, 64, 8, FIFTEEN),
    ):
        one = replace(
            case(f"synthetic-{experts}"), name=f"synthetic-{experts}, {gpus} x {slots}", layers=(0,)
        )
        yield replace(one, gpus=gpus, slots=slots), stop
    copies = replace(_GPT, name="gpt-oss-20b, 8 x 5, 8 replicas, load 10 %, layer 10", slots=5, layers=(10,))
    yield replace(copies, replicas=8, load_tolerance="0.10"), TEN
    for gpus, slots in ((32, 4), (16, 8)):
        for layer in (0, 12, 24, 36, 47):
            name = f"qwen3-30b-a3b pairs, {gpus} x {slots}, layer {layer}"
            source = "qwen3-30b-a3b pairs"
            yield (
                Case(name=name, source=source, gpus=gpus, slots=slots, layers=(layer,), objective="cut"),
                TEN,
            )


WHOLE: Mapping[str, tuple[Case, Stop]] = MappingProxyType({one.name: (one, stop) for one, stop in _whole()})
SINGLE: Mapping[str, tuple[Case, Stop]] = MappingProxyType({one.name: (one, stop) for one, stop in _single()})


@experiment("certified")
def certified() -> Iterable[Task]:
    """The recorded models with all layers: proofs, and what they and their verification cost."""
    for model in ("gpt-oss-20b", "deepseek-v2-lite"):
        for variant in ("", ", load 10 %", ", equal families"):
            one = case(model + variant)
            key = Key(one.name, None, repr(registry.named_method("auto")), 0, repr(MINUTE))
            yield Task(key, certify, (one, key, MINUTE))


def certify(one: Case, key: Key, stop: Stop) -> list[Row]:
    """A row a layer, and one of the whole run; clocks start when the worker processes have."""
    with parallel.processes(CORES) as executor:
        if executor is not None:
            list(executor.map(abs, range(CORES)))  # workers start small, before the trace is read
        recorded = one.trace()
        problem = one.problem(recorded)
        begun = time.perf_counter()
        result = solve(problem, registry.named_method("auto"), stop=stop, seed=0, executor=executor)
        seconds = time.perf_counter() - begun
    rows = []
    for index, part in enumerate(result.layers):
        layer = problem.layer(index)
        own = replace(key, layer=part.layer_id)
        rows.append(solved_row(own, layer, part, recorded.layers(layer.workload.layer_ids)))
    judgement = judge(problem, result, recorded=recorded)
    found = {
        **judged(problem, result, judgement),
        "seconds": seconds,
        "layers": len(result.layers),
        "layers_optimal": sum(row["found"]["status"] == "certified-optimal" for row in rows),
        "linear_fan_out": linear_fan_out(problem),
        "peak_mib": peak(resource.RUSAGE_SELF),
        "peak_worker_mib": peak(resource.RUSAGE_CHILDREN),
    }
    return [*rows, key.row("done", **found)]


@experiment("bounds")
def bounds() -> Iterable[Task]:
    """The recorded models, every layer, by the default method: what is certified at the sizes people run."""
    for one, stop in WHOLE.values():
        yield Task(_key(one, stop), certify, (one, _key(one, stop), stop))


@experiment("bounds-large", workers=2)
def bounds_large() -> Iterable[Task]:
    """Single layers of 128 to 512 experts, synthetic and recorded, two at a time."""
    for one, stop in SINGLE.values():
        limit = (stop.seconds or 0.0) + OVERHEAD
        yield Task(_key(one, stop), certify_single, (one, _key(one, stop), stop), limit)


def certify_single(one: Case, key: Key, stop: Stop) -> list[Row]:
    """One row: a layer, alone in its process."""
    traffic = one.traffic()
    problem = one.problem(traffic)
    result = solve(problem, registry.named_method("auto"), stop=stop, seed=key.seed)
    row = solved_row(key, problem, result.layers[0] if result.layers else result, traffic)
    return [row]


def _key(one: Case, stop: Stop) -> Key:
    return Key(one.name, None, repr(registry.named_method("auto")), 0, repr(stop))
