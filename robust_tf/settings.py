"""Settings, declared once: fields of frozen dataclasses and keyword arguments of functions.

Flags, checks, help, columns and a run's name are derived from these declarations by one walk.
A field is one of these:

- `Annotated[int, whole("Passes over the training images.")]`: a setting;
- `Annotated[Adam | SGD, OneOf("What follows the gradients.", OPTIMIZERS)]`: a choice among
  dataclasses, each with settings of its own; the setting that chooses has the field's name;
- `Annotated[Perturbation, Parsed(...)]`: a value that several settings make;
- another dataclass: its settings;
- anything else: no setting, but a value that whoever makes the dataclass knows.

Nothing here knows of images or models.
"""

import dataclasses
import difflib
import functools
import inspect
import itertools
import math
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any

from robust_tf.errors import InvalidArgument


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a setting is.

    Attributes:
        help: what it does, one sentence or more.
        type: of its flag: int, float, bool, str, or list of str.
        expected: what is allowed, completing "expected …".
        allows: whether a value is allowed.
        choices: the allowed values, where they are few.
        parse: makes a value of a flag's, where the type alone does not.
        name: what it is called; by default as the field.
        default: the default in words, where it is no constant.
    """

    help: str
    type: type = str
    expected: str = "some text"
    allows: Callable[[Any], bool] = lambda value: value != ""
    choices: tuple[str, ...] = ()
    parse: Callable[[Any], Any] | None = None
    name: str = ""
    default: str = ""

    def read(self, name: str, text: str) -> Any:
        """The value that a flag's text stands for.

        Raises:
            InvalidArgument: if it stands for none.
        """
        if self.type is list:
            return [part.strip() for part in text.split(",")] if text else []
        try:
            return self.type(text)
        except ValueError:
            raise InvalidArgument(name, text, self.expected) from None

    def check(self, name: str, value: Any) -> Any:
        """The value, parsed.

        Raises:
            InvalidArgument: if it is not allowed.
        """
        parsed = value if self.parse is None else self.parse(value)
        if self.allows(parsed):
            return parsed
        raise InvalidArgument(name, value if isinstance(value, str) else parsed, self.expected)


@dataclasses.dataclass(frozen=True)
class Other:
    """What may be chosen besides the members of a choice.

    Attributes:
        kind: a dataclass with the settings that it has; whoever makes the whole makes it, too.
        expected: what is allowed, completing "or".
        allows: whether a value is allowed.
    """

    kind: type
    expected: str
    allows: Callable[[Any], bool]


@dataclasses.dataclass(frozen=True)
class OneOf:
    """A choice among dataclasses.

    Attributes:
        help: what is chosen, and what each member is.
        members: the dataclasses by name.
        default: the default in words, where it is no constant.
        other: what may be chosen besides; None for nothing.
    """

    help: str
    members: Mapping[str, type]
    default: str = ""
    other: Other | None = None

    @property
    def setting(self) -> Setting:
        """The setting that chooses."""
        setting = dataclasses.replace(choice(self.help, self.members), default=self.default)
        if (other := self.other) is None:
            return setting
        return dataclasses.replace(
            setting,
            expected=f"{setting.expected}, or {other.expected}",
            allows=lambda value: value in self.members or other.allows(value),
        )

    @property
    def kinds(self) -> tuple[type, ...]:
        """All dataclasses that may be chosen."""
        return (*self.members.values(), *([self.other.kind] if self.other else []))

    def name_of(self, member: Any) -> str:
        """The name of a member, or the text of a value that is none."""
        names = [name for name, kind in self.members.items() if type(member) is kind]
        return names[0] if names else str(member)


@dataclasses.dataclass(frozen=True)
class Parsed:
    """A value that several settings make.

    Attributes:
        settings: by name.
        parse: makes the value of all that is given, by name.
        show: the settings that make a value, by name.
    """

    settings: Mapping[str, Setting]
    parse: Callable[[Mapping[str, Any]], Any]
    show: Callable[[Any], dict[str, Any]]


def _is_number(value: Any, kinds: Any) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool) and abs(value) < 1e308


def whole(help: str, at_least: int = 1, at_most: float = math.inf, **more: Any) -> Setting:
    """A whole number."""

    def allows(value: Any) -> bool:
        return _is_number(value, int) and at_least <= value <= at_most

    bounds = f"from {at_least} " + ("on" if at_most == math.inf else f"to {at_most}")
    return Setting(help, int, f"a whole number {bounds}", allows, **more)


def number(
    help: str,
    at_least: float = -math.inf,
    at_most: float = math.inf,
    *,
    above: float = -math.inf,
    below: float = math.inf,
    noun: str = "a number",
    **more: Any,
) -> Setting:
    """A finite number within bounds."""
    if above > -math.inf:
        bounds = f"above {above:g}" + (f", at most {at_most:g}" if at_most < math.inf else "")
        bounds += f", below {below:g}" if below < math.inf else ""
    elif at_most < math.inf:
        bounds = f"from {at_least:g} to {at_most:g}"
    elif below < math.inf:
        bounds = f"from {at_least:g} to below {below:g}"
    else:
        bounds = f"from {at_least:g} on"

    def allows(value: Any) -> bool:
        if not _is_number(value, int | float):
            return False
        return at_least <= value <= at_most and above < value < below

    return Setting(help, float, f"{noun} {bounds}", allows, **more)


def choice(help: str, names: Iterable[str], **more: Any) -> Setting:
    """One of some names."""
    names = tuple(names)
    return Setting(help, str, f"one of {', '.join(names)}", names.__contains__, names, **more)


def names(help: str, allowed: Iterable[str] = (), empty: bool = True, **more: Any) -> Setting:
    """Some of some names, or any, each once; none of any only if `empty`."""
    allowed = tuple(allowed)

    def parse(value: Iterable[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(value))

    def allows(value: Any) -> bool:
        return set(value) <= set(allowed or value) and bool(value or (empty and not allowed))

    expected = f"some of {', '.join(allowed)}" if allowed else "one or more, separated by commas"
    return Setting(help, list, expected, allows, parse=parse, **more)


def switch(help: str, **more: Any) -> Setting:
    """True or false."""
    return Setting(help, bool, "true or false", lambda value: isinstance(value, bool), **more)


def wholes(help: str, at_least: int = 1, empty: bool = False, **more: Any) -> Setting:
    """Whole numbers, from a sequence or a text with commas; none only if `empty`."""

    def parse(value: Any) -> Any:
        texts = [text for text in value.split(",") if text] if isinstance(value, str) else value
        try:
            return tuple(int(text) for text in texts)
        except ValueError:
            return value

    def allows(value: Any) -> bool:
        if not isinstance(value, tuple) or not (value or empty):
            return False
        return all(_is_number(number, int) and number >= at_least for number in value)

    expected = f"whole numbers from {at_least} on, separated by commas"
    return Setting(help, str, expected, allows, parse=parse, **more)


def ages(help: str, **more: Any) -> Setting:
    """Rising numbers, from a sequence or a text such as "1,2.5,4"; "0:10" is 0, 1, … 10."""

    def parse(value: Any) -> Any:
        try:
            if isinstance(value, str):
                first, colon, last = value.partition(":")
                value = range(int(first), int(last) + 1)[:1001] if colon else value.split(",")
            return tuple(map(float, value))
        except (TypeError, ValueError):
            return value

    def allows(value: Any) -> bool:
        ends = (-1e-9, *value, 1000) if isinstance(value, tuple) and value else (0, 0)
        return all(a < b for a, b in itertools.pairwise(ends))

    expected = "rising numbers from 0 to below 1000, with commas, or a range such as 0:10"
    return Setting(help, str, expected, allows, parse=parse, **more)


@dataclasses.dataclass(frozen=True)
class Declared:
    """A setting where it is declared.

    Attributes:
        name: what it is called.
        setting: what it is.
        default: its default; `dataclasses.MISSING` where it has none.
        chosen_by: the setting whose choice decides whether it exists; empty for none.
    """

    name: str
    setting: Setting
    default: Any
    chosen_by: str = ""


@functools.cache
def _fields(kind: type) -> tuple[tuple[dataclasses.Field, Any], ...]:
    """The fields of a dataclass, each with what declares it."""
    hints = typing.get_type_hints(kind, include_extras=True)
    found = []
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        declares = hint if dataclasses.is_dataclass(hint) else None
        if typing.get_origin(hint) is Annotated:
            declares = hint.__metadata__[0]
        found.append((field, declares))
    return tuple(found)


def walk(kind: type, chosen_by: str = "") -> Iterator[Declared]:
    """All settings of a dataclass, in order; those of several members come for each."""
    for field, declares in _fields(kind):
        if isinstance(declares, Setting):
            name = declares.name or field.name
            yield Declared(name, declares, field.default, chosen_by)
        elif isinstance(declares, OneOf):
            default = field.default
            if default is not dataclasses.MISSING:
                default = declares.name_of(default)
            yield Declared(field.name, declares.setting, default, chosen_by)
            for member in declares.kinds:
                yield from walk(member, field.name)
        elif isinstance(declares, Parsed):
            for name, setting in declares.settings.items():
                yield Declared(name, setting, dataclasses.MISSING, chosen_by)
        elif declares is not None:
            yield from walk(declares, chosen_by)


def declared(kind: type) -> dict[str, Declared]:
    """All settings of a dataclass by name, in order."""
    found: dict[str, Declared] = {}
    for one in walk(kind):
        found.setdefault(one.name, one)
    return found


def check(kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of settings, each parsed and checked by itself.

    Args:
        kind: the dataclass that declares them.
        given: values by name.

    Raises:
        InvalidArgument: if a value is not allowed, or none of that name is declared.
    """
    known = declared(kind)
    checked = {}
    for name, value in given.items():
        if name not in known:
            expected = f"one of the settings {', '.join(known)}"
            if near := difflib.get_close_matches(name, known):
                expected = f"a setting that there is, such as {', '.join(near)}"
            raise InvalidArgument(name, value, expected)
        checked[name] = known[name].setting.check(name, value)
    return checked


