"""Formulations by name, for the checker: nothing but the formulation is loaded."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from moeopt.formulation import Formulation
from moeopt.statements import GROUP, named_formulation


@pytest.mark.parametrize("name", sorted(entry_points(group=GROUP).names))
def test_every_registered_formulation_is_found_by_the_name_it_gives_itself(name: str) -> None:
    formulation = named_formulation(name)
    assert isinstance(formulation, Formulation)
    assert formulation.name == name
    assert formulation.summary
    assert named_formulation(name) is formulation


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no formulation is named 'guess'; known are .*assignment, .*pairs"):
        named_formulation("guess")


def test_looking_one_up_loads_no_solver_and_no_modelling_language() -> None:
    code = (
        "import sys\nfrom moeopt.statements import named_formulation\nnamed_formulation('pairs')\n"
        "print([name for name in ('highspy', 'ortools', 'pyomo', 'scipy') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
