"""Settings, declared once: what a field or keyword argument takes, in types and in words.

Flags, checks, help and columns are derived from these declarations by walking them. Nothing
here knows of images or models.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Callable
from typing import Any

from robust_tf.errors import InvalidArgument


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a setting is, as the annotation of a field or keyword argument.

    `epochs: Annotated[int, whole("Passes over the training images.")] = 20`

    Attributes:
        help: what it does, one sentence or more.
        type: of its flag: int, float, bool, or str.
        expected: what is allowed, completing "expected …".
        allows: whether a value is allowed.
        choices: the values allowed, where they are few.
        parse: makes a value of a flag's text, where the type alone does not.
    """

    help: str
    type: type = str
    expected: str = ""
    allows: Callable[[Any], bool] = lambda value: True
    choices: tuple[str, ...] = ()
    parse: Callable[[Any], Any] | None = None

    def check(self, name: str, value: Any) -> Any:
        """The value, parsed.

        Raises:
            InvalidArgument: if it is not allowed; the error names the setting.
        """
        if self.parse is not None:
            value = self.parse(value)
        if not self.allows(value):
            raise InvalidArgument(name, value, self.expected)
        return value


def _is_number(value: Any, kinds: type | types.UnionType) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)


def whole(help: str, at_least: int = 1) -> Setting:
    """A whole number."""
    return Setting(
        help,
        int,
        f"a whole number from {at_least} on",
        lambda value: _is_number(value, int) and value >= at_least,
    )


def number(
    help: str,
    at_least: float = -math.inf,
    at_most: float = math.inf,
    *,
    above: float = -math.inf,
    below: float = math.inf,
    noun: str = "a number",
) -> Setting:
    """A finite number within bounds."""
    if above > -math.inf:
        words = f"{noun} above {above:g}"
    elif at_least > -math.inf:
        words = f"{noun} from {at_least:g}"
        words += f" to {at_most:g}" if at_most < math.inf else ""
        words += f" to below {below:g}" if below < math.inf else ""
        words += " on" if min(at_most, below) == math.inf else ""
    else:
        words = noun
    return Setting(
        help,
        float,
        words,
        lambda value: (
            _is_number(value, int | float)
            and at_least <= value <= at_most
            and above < value < below
        ),
    )


def choice(help: str, names: typing.Iterable[str]) -> Setting:
    """One of some names."""
    names = tuple(names)
    return Setting(help, str, f"one of {', '.join(names)}", names.__contains__, names)


def switch(help: str) -> Setting:
    """True or false."""
    return Setting(help, bool, "true or false", lambda value: isinstance(value, bool))
