"""What the tables of the papers compare: a method, the memory it may use, and the rules it places under."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from moeopt import registry
from moeopt.heuristics.coactivation import Coactivation
from moeopt.heuristics.gesr import Gesr
from moeopt.heuristics.linear import Linear
from moeopt.heuristics.occult import Occult
from moeopt.heuristics.sem_moe import SemMoe
from moeopt.heuristics.spectral import Spectral
from moeopt.heuristics.swap import Swap
from moeopt.heuristics.tacg import Tacg
from moeopt.method import Method

OPTIMUM = "proved optimum"  # name of a scheme
TOLERANCE = "0.15"  # of searches that place under a load tolerance
SECONDS = 8.0  # a layer, of searches that use the time they are given


@dataclass(frozen=True)
class Scheme:
    """One line of a table.

    | field | holds |
    |---|---|
    | name | of the line |
    | method | makes it |
    | copies | whether it may use the table's extra copies; otherwise one copy each |
    | tolerance | load tolerance that it places under |
    | seconds | a layer |
    """

    name: str
    method: Callable[[], Method]
    copies: bool = False
    tolerance: str | None = None
    seconds: float = 60.0


def _named(name: str) -> Scheme:
    return Scheme(name, lambda: registry.named_method(name))


_SINGLE = (
    *(_named(name) for name in ("linear", "round-robin", "random", "frequency", "lpt", "eplb", "moetuner")),
    *(_named(name) for name in ("exflow", "metro", "grace", "occult", "sem-moe")),
    _named("coactivation"),
    Scheme("coactivation, one by one", lambda: Coactivation(growth="one-by-one")),
    *(_named(name) for name in ("metis", "kahip", "mt-kahypar", "spectral", "tacg")),
    Scheme("search", lambda: registry.named_method("search"), seconds=1.5),
    Scheme(OPTIMUM, lambda: registry.named_method("auto")),
)
_COPIES = (
    Scheme("eplb + copies", lambda: registry.named_method("eplb"), copies=True),
    Scheme("grace + copies", lambda: registry.named_method("grace"), copies=True),
    Scheme("craft", lambda: registry.named_method("craft"), copies=True),
    Scheme("coactivation + GESR", lambda: Gesr(base=Coactivation()), copies=True),
    Scheme("sem-moe + GESR", lambda: Gesr(base=SemMoe()), copies=True),
    Scheme("linear + GESR", lambda: Gesr(base=Linear()), copies=True),
    Scheme("frequency copies on TACG", lambda: Gesr(base=Tacg(), scorer="frequency"), copies=True),
    Scheme("spectral + GESR", lambda: Gesr(base=Spectral()), copies=True),
    Scheme("occult + GESR", lambda: Gesr(base=Occult()), copies=True),
    Scheme("TACG + GESR", lambda: Gesr(base=Tacg()), copies=True),
    Scheme("search + GESR", lambda: Gesr(base=Swap()), copies=True),
    Scheme(
        "search with copies",
        lambda: registry.named_method("search"),
        copies=True,
        tolerance=TOLERANCE,
        seconds=SECONDS,
    ),
)
SCHEMES: Mapping[str, Scheme] = MappingProxyType({scheme.name: scheme for scheme in (*_SINGLE, *_COPIES)})

# Percent of the communication saved in the published table, mean of three models, and that of DeepSeek-MoE-16B:
# arXiv 2606.01007v1, tables 1 and 2. Other models, other traffic.
PUBLISHED: Mapping[str, str] = MappingProxyType(
    {
        "linear": "0",
        "frequency": "7.88",
        "coactivation": "10.69",
        "sem-moe": "16.51",
        "exflow": "18.81",
        "moetuner": "16.10",
        "tacg": "24.23",
        "TACG + GESR": "31.39",
    }
)
