"""What `moeopt demo` runs: the packaged trace placed, proved, compared, exported and verified."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from moeopt import api, registry, storage, tables
from moeopt.cluster import Cluster
from moeopt.comparison import mean_fan_out, rows_of
from moeopt.exact import Exact
from moeopt.options import worker_count
from moeopt.parallel import processes
from moeopt.problem import Problem
from moeopt.recording import write_trace
from moeopt.samples import sample
from moeopt.stop import Stop
from moeopt.summary import summarise

METHODS = ("linear", "random", "lpt", "swap", "blocks")
GPUS = 16
BRIEF, LONG = Stop(seconds=1), Stop(seconds=60)  # a layer: of what searches, of what proves
Follow = Callable[[str, int], Callable[[], None]]


def demonstrate(
    folder: Path, *, workers: int | None, follow: Follow
) -> tuple[dict[str, Any], Callable[[], list[Any]]]:
    """Write placement, certificate, engine file and trace into `folder`; the JSON answer and what to show."""
    if not folder.exists():
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise ValueError(f"{folder}: cannot be made: {error.strerror}") from error
    trace = sample()
    problem = Problem.from_trace(trace, Cluster.of(gpus=GPUS, slots=trace.n_experts // GPUS))
    methods = [registry.named_method(name) for name in METHODS]
    layers = len(problem.workload.layers)
    with processes(worker_count(workers, layers=layers)) as executor:
        step = follow("placing", layers * len(methods))
        results = []
        for method in methods:
            stop = LONG if isinstance(method, Exact) else BRIEF
            results.append(
                api.solve(problem, method, stop=stop, executor=executor, on_layer=lambda _: step())
            )
            if results[-1].status == "interrupted":
                raise KeyboardInterrupt
    rows, result = rows_of(problem, methods, results=results), results[-1]
    if result.placement is None or result.certificate is None:
        raise RuntimeError(f"the packaged sample was not proved: {result.status}, {result.message}")
    paths = {name: folder / file for name, file in _FILES.items()}
    write_trace(trace, paths["trace"])
    storage.write_json(paths["placement"], result.placement.to_dict())
    storage.write_json(paths["certificate"], result.certificate.to_dict())
    api.export(result.placement, paths["engine"], engine="sglang")
    verdict = api.verify(paths["certificate"], paths["trace"])
    answer = {
        "summary": summarise(problem, result, seconds=result.seconds),
        "comparison": [asdict(row) for row in rows],
        "verified": verdict.accepted,
        "files": {name: str(path) for name, path in paths.items()},
    }
    optimum = mean_fan_out(problem, result.placement)

    def show() -> list[Any]:
        return [
            f"{trace.model}: {layers} layers x {trace.n_experts} experts, top-{trace.top_k}, "
            f"{trace.n_tokens:,} tokens, on {GPUS} GPUs with {problem.cluster.slots} slots",
            tables.placed(answer["summary"]),
            tables.compared(rows),
            f"No placement has a fan-out below {optimum:.4f}. "
            f"Certificate {'verified' if verdict.accepted else 'REJECTED: ' + verdict.reason}.",
            *(f"{name:12} {path}" for name, path in paths.items()),
            f"check it yourself: moeopt verify {paths['certificate']} {paths['trace']}",
        ]

    return answer, show


_FILES = {
    "trace": "trace.parquet",
    "placement": "placement.json",
    "certificate": "certificate.json",
    "engine": "sglang.json",
}
