"""Rows of sweeps made by hand."""

from __future__ import annotations

from itertools import product
from typing import Any

from moeopt.bench_rows import Row


def row(method: str, *, case: str = "c", layer: int | None = 0, seed: int = 0, **found: Any) -> Row:
    """A row as sweeps store it; `outcome`, `reason`, `stop` and `settings` are not of what was found."""
    told = {name: found.pop(name, "") for name in ("outcome", "reason", "stop", "settings")}
    told["outcome"] = told["outcome"] or "done"
    if told["outcome"] == "done":
        found = {
            "method": method,
            "status": "feasible",
            "cost": None,
            "bound": None,
            "reference": 100.0,
            **found,
        }
        found = {"seconds": 1.0, "fan_out": None, "linear_fan_out": None, "max_violation": None, **found}
    return {
        "case": case,
        "layer": layer,
        "method": told["settings"] or f"{method.title()}()",
        "seed": seed,
        "stop": told["stop"] or "Stop(seconds=1.0, gap=0.0)",
        "versions": {"python": "3"},
        "machine": {"cpu": "x", "cores": 2},
        "outcome": told["outcome"],
        "reason": told["reason"],
        "found": found,
        "wall_seconds": None,
        "peak_mib": None,
    }


def sweep(*, cases: int = 2, methods: int = 3, seeds: int = 2, layers: int = 3) -> list[Row]:
    """Rows made by hand: the first method is proved optimal, the others are the further above it the later."""
    rows = []
    for case, method, seed in product(range(cases), range(methods), range(seeds)):
        about: dict[str, Any] = {"case": f"case {case}", "seed": seed}
        name, cost = f"method {method}", 100 + 7 * method + seed
        for layer in range(layers):
            rows.append(
                row(
                    name,
                    layer=layer,
                    cost=cost,
                    bound=100 + seed if method == 0 else None,
                    status="certified-optimal" if method == 0 else "feasible",
                    reference=150.0,
                    steps=[[0.01 * (method + 1), cost + 20, None], [0.5, cost, None]],
                    hosts=[[expert % 4, *([3] if case and expert % 4 == 0 else [])] for expert in range(8)],
                    **about,
                )
            )
        shape: dict[str, Any] = {
            "model": "tiny",
            "experts": 8,
            "top_k": 2,
            "layers": layers,
            "gpus": 4,
            "nodes": 1,
        }
        rows.append(
            row(
                name,
                layer=None,
                cost=layers * cost,
                bound=layers * (100 + seed) if method == 0 else None,
                reference=layers * 150.0,
                seconds=0.5 * (method + 1),
                fan_out=1.2 + 0.1 * method - 0.1 * case,
                linear_fan_out=2.0,
                max_violation=0.5 - 0.1 * method,
                replicas=2 * case,
                **shape,
                **about,
            )
        )
    return rows


def failures() -> list[Row]:
    """Rows of runs that ended without an answer, or with one that is not believed."""
    return [
        row("gone", layer=None, seed=seed, outcome="failed", reason="killed: out of memory")
        for seed in (0, 1)
    ] + [
        row("gone", layer=None, seed=2, outcome="skipped", reason="not installed"),
        row("odd", layer=4, cost=3, status="disagreement", reason="costs 3, the result says 2"),
    ]
