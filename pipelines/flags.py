"""Flags from declared settings: argv to values, and help. No state outlives a call."""

import dataclasses
import os
import re
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from absl import flags

from robust_tf.errors import InvalidArgument
from robust_tf.settings import Declared

# Settings by the title of their group in the help.
Groups = Mapping[str, Sequence[Declared]]

_INDENT = " " * 6
_HELP = {"-h", "-help", "--help", "--helpshort", "--helpfull"}


class FlagError(ValueError):
    """A line of flags that cannot be parsed."""


class HelpAsked(Exception):
    """Somebody asks for help."""


@dataclasses.dataclass(frozen=True)
class Values:
    """What a command line says.

    Attributes:
        given: the flags that are there, by name.
        others: the arguments that are no flags.
        defaults: the defaults of all flags.
    """

    given: dict[str, Any]
    others: list[str]
    defaults: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        """A flag's value, or its default; None where it has none."""
        if name.startswith("_") or name not in self.defaults:
            raise AttributeError(name)
        return self.given.get(name, self.defaults[name])

    def of(self, names: Iterable[str]) -> dict[str, Any]:
        """Those of some flags that are there."""
        return {name: self.given[name] for name in names if name in self.given}


def parse(argv: Sequence[str], groups: Groups) -> Values:
    """Parses a command line.

    Args:
        argv: the program's name, then the arguments.
        groups: the flags.

    Raises:
        FlagError: if there is an unknown flag, or one without its value.
        InvalidArgument: if a value is not allowed.
        HelpAsked: if a flag asks for help.
    """
    if _HELP & set(argv[1:]):
        raise HelpAsked
    declared = {one.name: one for group in groups.values() for one in group}
    parsed = flags.FlagValues()
    for name, one in declared.items():
        define = flags.DEFINE_boolean if one.setting.type is bool else flags.DEFINE_string
        define(name, None, one.setting.help, flag_values=parsed)
    try:
        _, *others = parsed(argv)
    except flags.IllegalFlagValueError as error:  # only of flags that are true or false
        named = re.match(r"flag (--\w+=.*?): ", str(error))
        raise FlagError(f"{named[1] if named else error}: expected true or false") from None
    except flags.Error as error:
        raise FlagError(str(error)) from None
    given = {}
    for name, one in declared.items():
        value = parsed[name].value
        if parsed[name].present and value is not None:
            if one.setting.type is str:
                value = _path(name, value)
            read = value if isinstance(value, bool) else one.setting.read(name, value)
            given[name] = one.setting.check(name, read)
    others = [_path("argument", other) for other in others]
    return Values(given, others, {name: _default(one) for name, one in declared.items()})


def _path(name: str, text: str) -> str:
    """A text with the user's home for `~`, which no shell puts there behind "--name="."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(name, text, f"text in {sys.getfilesystemencoding()}") from None
    if "\0" in text:
        raise InvalidArgument(name, text.replace("\0", "\\0"), "text without null characters")
    return os.path.expanduser(text)


def _default(one: Declared) -> Any:
    return None if one.default is dataclasses.MISSING else one.default


def usage(doc: str, groups: Groups, words: Mapping[str, str]) -> str:
    """The help of a command.

    Args:
        doc: what it does.
        groups: its flags.
        words: defaults in words, by flag, where they are no constants.
    """
    lines = [doc.strip()]
    for title, group in groups.items():
        lines += ["", f"{title}:"]
        for one in group:
            name = f"[no]{one.name}" if one.setting.type is bool else one.name
            choices = f" <{'|'.join(one.setting.choices)}>" if one.setting.choices else ""
            default = words.get(one.name) or one.setting.default or _in_words(one.default)
            text = one.setting.help + (f" By default {default}." if default else "")
            lines.append(f"  --{name}:{choices}")
            lines += textwrap.wrap(text, 92, initial_indent=_INDENT, subsequent_indent=_INDENT)
    return "\n".join(lines)


def _in_words(value: Any) -> str:
    if value is dataclasses.MISSING or value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else f"{value}"
