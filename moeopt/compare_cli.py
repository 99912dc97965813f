"""The verb `compare`."""

from moeopt import flags
from moeopt.terminal import progress, show


def compare(
    trace: flags.TraceFile,
    *,
    gpus: flags.Gpus,
    nodes: flags.Nodes = 1,
    slots: flags.Slots = None,
    replicas: flags.Replicas = 0,
    load_tolerance: flags.Tolerance = None,
    weights: flags.Weights = None,
    objective: flags.Objective = "fan-out",
    gpu_cost: flags.GpuCost = 1,
    node_cost: flags.NodeCost = 0,
    speeds: flags.Speeds = None,
    tail: flags.Tail = None,
    incumbent: flags.Incumbent = None,
    max_moves: flags.MaxMoves = None,
    methods: flags.Methods = "linear,random,lpt,swap,auto",
    seeds: flags.Seeds = 1,
    held_out: flags.HeldOut = 0.0,
    null: flags.Null = False,
    seconds: flags.Seconds = 60.0,
    layers: flags.Layers = None,
    workers: flags.Workers = None,
    as_json: flags.AsJson = False,
) -> None:
    """Methods side by side, on the traffic they saw and on traffic they did not."""
    from dataclasses import asdict

    from moeopt import comparison, control, tables
    from moeopt.options import name_list, recorded, stated, worker_count
    from moeopt.parallel import processes
    from moeopt.stop import Stop

    if held_out and not 0 < held_out < 1:
        raise ValueError(f"--held-out must lie between 0 and 1, found {held_out}")
    names = name_list(methods)
    traffic = recorded(trace, layers)
    traffic = control.null(traffic, seed=0) if null else traffic
    problem, note = stated(
        traffic,
        path=trace,
        gpus=gpus,
        nodes=nodes,
        slots=slots,
        replicas=replicas,
        load_tolerance=load_tolerance,
        weights=weights,
        objective=objective,
        gpu_cost=gpu_cost,
        node_cost=node_cost,
        speeds=speeds,
        tail=tail,
        incumbent=incumbent,
        max_moves=max_moves,
    )
    count = len(problem.workload.layers)
    with progress(quiet=as_json) as follow, processes(worker_count(workers, layers=count)) as executor:
        step = follow(f"{len(names)} methods, {seeds} seeds", count * len(names) * seeds)
        rows = comparison.compare(
            problem,
            names,
            seeds=range(seeds),
            stop=Stop(seconds=seconds),
            trace=traffic,
            held_out=held_out,
            executor=executor,
            on_layer=lambda _: step(),
        )
    answer = {"rows": [asdict(row) for row in rows], "null": null, "held_out": held_out, "message": note}
    show(answer, lambda: [tables.compared(rows), note], as_json=as_json)
