"""How the face of a package, its `__init__`, hands out its names.

TensorFlow, pandas and the libraries of figures take seconds to import: who asks a package for
one name waits for the module that has it, and for no other.
"""

import importlib
import sys
import threading
from collections.abc import Callable, Mapping

# TensorFlow and Keras do not survive that two threads import them at once. After so many seconds
# a thread goes on without the lock: the other may wait for what this one imports already.
_IMPORTING, _PATIENCE = threading.RLock(), 30.0


def on_use(
    package: str, places: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package that imports its names when they are used.

    Args:
        package: its `__name__`; its `__all__` has the names, below this call or above.
        places: names, separated by spaces, by the module of the package that has them. Other
            names of `__all__` are modules of the package themselves.
    """
    modules = {name: module for module, names in places.items() for name in names.split()}
    face = sys.modules[package]

    def import_(name: str) -> object:
        if name not in face.__all__:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        alone = _IMPORTING.acquire(timeout=_PATIENCE)
        try:
            module = importlib.import_module(f"{package}.{modules.get(name, name)}")
        finally:
            if alone:
                _IMPORTING.release()
        value = getattr(module, name) if name in modules else module
        setattr(face, name, value)  # asked for once
        return value

    def names() -> list[str]:
        return sorted({*vars(face), *face.__all__})

    return import_, names
