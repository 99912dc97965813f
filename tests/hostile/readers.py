"""The ways that moeopt reads files, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.hostile.tiny import TRACE, problem


def _traffic(path: str, given: dict[str, Any]) -> None:
    from moeopt.recording import read_recording
    from moeopt.supplement import Supplement

    ids = given.get("layer_ids")
    read_recording(path, supplement=Supplement(**given | {"layer_ids": None if ids is None else tuple(ids)}))


def _addition(path: str, given: dict[str, Any]) -> None:
    from moeopt.manifest import read_manifest

    read_manifest(path).applied(TRACE)


def _running(path: str, given: dict[str, Any]) -> None:
    from moeopt.running import read_running

    read_running(path, TRACE, **given)


def _partial(path: str, given: dict[str, Any]) -> None:
    from moeopt.streamed import Streamed

    Streamed.read(path)


def _placement(path: str, given: dict[str, Any]) -> None:
    from moeopt.api import read_placement

    read_placement(path)


def _earlier(path: str, given: dict[str, Any]) -> None:
    from moeopt.resuming import known_layers

    known_layers(path, problem())


def _instance(path: str, given: dict[str, Any]) -> None:
    from moeopt.instance import Instance

    Instance.load(path)


READERS: dict[str, Callable[[str, dict[str, Any]], None]] = {
    "traffic": _traffic,
    "addition": _addition,
    "running": _running,
    "partial": _partial,
    "placement": _placement,
    "certificate": _earlier,
    "instance": _instance,
}