def check_fields(value: Any) -> None:
    """Checks the settings among a dataclass's own fields, for its `__post_init__`.

    Raises:
        InvalidArgument: if one is not allowed.
    """
    kind: Any = type(value)
    for field, declares in _fields(kind):
        if isinstance(declares, Setting):
            name, own = declares.name or field.name, getattr(value, field.name)
            if own is not None or field.default is not None:
                object.__setattr__(value, field.name, declares.check(name, own))


def make(kind: type, values: Mapping[str, Any], asked: Iterable[str] = (), **known: Any) -> Any:
    """Makes a dataclass, and all that it holds, of settings.

    Args:
        kind: the dataclass.
        values: of settings, by name; others have their defaults. Values for members that are
            not chosen are left out,
        asked: but for those that a user has asked for, which are an error.
        **known: the fields that are no settings, or whose value is known anyway.

    Raises:
        InvalidArgument: if a setting belongs to another member than the chosen one.
    """
    used: set[str] = set()
    made = _make(kind, values, known, used)
    for name in asked:
        if name not in used:
            chooser = declared(kind)[name].chosen_by
            chosen = flatten(made)[chooser]
            raise InvalidArgument(name, values[name], f"no value with {chooser}={chosen}")
    return made


def _make(kind: type, values: Mapping[str, Any], known: Mapping[str, Any], used: set[str]) -> Any:
    arguments: dict[str, Any] = {}
    for field, declares in _fields(kind):
        if field.name in known:
            arguments[field.name] = known[field.name]
            used.add(field.name)
            if isinstance(declares, OneOf):
                used.update(flatten(known[field.name]))
        elif isinstance(declares, Setting):
            name = declares.name or field.name
            used.add(name)
            if name in values:
                arguments[field.name] = values[name]
        elif isinstance(declares, OneOf):
            used.add(field.name)
            chosen = values.get(field.name)
            member = type(field.default) if chosen is None else declares.members[chosen]
            arguments[field.name] = _make(member, values, {}, used)
        elif isinstance(declares, Parsed):
            used.update(declares.settings)
            arguments[field.name] = declares.parse(values)
        elif declares is not None:
            arguments[field.name] = _make(declares, values, {}, used)
    return kind(**arguments)


