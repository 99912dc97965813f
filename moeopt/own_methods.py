"""A method of one's own by where its class stands: `file.py:Class` or `package.module:Class`."""

import os
import re
import sys
from dataclasses import is_dataclass
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from moeopt.exact import Exact
from moeopt.method import Method

__all__ = ["method_identity", "own_method"]

DIGITS = 8  # of a digest of sources


def own_method(place: str) -> Method:
    """The method, or the exact method of the formulation, that `place` names, with default settings.

    The module is executed. The folder of a file joins `sys.path`, so that worker processes find it too. Raises
    ValueError for a file or module that cannot be imported, a class it does not have, and one that is no method.
    """
    source, _, name = place.rpartition(":")
    module = _module(source, name)
    found = getattr(module, name, None)
    if not isinstance(found, type):
        own = sorted(
            key
            for key, value in vars(module).items()
            if isinstance(value, type) and value.__module__ == module.__name__
        )
        raise ValueError(
            f"{place}: {source} has no class {name!r}; its classes are {', '.join(own) or 'none'}"
        )
    try:
        made: Any = found()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place} has no default settings: {type(error).__name__}: {error}") from error
    if isinstance(made, Method):
        if not (isinstance(getattr(made, "name", None), str) and is_dataclass(made)):
            raise ValueError(f"{place}: a method is a frozen dataclass with a name")
        return made
    if all(hasattr(made, part) for part in ("name", "supports", "build", "read")):
        return Exact(made)
    raise ValueError(f"{place} is neither a method nor a formulation")


def method_identity(name: str, method: Method) -> str:
    """What tells a method from all others: its repr, and of one's own before it where it stands, behind it its source.

    `name` is the method as asked for. The source is a short SHA-256 of the module named and of that of the class; what
    they import is not part of it.
    """
    if ":" not in name:
        return repr(method)
    source = name.rpartition(":")[0]
    made = method.formulation if isinstance(method, Exact) else method
    modules = dict.fromkeys((_module_name(source), type(made).__module__))
    files = [getattr(sys.modules.get(module), "__file__", None) for module in modules]
    content = b"".join(Path(file).read_bytes() for file in files if file and Path(file).is_file())
    settings = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(method))  # an address is another in every process
    return f"{name} {settings} [{sha256(content).hexdigest()[:DIGITS]}]"


def _module(source: str, name: str) -> ModuleType:
    if source.endswith(".py"):
        return _from_file(Path(source))
    if not all(part.isidentifier() for part in source.split(".")):
        meant = os.sep in source or Path(f"{source}.py").is_file()
        hint = f"; did you mean {source}.py:{name}?" if meant and name else ""
        raise ValueError(f"{source}:{name}: a module or file.py is wanted, found {source!r}{hint}")
    return _imported(source, f"{source}:{name}")


def _module_name(source: str) -> str:
    return Path(source).stem if source.endswith(".py") else source


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    if "." in path.stem:
        raise ValueError(f"{path}: the name of a module has no dots, the file needs another name")
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
    except (ImportError, SyntaxError, ValueError, SystemExit) as error:  # others need their own traceback
        raise ValueError(f"{place} cannot be imported: {type(error).__name__}: {error}") from error
