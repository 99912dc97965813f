"""Placement of Mixture-of-Experts experts on GPUs: exact models, certificates, heuristics measured against optima."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from moeopt.allocation import allocate
    from moeopt.api import export, read_placement, solve, verify
    from moeopt.certificate import Certificate
    from moeopt.characteristics import profile
    from moeopt.cluster import Cluster
    from moeopt.comparison import compare, evaluate
    from moeopt.control import null
    from moeopt.dispatch import Plan
    from moeopt.distance import Certified, certify
    from moeopt.evening import even_out
    from moeopt.generator import PRESETS, Generator
    from moeopt.hf_generation import record
    from moeopt.hf_recorder import Recorder
    from moeopt.instance_library import read_instance
    from moeopt.joint_batches import JointBatches
    from moeopt.method import Heuristic, Method
    from moeopt.micro_batches import MicroBatches
    from moeopt.model_method import ModelMethod
    from moeopt.node_volumes import between_nodes
    from moeopt.placement import Placement
    from moeopt.problem import Problem
    from moeopt.recording import read_trace, read_workload, write_trace
    from moeopt.replaying import Replay, replay
    from moeopt.request_profiles import classify, request_profile
    from moeopt.result import Result
    from moeopt.rows import solve_model
    from moeopt.running import read_running
    from moeopt.samples import sample
    from moeopt.statements import named_formulation
    from moeopt.stop import Stop
    from moeopt.trace import Trace
    from moeopt.workload import Workload

_HOME = {
    "allocation": ("allocate",),
    "api": ("export", "read_placement", "solve", "verify"),
    "certificate": ("Certificate",),
    "characteristics": ("profile",),
    "cluster": ("Cluster",),
    "comparison": ("compare", "evaluate"),
    "control": ("null",),
    "dispatch": ("Plan",),
    "distance": ("Certified", "certify"),
    "evening": ("even_out",),
    "generator": ("PRESETS", "Generator"),
    "hf_generation": ("record",),
    "hf_recorder": ("Recorder",),
    "instance_library": ("read_instance",),
    "joint_batches": ("JointBatches",),
    "method": ("Heuristic", "Method"),
    "micro_batches": ("MicroBatches",),
    "model_method": ("ModelMethod",),
    "node_volumes": ("between_nodes",),
    "placement": ("Placement",),
    "problem": ("Problem",),
    "recording": ("read_trace", "read_workload", "write_trace"),
    "replaying": ("Replay", "replay"),
    "request_profiles": (
        "classify",
        "request_profile",
    ),
    "result": ("Result",),
    "rows": ("solve_model",),
    "running": ("read_running",),
    "samples": ("sample",),
    "statements": ("named_formulation",),
    "stop": ("Stop",),
    "trace": ("Trace",),
    "workload": ("Workload",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "PRESETS",
    "Certificate",
    "Certified",
    "Cluster",
    "Generator",
    "Heuristic",
    "JointBatches",
    "Method",
    "MicroBatches",
    "ModelMethod",
    "Placement",
    "Plan",
    "Problem",
    "Recorder",
    "Replay",
    "Result",
    "Stop",
    "Trace",
    "Workload",
    "allocate",
    "between_nodes",
    "certify",
    "classify",
    "compare",
    "evaluate",
    "even_out",
    "export",
    "named_formulation",
    "null",
    "profile",
    "read_instance",
    "read_placement",
    "read_running",
    "read_trace",
    "read_workload",
    "record",
    "replay",
    "request_profile",
    "sample",
    "solve",
    "solve_model",
    "verify",
    "write_trace",
]


def __getattr__(name: str) -> Any:
    """Public names on first use: importing the package imports NumPy at most."""
    if name in _MODULE_OF:
        return getattr(import_module(f"moeopt.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module 'moeopt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
