"""Two experts a GPU: the cheapest placement is a minimum-cost perfect matching (Edmonds), found in polynomial time."""

from moeopt.columns import Columns


def is_matching(columns: Columns) -> bool:
    """Whether every block is a pair and every slot is used."""
    return columns.full and columns.members.shape[1] == 2


def cheapest_matching(columns: Columns) -> list[int] | None:
    """Indices of the blocks of a cheapest perfect matching of the experts; None when no perfect matching exists.

    NetworkX's blossom algorithm on integer weights: exact, O(E^3).
    """
    import networkx as nx

    dearest = int(columns.cost.max()) + 1
    graph = nx.Graph()
    graph.add_nodes_from(range(columns.n_experts))
    pairs = columns.members.tolist()
    graph.add_weighted_edges_from(
        (a, b, dearest - cost) for (a, b), cost in zip(pairs, columns.cost.tolist(), strict=True)
    )
    chosen = nx.max_weight_matching(graph, maxcardinality=True)
    if 2 * len(chosen) < columns.n_experts:
        return None
    index = {tuple(pair): block for block, pair in enumerate(pairs)}
    return sorted(index[min(a, b), max(a, b)] for a, b in chosen)
