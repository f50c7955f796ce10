"""How the face of a package, its `__init__`, hands out its names.

TensorFlow, pandas and the libraries of figures take seconds to import: who asks a package for
one name waits for the module that has it, and for no other.
"""

import importlib
import sys
from collections.abc import Callable, Mapping


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
        module = importlib.import_module(f"{package}.{modules.get(name, name)}")
        value = getattr(module, name) if name in modules else module
        setattr(face, name, value)  # asked for once
        return value

    def names() -> list[str]:
        return sorted({*vars(face), *face.__all__})

    return import_, names
