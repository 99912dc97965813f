"""An instance on disk is the statement it was, digit by digit; a damaged one is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from benchmarks.instances import GENERATORS
from moeopt.instance import Instance
from moeopt.matrix import Matrix, canonical
from moeopt_formulations.pairs import Pairs

MATRIX = Matrix(
    cost=np.array([0.1, -(2.0**60), 3.0]),
    offset=1e-300,
    lower=np.array([-np.inf, 0.0, 1.0]),
    upper=np.array([np.inf, 1.0, 5.0]),
    integer=np.array([False, True, True]),
    rows=csr_array(np.array([[0.0, 1.0 / 3.0, 0.0], [0.0, 0.0, 0.0], [7.0, 0.0, -2.0]])),
    row_lower=np.array([-np.inf, 0.0, 2.0]),
    row_upper=np.array([4.0, 0.0, np.inf]),
    column_names=("x[0]", "x[1]", "t"),
)


def kept(folder: Path, *, kind: str = "placements", **fields: Any) -> Path:
    problem = GENERATORS[kind](np.random.default_rng(3))
    given = {"matrix": MATRIX, "least": 12, "said": {"reason": "they differ"}, **fields}
    path = folder / "one.json"
    Instance.of(Pairs(), problem, **given).save(path)
    return path


@pytest.mark.parametrize("kind", GENERATORS)
def test_every_type_of_problem_is_kept_with_its_statement(kind: str, tmp_path: Path) -> None:
    path = kept(tmp_path, kind=kind)
    back = Instance.load(path)
    assert canonical(back.matrix, digits=17) == canonical(MATRIX, digits=17)
    for name in ("cost", "lower", "upper", "row_lower", "row_upper", "integer"):
        assert getattr(back.matrix, name).tolist() == getattr(MATRIX, name).tolist()
    assert back.matrix.rows.toarray().tolist() == MATRIX.rows.toarray().tolist()
    assert back.matrix.offset == MATRIX.offset
    assert back.matrix.column_names == MATRIX.column_names
    assert (back.formulation, back.least, back.said) == (repr(Pairs()), 12, {"reason": "they differ"})
    problem = GENERATORS[kind](np.random.default_rng(3))
    assert back.problem["digest"] == problem.digest
    assert back.problem["type"] == type(problem).__name__
    assert back.problem["fields"]
    assert {"python", "numpy", "moeopt", "highspy"} <= back.versions.keys()


def test_nothing_admissible_is_kept_as_such(tmp_path: Path) -> None:
    assert Instance.load(kept(tmp_path, least=None)).least is None


def test_a_statement_without_rows_is_kept_too(tmp_path: Path) -> None:
    empty = Matrix(
        cost=np.ones(2),
        lower=np.zeros(2),
        upper=np.ones(2),
        integer=np.ones(2, bool),
        rows=csr_array((0, 2)),
        row_lower=np.zeros(0),
        row_upper=np.zeros(0),
    )
    assert Instance.load(kept(tmp_path, matrix=empty)).matrix.rows.shape == (0, 2)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("cost", [1.0], r"cost must have shape \(3,\)"),
        ("cost", [1.0, None, 2.0], "cost must hold numbers"),
        ("cost", ["1", 2, 3], "cost must hold numbers"),
        ("cost", 3, "field 'cost' must be list"),
        ("lower", [9, 9, 9], "lower <= upper must hold"),
        ("integer", [0, 1, 1], "integer must hold true or false"),
        ("column_names", [1, 2, 3], "column_names must hold names"),
        ("column_names", ["x"], "column_names must be empty or hold 3 names"),
        ("starts", [0, 1, 1], ""),
        ("starts", [0, 9, 9, 9], ""),
        ("starts", [], ""),
        ("indices", [7, 0, 2], ""),
        ("indices", [-1, 0, 2], ""),
        ("values", [1.0], ""),
        ("offset", "0", "field 'offset' must be"),
    ],
)
def test_a_damaged_statement_is_refused_with_its_file(
    field: str, value: Any, words: str, tmp_path: Path
) -> None:
    path = kept(tmp_path)
    document = json.loads(path.read_text())
    document["matrix"][field] = value
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=rf"one\.json: .*{words}"):
        Instance.load(path)


def test_another_document_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text('{"format": "moeopt-result", "version": 1}')
    with pytest.raises(
        ValueError, match=r"other\.json: format must be 'moeopt-instance', found 'moeopt-result'"
    ):
        Instance.load(path)
    whole = json.loads(kept(tmp_path).read_text())
    for name in ("formulation", "problem", "matrix", "least", "said", "versions"):
        path.write_text(json.dumps({key: value for key, value in whole.items() if key != name}))
        with pytest.raises(ValueError, match=rf"other\.json: field '{name}' is missing"):
            Instance.load(path)
