"""Options of the micro-benchmarks."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """--small: every kernel once over quickly, at a size whose figures say nothing."""
    parser.addoption("--small", action="store_true", help="kernels at a small size, to see that they run")
