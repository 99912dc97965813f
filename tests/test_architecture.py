"""The laws of the house, each kept by a test."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import moeopt

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "moeopt"
FORMULATIONS = ROOT / "formulations" / "moeopt_formulations"
SOURCES = sorted([*PACKAGE.rglob("*.py"), *FORMULATIONS.rglob("*.py")])
OWN = sorted(PACKAGE.rglob("*.py"))
HEAVY = (
    "tokenizers",
    "torch",
    "transformers",
    "pymetis",
    "sklearn",
    "gurobipy",
    "highspy",
    "kahip",
    "matplotlib",
    "mtkahypar",
    "networkx",
    "numba",
    "ortools",
    "pandas",
    "pyarrow",
    "pyomo",
    "pyscipopt",
    "rich",
    "scipy",
    "typer",
)
CHECKERS = (
    "allocation_checker",
    "blocks_checker",
    "checker",
    "contents_checker",
    "counting_checker",
    "families_checker",
    "grouping_checker",
    "priced_checker",
    "rows_checker",
    "rows_tree_checker",
    "semidefinite_checker",
    "semidefinite_tree_checker",
    "usage_checker",
)
# A proof of kind "rows" is about a formulation's own statement: Pyomo and sparse arrays hold it, no solver is asked.
# Sweeps go on: whatever goes wrong in a run becomes a row with its reason.
RECORDERS = ("bench_rows", "bench_sweep")
STATEMENTS = ("moeopt.matrix", "moeopt.whole_model")
PROVERS = (
    "allocation",
    "block_bounds",
    "block_descents",
    "block_kernel",
    "block_overlaps",
    "block_prices",
    "block_range",
    "block_search",
    "branching",
    "claims",
    "columns",
    "content_bounds",
    "content_kernels",
    "content_listing",
    "content_prices",
    "content_search",
    "cover_kernel",
    "dispatch_prices",
    "exact",
    "exact_cover",
    "exchanges",
    "fixing",
    "grouping_kernels",
    "grouping_relaxation",
    "grouping_search",
    "hypermetric",
    "inclusion",
    "matching",
    "multipliers",
    "priced_partition",
    "pricing",
    "rows",
    "rowsearch",
    "searched",
    "semidefinite",
    "semidefinite_rounding",
    "semidefinite_tree",
    "set_partition",
    "sifting",
    "statement",
    "tail_columns",
    "tail_partition",
    "tail_prices",
    "triples",
    "usage_kernels",
    "wide",
)
FORBIDDEN = ("utils", "tmp", "data2", "phy2log")
LONGEST = 300
Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def module_of(path: Path) -> str:
    """Dotted name of a source file."""
    base = PACKAGE.parent if path.is_relative_to(PACKAGE) else FORMULATIONS.parent
    parts = path.relative_to(base).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, *, annotations: bool = False) -> Iterator[str]:
    """Modules a file imports anywhere in it, those for annotations alone only when asked for."""

    def visit(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        guarded = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if isinstance(node, ast.If) and guarded and not annotations:
            children: list[ast.AST] = list(node.orelse)
        else:
            children = list(ast.iter_child_nodes(node))
        for child in children:
            yield from visit(child)

    yield from visit(parse(path))


def public_functions(path: Path) -> Iterator[tuple[str, Function, bool]]:
    """(qualified name, function, whether it is a method) of everything public in a file."""
    for node in parse(path).body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield node.name, node, False
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for inner in node.body:
                if isinstance(inner, Function) and (
                    not inner.name.startswith("_") or inner.name in ("__init__", "__post_init__")
                ):
                    yield f"{node.name}.{inner.name}", inner, True


def decorators(function: Function) -> set[str]:
    return {ast.unparse(decorator).partition("(")[0] for decorator in function.decorator_list}


def test_importing_the_library_loads_no_heavy_package() -> None:
    script = f"import sys, moeopt; print([name for name in {HEAVY!r} if name in sys.modules])"
    path = [str(PACKAGE.parent), str(FORMULATIONS.parent)]
    code = f"import sys; sys.path[:0] = {path!r}\n{script}"
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


def test_every_public_name_exists_and_loads() -> None:
    for name in moeopt.__all__:
        assert getattr(moeopt, name) is not None
    assert sorted(moeopt.__all__) == sorted(set(moeopt.__all__))
    assert set(moeopt.__all__) <= set(dir(moeopt))


def test_no_heavy_package_is_imported_at_the_top_of_what_users_import() -> None:
    """Every value object can be imported with NumPy alone."""
    modules = [
        "trace",
        "workload",
        "cluster",
        "placement",
        "problem",
        "dispatch",
        "stop",
        "result",
        "certificate",
        "method",
        "exact",
        "reference",
        "weights",
        "storage",
        "checker",
        "registry",
        "api",
    ]
    code = f"import sys; sys.path[:0] = {[str(PACKAGE.parent)]!r}\n"
    code += "".join(f"import moeopt.{module}\n" for module in modules)
    code += f"print([name for name in {HEAVY!r} if name in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("path", OWN, ids=name_of)
def test_the_library_never_imports_the_formulations(path: Path) -> None:
    assert not [name for name in imports(path, annotations=True) if name.startswith("moeopt_formulations")]


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_checker_imports_neither_solver_nor_prover(checker: str) -> None:
    by_name = {module_of(path): path for path in OWN}
    reached, todo = set(), [f"moeopt.{checker}"]
    others: set[str] = set()
    while todo:
        module = todo.pop()
        reached.add(module)
        for name in imports(by_name[module]):
            if name in by_name:
                if name not in reached:
                    todo.append(name)
            elif not name.startswith("moeopt") and module not in STATEMENTS:
                others.add(name.partition(".")[0])
    wrong = {module for module in reached if module.split(".")[1:2] and module.split(".")[1] in PROVERS}
    wrong |= {module for module in reached if module.startswith(("moeopt.solvers", "moeopt.heuristics"))}
    assert not wrong, sorted(wrong)
    assert not others & {"highspy", "pyomo", "networkx", "scipy", "moeopt_formulations"}, sorted(others)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_function_bears_the_name_of_a_module(path: Path) -> None:
    modules = {module_of(source).rpartition(".")[2] for source in SOURCES}
    functions = {name for name, _, method in public_functions(path) if not method}
    assert sorted(functions & modules) == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_module_is_longer_than_a_few_screens(path: Path) -> None:
    length = len(path.read_text(encoding="utf-8").splitlines())
    assert length <= LONGEST


@cache
def promised() -> frozenset[str]:
    """Methods that a protocol or abstract class documents for all that implement them."""
    names = set()
    for path in SOURCES:
        for node in parse(path).body:
            if isinstance(node, ast.ClassDef) and {ast.unparse(base) for base in node.bases} & {
                "ABC",
                "Protocol",
            }:
                names |= {
                    inner.name
                    for inner in node.body
                    if isinstance(inner, Function) and ast.get_docstring(inner)
                }
    return frozenset(names)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_everything_public_says_what_it_is(path: Path) -> None:
    tree = parse(path)
    silent = [] if ast.get_docstring(tree) else ["the module"]
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node):
            silent.append(node.name)
    for name, function, method in public_functions(path):
        if method and function.name in promised():
            continue
        short = {"property", "cached_property"} & decorators(function) or function.name.startswith("__")
        if not short and "overload" not in decorators(function) and not ast.get_docstring(function):
            silent.append(name)
    assert not silent


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_everything_public_is_annotated(path: Path) -> None:
    bare = []
    for name, function, method in public_functions(path):
        given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        given += [part for part in (function.args.vararg, function.args.kwarg) if part is not None]
        if method and "staticmethod" not in decorators(function):
            given = given[1:]
        bare += [f"{name}({part.arg})" for part in given if part.annotation is None]
        if function.returns is None:
            bare.append(f"{name} -> ?")
    assert not bare


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_public_functions_take_at_most_two_positional_parameters(path: Path) -> None:
    """`self` excluded; kernels (Numba compiles no keyword-only parameters) and commands excluded as well."""
    many = []
    for name, function, method in public_functions(path):
        if decorators(function) & {"njit", "app.command"} or function.name.startswith("__"):
            continue
        positional = [*function.args.posonlyargs, *function.args.args]
        if method and "staticmethod" not in decorators(function):
            positional = positional[1:]
        if len(positional) > 2:
            many.append(f"{name}({', '.join(part.arg for part in positional)})")
    assert not many


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_errors_are_neither_swallowed_nor_asserted(path: Path) -> None:
    wrong = []
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Assert) and path.name != "testing.py":  # it is a test that users call
            wrong.append(f"line {node.lineno}: assert")
        if isinstance(node, ast.ExceptHandler):
            caught = "" if node.type is None else ast.unparse(node.type)
            reraised = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
            recorded = path.stem in RECORDERS and caught == "Exception"
            if (caught in ("", "Exception") and not recorded) or (caught == "BaseException" and not reraised):
                wrong.append(f"line {node.lineno}: except {caught}")
    assert not wrong


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_names_are_those_of_the_vocabulary(path: Path) -> None:
    assert not set(path.with_suffix("").parts[len(ROOT.parts) :]) & set(FORBIDDEN)
    found = set()
    for node in ast.walk(parse(path)):
        for field in ("name", "id", "arg", "attr"):
            value = getattr(node, field, None)
            if isinstance(value, str) and value.strip("_") in FORBIDDEN:
                found.add(value)
    assert not found


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_modules_print_nothing_and_configure_no_logging(path: Path) -> None:
    if path.name in ("cli.py", "terminal.py"):
        return
    calls = {ast.unparse(node.func) for node in ast.walk(parse(path)) if isinstance(node, ast.Call)}
    assert not calls & {"print", "logging.basicConfig"}
