"""The tables of FINDINGS.md: formulations, solvers, builders, symmetry and replicas, from stored rows."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import exp, fsum, log
from statistics import median
from typing import Any

from benchmarks.attempts import CLOSED, PRICES
from benchmarks.drawing import NONE, drawn, numbered, percent, seconds
from benchmarks.trials import SOLVERS
from moeopt.bench_rows import Row

SHIFT = 1.0  # seconds, of the geometric means
NOTICED = 0.5  # seconds that the slowest of several runs takes at least, for their ratio to mean anything

Found = Mapping[str, Any]


def shifted_mean(values: Iterable[float], *, shift: float = SHIFT) -> float:
    """exp(mean of log(value + shift)) - shift: differences below the shift hardly count."""
    logs = [log(value + shift) for value in values]
    return exp(fsum(logs) / len(logs)) - shift


def solved_seconds(row: Row) -> float:
    """Seconds until an optimum was claimed or certified; of a run without one, all it took, its limit at least."""
    found = row["found"]
    if found["status"] in CLOSED and found["solved_seconds"] is not None:
        return float(found["solved_seconds"])
    return max(float(found["seconds"]), float(row["stop"].partition("seconds=")[2].partition(",")[0]))


def solved(row: Row) -> bool:
    """Whether an optimum was claimed or certified."""
    return row["found"]["status"] in CLOSED


def formulations(rows: Sequence[Row]) -> str:
    """A line a formulation, a column a solver."""
    columns = _solvers(rows)
    lines = []
    for name in _named(rows, "formulation"):
        own = _where(rows, formulation=name)
        problems = len({row["case"] for row in own})
        cells = [_score(_where(own, solver=solver)) for solver in columns]
        lines.append([f"`{name}`", str(problems), *cells])
    note = (
        "\nOptima claimed by the solver or certified, of so many runs; in brackets those certified; the shifted "
        "geometric mean of the seconds until then, over problems and seeds, unsolved runs at their limit. "
        f"`{PRICES}` is the library's own route for listed columns. Limit: {_limits(rows)} a run.\n"
    )
    return drawn(["formulation", "problems", *columns], lines) + note


def sizes(rows: Sequence[Row]) -> str:
    """A line a problem and formulation."""
    columns = _solvers(rows)
    lines = []
    for case in dict.fromkeys(row["case"] for row in rows):
        for name in _named(_where(rows, case=case), "formulation"):
            own = _where(rows, case=case, formulation=name)
            plain = [row["found"] for row in own if row["seed"] == 0] or [own[0]["found"]]
            pyomo = next(
                (one["pyomo_seconds"] for one in plain if one.get("pyomo_seconds") is not None), None
            )
            shape = plain[0]
            model = NONE
            if "rows" in shape:
                lazy = " + lazy" if shape["lazy"] else ""
                model = f"{shape['rows']:,}{lazy} × {shape['columns']:,}, {shape['nonzeros']:,}"
            builds = [one["build_seconds"] for one in plain if one.get("build_seconds") is not None]
            build = seconds(median(builds)) if builds else NONE
            cells = [_score(_where(own, solver=solver)) for solver in columns]
            lines.append([case, f"`{name}`", model, build, seconds(pyomo), _best_known(own), *cells])
    head = ["problem", "formulation", "rows × columns, coefficients", "built", "Pyomo", "gap", *columns]
    note = (
        "\nbuilt: by the formulation's own builder; Pyomo: stated and compiled, lazy rows included. gap: certified, "
        "of the best cost and the best bound of all its runs. The other columns as above.\n"
    )
    return drawn(head, lines) + note


def seeds(rows: Sequence[Row]) -> str:
    """How much the names of the experts matter: slowest over fastest run of the same problem."""
    columns = _solvers(rows)
    lines = []
    for name in _named(rows, "formulation"):
        cells = []
        for solver in columns:
            ratios = []
            for case in dict.fromkeys(row["case"] for row in rows):
                own = _where(rows, case=case, formulation=name, solver=solver)
                times = [solved_seconds(row) for row in own if solved(row)]
                if len(times) == len(own) > 1 and max(times) >= NOTICED:
                    ratios.append(max(times) / min(times))
            cells.append(f"{median(ratios):.1f}, {max(ratios):.1f} ({len(ratios)})" if ratios else NONE)
        if any(cell != NONE for cell in cells):
            lines.append([f"`{name}`", *cells])
    note = (
        "\nMedian and largest ratio, in brackets over how many problems: those that every seed solved, the slowest "
        f"in at least {NOTICED} s.\n"
    )
    return drawn(["formulation", *columns], lines) + note


def builders(rows: Sequence[Row]) -> str:
    """A line a model."""
    lines = []
    for row in rows:
        found = row["found"]
        lazy = f" + {found['lazy_rows']:,} on demand" if found["lazy_rows"] else ""
        stated = found["pyomo_seconds"] is not None
        pyomo = (
            f"{seconds(found['pyomo_build_seconds'])} + {seconds(found['pyomo_compile_seconds'])}"
            if stated
            else NONE
        )
        lines.append(
            [
                row["case"],
                f"`{found['formulation']}`",
                f"{found['rows']:,}{lazy} × {found['columns']:,}, {found['nonzeros']:,}",
                seconds(found["build_seconds"]),
                seconds(found["hand_seconds"]),
                pyomo,
                f"{found['ratio']:,.0f}" if stated else NONE,
            ]
        )
    head = [
        "problem",
        "formulation",
        "rows × columns, coefficients",
        "builder",
        "handed over",
        "Pyomo: stated + compiled",
        "ratio, handed over",
    ]
    return drawn(head, lines)


def symmetry(rows: Sequence[Row]) -> str:
    """A line a problem and solver: with and without the rows that number equal GPUs."""
    lines = []
    for case in dict.fromkeys(row["case"] for row in rows):
        for solver in _solvers(rows):
            cells = []
            for broken in (True, False):
                own = [
                    row
                    for row in _where(rows, case=case, solver=solver)
                    if row["found"].get("symmetry") is broken
                ]
                if not own:
                    cells += [NONE, NONE]
                    continue
                nodes = [row["found"].get("nodes") or 0 for row in own]
                cells += [_score(own), f"{min(nodes):,} to {max(nodes):,}"]
            lines.append([case, solver, *cells])
    return drawn(["problem", "solver", "broken: solved", "nodes", "kept: solved", "nodes"], lines)


def replicas(rows: Sequence[Row]) -> str:
    """A line a problem, a column a formulation."""
    names = _named(rows, "formulation")
    lines = []
    for case in dict.fromkeys(row["case"] for row in rows):
        own = {row["found"]["formulation"]: row["found"] for row in _where(rows, case=case)}
        lines.append([case, *(_ending(own[name]) if name in own else NONE for name in names)])
    return drawn(["problem", *(f"`{name}`" for name in names)], lines)


def agreement(rows: Sequence[Row]) -> str:
    """A line a formulation, all its chunks together."""
    fields = ("instances", "agreed", "disagreements", "infeasible", "certified_optimal")
    lines = []
    for name in _named(rows, "formulation"):
        own = [row["found"] for row in _where(rows, formulation=name)]
        lines.append([f"`{name}`", *(f"{sum(one[field] for one in own):,}" for field in fields)])
    return drawn(["formulation", *(field.replace("_", " ") for field in fields)], lines)


def large(rows: Sequence[Row]) -> str:
    """A line a layer."""
    lines = []
    for row in sorted(rows, key=lambda row: numbered(row["case"])):
        found = row["found"]
        lines.append(
            [
                row["case"],
                found["status"],
                f"{found['cost']:,}",
                f"{found['bound']:,}",
                NONE if found["certified_share"] is None else percent(found["certified_share"]),
                seconds(found["seconds"]),
                NONE if found["verify_seconds"] is None else seconds(found["verify_seconds"]),
                f"{found['peak_mib']:,.0f}",
            ]
        )
    head = ["layer", "status", "cost", "bound", "certified share", "solved", "verified", "peak memory, MiB"]
    return drawn(head, lines)


def crossings(rows: Sequence[Row]) -> str:
    """One line: all chunks together."""
    fields = ("instances", "placements", "bounds", "crossed", "met")
    sums = [f"{sum(row['found'][field] for row in rows):,}" for field in fields]
    return drawn(["instances", "placements", "bounds", "bounds above a cost", "optima among them"], [sums])


def _ending(found: Found) -> str:
    status, time = found["status"], seconds(found.get("solved_seconds") or found["seconds"])
    if status == "certified-optimal":
        return f"{found['cost']:,} proved, {time}"
    if status == "solver-claimed":
        return f"{found['cost']:,} claimed, {time}; gap {percent(found['gap'])}"
    if status == "certified-gap":
        return f"{found['cost']:,}, gap {percent(found['gap'])}, {time}"
    cost = NONE if found.get("cost") is None else f"{found['cost']:,}"
    return f"{cost}, {status}, {time}"


def _score(own: Sequence[Row]) -> str:
    """Solved of all (certified), and the shifted mean of the time; a dash without runs."""
    if not own:
        return NONE
    certified = sum(row["found"]["status"] == "certified-optimal" for row in own)
    done = sum(map(solved, own))
    return f"{done}/{len(own)} ({certified}), {seconds(shifted_mean(map(solved_seconds, own)))}"


def _best_known(own: Sequence[Row]) -> str:
    """Certified gap between the best cost and the best bound; names play no part in either."""
    costs = [row["found"]["cost"] for row in own if row["found"].get("cost") is not None]
    bounds = [row["found"]["bound"] for row in own if row["found"].get("bound") is not None]
    if not costs or not bounds:
        return NONE
    best = min(costs)
    return percent((best - max(bounds)) / best if best else 0.0)


def _limits(rows: Sequence[Row]) -> str:
    stops = dict.fromkeys(row["stop"].partition("seconds=")[2].partition(",")[0] for row in rows)
    return " or ".join(f"{stop} s" for stop in stops)


def _solvers(rows: Sequence[Row]) -> list[str]:
    present = {row["found"]["solver"] for row in rows}
    return [name for name in (PRICES, *SOLVERS) if name in present]


def _named(rows: Sequence[Row], field: str) -> list[str]:
    return list(dict.fromkeys(row["found"][field] for row in rows))


def _where(rows: Sequence[Row], *, case: str | None = None, **wanted: str) -> list[Row]:
    """The rows of a case with these fields, in their order."""
    return [
        row
        for row in rows
        if (case is None or row["case"] == case)
        and all(row["found"].get(field) == value for field, value in wanted.items())
    ]


def request_groups(rows: Sequence[Row]) -> str:
    """A line a problem; volumes as a multiple of that of random groups, which is also that of consecutive experts."""
    lines = []
    for row in rows:
        found = row["found"]
        random, cost, bound = found["random"], found["cost"], found["bound"]
        saved = random - cost
        lines.append(
            [
                row["case"],
                f"{found['requests']} + {found['layers']} × {found['experts']}",
                f"{cost / random:.4f}",
                "–" if bound is None else f"{bound / random:.4f}",
                "–" if bound is None else percent(saved / (random - bound) if random > bound else 1.0),
                seconds(found["seconds"]),
                seconds(found.get("verify_seconds")),
            ]
        )
    head = ["problem", "requests + experts", "found", "proved", "share of the saving", "time", "verified"]
    return drawn(head, lines) + "\nRemote activations, 1 = random equal groups.\n"


TABLES: Mapping[str, tuple[str, Callable[[Sequence[Row]], str]]] = {
    "formulations": ("formulations", formulations),
    "sizes": ("formulations", sizes),
    "seeds": ("formulations", seeds),
    "builders": ("builders", builders),
    "symmetry": ("symmetry", symmetry),
    "replicas": ("replicas", replicas),
    "replicas-32": ("replicas-32", replicas),
    "agreement": ("agreement", agreement),
    "bounds-large": ("bounds-large", large),
    "crossings": ("crossings", crossings),
    "request-groups": ("request-groups", request_groups),
}
"""Name of a table to its experiment and how it is drawn."""
