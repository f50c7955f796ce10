"""How networks and what is common to all of them are chosen by name; no network is made here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from robust_tf.settings import Setting

if TYPE_CHECKING:
    import keras

STANDARDIZATIONS = ("pixel", "global", "none")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")

# Layers in front of a network, `correction.CORRECTIONS`.
CORRECTION_KINDS = ("median", "outlier", "list")

# Networks of the user's own.
OWN_FORMS = "PATH.keras, package.module:function or keras.applications:NAME"
APPLICATION = "keras.applications:"
_FILES = (".keras", ".h5", ".hdf5")
VALUE_RANGE = Setting(
    "The values that black and white have in the input of a network of your own.",
    list,
    "two numbers, the lower first, such as 0,255",
    lambda value: value is None or _is_range(value),
    parse=lambda value: value if value is None else _numbers(value),
    default="0,1, or what a network of keras.applications takes",
)


def _numbers(texts: Iterable[Any]) -> tuple:
    try:
        return tuple(map(float, texts))
    except (TypeError, ValueError):
        return tuple(texts)


def _is_range(value: tuple) -> bool:
    return (
        len(value) == 2
        and all(isinstance(number, float) for number in value)
        and value[0] < value[1]
        and math.isfinite(value[1] - value[0])
    )


def is_file(model: str) -> bool:
    """Whether a text names a file of Keras's, whether it is there or not."""
    return model.endswith(_FILES)


def is_application(model: str | keras.Model) -> bool:
    """Whether a text names a network of `keras.applications`, whether it is there or not."""
    return isinstance(model, str) and model.startswith(APPLICATION)


def is_own(model: str | keras.Model) -> bool:
    """Whether a value is or names a network of the user's own, whether it is there or not."""
    if isinstance(model, str):
        return is_file(model) or re.fullmatch(r"[\w.]+:\w+", model) is not None
    import keras

    return isinstance(model, keras.Model)
