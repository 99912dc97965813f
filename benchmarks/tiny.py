"""One tiny case of every experiment on formulations, on the packaged sample: `python -m benchmarks smoke` runs it."""

from collections.abc import Iterable

from benchmarks.attempts import PRICES
from benchmarks.builders import building
from benchmarks.models import TINY
from benchmarks.suite import CORES, experiment
from benchmarks.trials import contradiction, trial
from moeopt.bench_rows import Task
from moeopt.stop import Stop

BRIEF = Stop(seconds=1)


@experiment("tiny", workers=CORES, stored=False, contradiction=contradiction)
def tiny() -> Iterable[Task]:
    """Every formulation once and briefly, one of them by every solver and under other names, and one builder."""
    for one in TINY.values():
        for name in one.formulations:
            yield trial(one.name, name, stop=BRIEF)
    for solver in ("cpsat", "scip", "gurobi", PRICES):
        yield trial("tiny, fan-out", "blocks", solver=solver, seed=1, stop=BRIEF)
    for broken in (True, False):
        yield trial("tiny, replicas", "replicated", stop=BRIEF, settings={"symmetry": broken})
    yield building(16, 4, "assignment")
