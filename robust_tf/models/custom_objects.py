"""Custom layers and functions in Keras's descriptions of networks: found, imported, handed over.

A description names the module of each. It may come from anybody, so that nothing is taken from a
module but layers and their kin, and functions that are registered with Keras.
"""

import contextlib
import importlib
import os
import sys
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

import keras

import robust_tf.layers  # noqa: F401  (of which models may have some, as of the next)
from robust_tf.errors import Unavailable, one_line
from robust_tf.models import correction, layers  # noqa: F401

_KINDS = (
    keras.layers.Layer,
    keras.initializers.Initializer,
    keras.regularizers.Regularizer,
    keras.constraints.Constraint,
)
_OURS = ("keras", "robust_tf")


def imported(module: str, argument: str, value: object) -> ModuleType:
    """Imports a module; those of the working directory are found, too.

    Args:
        module: its name.
        argument: the name of the argument that asks for it, for the error.
        value: what that argument is.

    Raises:
        Unavailable: if it is not there, or fails.
    """
    here = os.getcwd()
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.append(here)
    try:
        importlib.invalidate_caches()  # it may have been written a moment ago
        return importlib.import_module(module)
    except Exception as error:  # whatever a user's module raises
        found = isinstance(error, ModuleNotFoundError) and (error.name or "") in module
        why = "there is none of that name" if found else f"it fails ({one_line(error)})"
        problem = f"expected a module {module} in {here} or among installed packages; {why}"
        raise Unavailable(argument, value, problem) from error
    finally:
        if added:
            sys.path.remove(here)


def modules(description: Any) -> tuple[str, ...]:
    """The modules of the custom objects in a description, as far as they are known here.

    Args:
        description: what `keras.Model.get_config` or `to_json` gives, as dicts and lists.
    """
    found = set()
    for module, _, registered in _custom(description):
        custom = keras.saving.get_registered_object(registered)
        found.add(module or getattr(custom, "__module__", ""))
    return tuple(sorted(found - {"", "__main__"}))


@contextlib.contextmanager
def known(
    description: Any, argument: str, value: object, also: Iterable[str] = ()
) -> Iterator[None]:
    """While a description is read: Keras knows the custom objects in it.

    Args:
        description: as of `modules`.
        argument: the name of the argument that asks for it, for the error.
        value: what that argument is.
        also: modules to import besides; descriptions do not say where functions are.

    Raises:
        Unavailable: if one cannot be imported.
    """
    for module in also:
        imported(module, argument, value)
    found: dict[str, Any] = {}
    for module, name, registered in sorted(_custom(description)):
        if not _registered(registered, name):
            custom = getattr(imported(module, argument, value), name, None) if module else None
            if _registered(registered, name):  # by the import
                continue
            if not (isinstance(custom, type) and issubclass(custom, _KINDS)):
                where = f"in the module {module}" if module else "in a module that is imported"
                problem = f"expected {name} {where}: a layer, or with the decorator "
                problem += "@keras.saving.register_keras_serializable()"
                raise Unavailable(argument, value, problem)
            found |= {registered: custom, name: custom}
    with keras.saving.custom_object_scope(found):
        yield


def _registered(*names: str) -> bool:
    return any(keras.saving.get_registered_object(name) is not None for name in names if name)


def _custom(description: Any) -> set[tuple[str, str, str]]:
    """Module, name and registered name of all that Keras does not bring; "" for unknown ones."""
    if isinstance(description, list):
        return set().union(*map(_custom, description))
    if not isinstance(description, dict):
        return set()
    found = set().union(*map(_custom, description.values()))
    module, name = description.get("module") or "", description.get("class_name")
    registered = description.get("registered_name") or ""
    if name == "function" and isinstance(description.get("config"), str):
        name = description["config"]
        if module == "builtins" and ">" in name:
            found.add(("", name, name))
    elif isinstance(name, str) and registered and module.partition(".")[0] not in _OURS:
        found.add((module, name, registered))
    return found
