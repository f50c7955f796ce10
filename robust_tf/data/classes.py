"""Lists of classes of two origins, a model's and a dataset's say: the same classes or not.

Classes are known by their names, whatever their order and however Unicode writes their accents.
TFDS gives a dataset without names the numbers from 0 on; they name nothing.
"""

from __future__ import annotations

import math
import os
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from robust_tf.errors import InvalidArgument

if TYPE_CHECKING:
    import numpy as np

# Names of a list that a message shows, and characters of each.
_SHOWN = 4
_CHARACTERS = 24


def in_order(names: Iterable[str]) -> list[str]:
    """Names of classes sorted: as numbers where all are numbers that differ, else as texts."""
    names = sorted(names)
    if all(map(is_number, names)) and len({*map(Decimal, names)}) == len(names):
        names.sort(key=Decimal)
    return names


def is_number(text: str) -> bool:
    """Whether a text is a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def numbered(names: Sequence[str]) -> bool:
    """Whether names are only the places of their classes: 0, 1, 2, …."""
    return list(names) == [str(place) for place in range(len(names))]


def places(
    names: Sequence[str], like: Sequence[str], *, argument: str, value: str, other: str
) -> list[int] | None:
    """Where the classes of one list are in another.

    A warning says where the order differs, and where one list only has numbers, so that the
    classes are taken in order.

    Args:
        names: the list that is searched, of unique names.
        like: as many names.
        argument: the argument that chose `like`, for the error.
        value: its value.
        other: what `names` belongs to, such as "the model digits/1".

    Returns:
        For each name of `like` its place in `names`; None where the order is the same.

    Raises:
        InvalidArgument: if the lists have different classes.
    """
    names, like = ([unicodedata.normalize("NFC", one) for one in two] for two in (names, like))
    if names == like:
        return None
    found = _difference(names, like)
    if len(names) == len(set(names)) and sorted(names) == sorted(like):
        order = f"{listed(names)} instead of {listed(like)}{found}"
        warnings.warn(
            f"{other} has the classes of {value} in another order, {order}: matched by name",
            stacklevel=3,
        )
        return [names.index(name) for name in like]
    if len(names) == len(like) and (numbered(names) or numbered(like)):
        warnings.warn(
            f"the classes of {other} ({listed(names)}) and of {value} ({listed(like)}) "
            f"are taken in order: one has numbers for names{found}",
            stacklevel=3,
        )
        return None
    expected = (
        f"the classes of {other}, {listed(names)}{found}; or --same_classes if they are the same"
    )
    raise InvalidArgument(argument, f"{value} ({listed(like)})", expected)


def _difference(names: Sequence[str], like: Sequence[str]) -> str:
    """The first names that differ, of lists that look the same where they are `listed`."""
    if listed(names) != listed(like):
        return ""
    if len(names) != len(like):
        return f" ({len(names)} instead of {len(like)})"
    place = next(place for place, name in enumerate(names) if name != like[place])
    first, second = names[place], like[place]
    start = len(os.path.commonprefix([first, second]))
    if start < _CHARACTERS // 2:
        start = 0
    shown = [listed([f"…{one[start - 4 :]}" if start else one]) for one in (first, second)]
    if shown[0] == shown[1]:  # in spaces, or in what is not seen
        shown = [listed([ascii(one[start:])]) for one in (first, second)]
    return f" (class {place} is {shown[0]} instead of {shown[1]})"


def listed(names: Sequence[str]) -> str:
    """The first of some names, each in one line."""
    shown = []
    for name in names[:_SHOWN]:
        line = " ".join(str(name).split())
        shown.append(line if len(line) <= _CHARACTERS else f"{line[: _CHARACTERS - 1]}…")
    return ", ".join([*shown, "…"] if len(names) > _SHOWN else shown)


def check_labels(
    labels: np.ndarray, classes: int, *, argument: str, value: str | None = None
) -> None:
    """Raises `InvalidArgument` if a label is none of so many classes, such as -1 for unknown."""
    outside = labels[(labels < 0) | (labels >= classes)]
    if len(outside):
        expected = f"labels from 0 to {classes - 1}, not {outside[0]} as {len(outside):,} have"
        raise InvalidArgument(argument, value, f"{expected} of {len(labels):,}")
