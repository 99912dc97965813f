"""A method of one's own by where its class stands: `file.py:Class` or `package.module:Class`."""

import sys
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from moeopt.exact import Exact
from moeopt.method import Method

__all__ = ["own_method"]


def own_method(place: str) -> Method:
    """The method, or the exact method of the formulation, that `place` names, with default settings.

    The module is executed. The folder of a file joins `sys.path`, so that worker processes find it too. Raises
    ValueError for a file or module that cannot be imported, a class it does not have, and one that is no method.
    """
    source, _, name = place.rpartition(":")
    module = _from_file(Path(source)) if source.endswith(".py") else _imported(source, place)
    found = getattr(module, name, None)
    if not isinstance(found, type):
        own = sorted(
            key
            for key, value in vars(module).items()
            if isinstance(value, type) and value.__module__ == module.__name__
        )
        raise ValueError(f"{source} has no class {name!r}; its classes are {', '.join(own) or 'none'}")
    try:
        made: Any = found()
    except TypeError as error:
        raise ValueError(f"{place} has no default settings: {type(error).__name__}: {error}") from error
    if isinstance(made, Method):
        if not (isinstance(getattr(made, "name", None), str) and is_dataclass(made)):
            raise ValueError(f"{place}: a method is a frozen dataclass with a name")
        return made
    if all(hasattr(made, part) for part in ("name", "supports", "build", "read")):
        return Exact(made)
    raise ValueError(f"{place} is neither a method nor a formulation")


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    module = _imported(path.stem, str(path))
    if module.__file__ is None or not path.samefile(module.__file__):
        raise ValueError(f"{path}: a module named {path.stem} is there already, the file needs another name")
    return module


def _imported(name: str, place: str) -> ModuleType:
    try:
        return import_module(name)
    except (ImportError, SyntaxError) as error:  # what else it raises is best read with its own traceback
        raise ValueError(f"{place} cannot be imported: {type(error).__name__}: {error}") from error