def flatten(value: Any) -> dict[str, Any]:
    """All settings of a dataclass and what it holds, by name, and its other fields."""
    flat: dict[str, Any] = {}
    kind: Any = type(value)
    for field, declares in _fields(kind):
        own = getattr(value, field.name)
        if isinstance(declares, Setting):
            flat[declares.name or field.name] = own
        elif isinstance(declares, OneOf):
            flat[field.name] = declares.name_of(own)
            flat |= flatten(own)
        elif isinstance(declares, Parsed):
            flat |= declares.show(own)
        elif declares is not None:
            flat |= flatten(own)
        else:
            flat[field.name] = own
    return flat


@functools.cache
def of_function(function: Callable) -> type:
    """A frozen dataclass of a function's keyword arguments that are settings.

    An instance is called as the function, with the arguments that are none.
    """
    own = function.__annotations__ | {"return": None}  # which may not be imported yet
    holder = types.SimpleNamespace(__annotations__=own)
    hints = typing.get_type_hints(holder, function.__globals__, include_extras=True)
    fields: list[tuple[str, Any, Any]] = []
    for name, parameter in inspect.signature(function).parameters.items():
        hint: Any = hints.get(name)
        if typing.get_origin(hint) is Annotated and isinstance(hint.__metadata__[0], Setting):
            fields.append((name, hint, dataclasses.field(default=parameter.default)))

    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return function(*arguments, **own, **named)

    namespace = {
        "__call__": call,
        "__doc__": function.__doc__,
        "__reduce__": lambda self: (_remake, (function, dataclasses.asdict(self))),
    }
    return dataclasses.make_dataclass(
        function.__name__, fields, frozen=True, kw_only=True, namespace=namespace
    )


def _remake(function: Callable, values: Mapping[str, Any]) -> Any:
    """An instance of `of_function`, for pickle, which cannot find such a class by its name."""
    return of_function(function)(**values)
