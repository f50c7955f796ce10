"""Files of defect maps: CSV, and the text of LibRaw and dcraw."""

import csv
import io
import math
import os
import re
from pathlib import Path

import numpy as np

from robust_tf.errors import InvalidArgument, Unavailable, one_line
from robust_tf.sensors.names import NAMED

LARGEST = 2**53  # whole numbers up to here are exact in a table's cells
_COLUMNS = ("row", "column", "channel", "kind", "value", "offset", "since")
_SHOWS = ("kind", "value", "offset")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)


def read(path: str | os.PathLike, value: float) -> tuple[list[int], np.ndarray]:
    """Reads a file; arguments and errors as of `DefectMap.read`.

    Returns:
        The line of each defect, from 1; and its row, column, channel (-1 for all), value (NaN for
        none), offset and since, float64 of shape [6, n]. Numbers are in range.
    """
    if Path(path).is_dir():
        raise InvalidArgument("defects", path, "a file, not a folder")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        expected = f"text in UTF-8; byte {error.start} is {error.object[error.start]:#04x}"
        raise InvalidArgument("defects", path, expected) from None
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise Unavailable("defects", path, f"it cannot be read ({reason})") from error
    lines = [(n, line.strip()) for n, line in enumerate(text.splitlines(), 1)]
    if not any(line for _, line in lines):
        expected = "a header with row and column, or lines of column, row and UNIX time"
        raise InvalidArgument("defects", path, f"{expected}; the file is empty")
    lines = [(n, line) for n, line in lines if line and not line.startswith("#")]
    is_libraw = not lines or re.match(r"[+-]?[0-9.]+(\s|$)", lines[0][1]) is not None
    header = [] if is_libraw else _header(path, *lines.pop(0))
    found = []
    for n, line in lines:
        try:
            found.append(_of_libraw(line, value) if is_libraw else _of_csv(line, header))
        except ValueError as error:
            raise InvalidArgument("defects", path, f"{error} (line {n})") from None
    return [n for n, _ in lines], np.array(found, np.float64).reshape(-1, 6).T


def libraw_text(
    rows: np.ndarray, columns: np.ndarray, channels: np.ndarray, values: np.ndarray,
    offsets: np.ndarray, since: np.ndarray,
) -> str:  # fmt: skip
    """LibRaw's text of a map, which says neither channels nor what pixels show."""
    lines = [f"{column} {row} {time}" for column, row, time in zip(columns, rows, since)]
    return "\n".join(["# column row unixtime", *lines, ""])


def csv_text(
    rows: np.ndarray, columns: np.ndarray, channels: np.ndarray, values: np.ndarray,
    offsets: np.ndarray, since: np.ndarray,
) -> str:  # fmt: skip
    """A map as CSV, with the columns that are needed."""
    table: dict[str, list] = {"row": rows.tolist(), "column": columns.tolist()}
    if (channels >= 0).any():
        table["channel"] = ["" if one < 0 else one for one in channels.tolist()]
    names = {value: name for name, value in NAMED.items()}
    named = [names.get(value, "") for value in values.tolist()]
    has_value = ~np.isnan(values)
    if len(rows) == 0 or any(named):
        table["kind"] = named
    if any(own := has_value & (np.array(named) == "")):
        table["value"] = [str(value) if one else "" for one, value in zip(own, values)]
    if not has_value.all():
        table["offset"] = ["" if has else str(own) for has, own in zip(has_value, offsets)]
    if since.any():
        table["since"] = since.tolist()
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([table, *zip(*table.values())])
    return stream.getvalue()


def _header(path: str | os.PathLike, n: int, line: str) -> list[str]:
    """The columns of a CSV."""
    names = [name.strip().casefold() for name in line.replace('"', "").split(",")]
    problem = None
    if any(map(_NUMBER.fullmatch, names)):
        problem = "a header first, with names of columns"
    elif len(names) == 1 and re.search(r"[;\t]", line):
        problem = "cells separated by commas"
    elif unknown := [name for name in names if name not in _COLUMNS]:
        problem = f"no column {_printable(unknown[0]) or 'without a name'}"
    elif twice := [name for name in names if names.count(name) > 1]:
        problem = f"one column {twice[0]}"
    elif missing := [name for name in ("row", "column") if name not in names]:
        problem = f"a column {missing[0]}"
    elif not set(_SHOWS) & set(names):
        problem = f"a column {', '.join(_SHOWS)}"
    if problem:
        expected = f"{problem}, but some of {', '.join(_COLUMNS)} (line {n})"
        raise InvalidArgument("defects", path, expected)
    return names


def _of_csv(line: str, header: list[str]) -> tuple[float, ...]:
    """The six numbers of a defect; raises `ValueError` if a line has others."""
    try:
        cells = [cell.strip() for cell in next(csv.reader([line], strict=True))]
    except csv.Error:
        raise ValueError("short cells, quotes in pairs around whole ones") from None
    if len(cells) != len(header):
        raise ValueError(f"{len(header)} cells, as the header has, not {len(cells)}")
    own = dict(zip(header, cells))
    shown = [name for name in _SHOWS if own.get(name)]
    if len(shown) != 1:
        raise ValueError(f"one of {', '.join(_SHOWS)}, not {' and '.join(shown) or 'none'}")
    value, offset = math.nan, 0.0
    if shown == ["kind"]:
        kind = own["kind"].casefold()
        if kind not in NAMED:
            raise ValueError(f"kind {' or '.join(NAMED)}, not {_printable(own['kind'])}")
        value = NAMED[kind]
    elif shown == ["value"]:
        value = _cell("value", own["value"], 0, 1)
    else:
        offset = _cell("offset", own["offset"], -1, 1)
    channel = own.get("channel")
    return (
        _cell("row", own["row"]),
        _cell("column", own["column"]),
        _cell("channel", channel) if channel else -1,
        value,
        offset,
        _cell("since", own.get("since") or "0"),
    )


def _of_libraw(line: str, value: float) -> tuple[float, ...]:
    """Likewise of a line of LibRaw's text."""
    cells = line.partition("#")[0].split()
    if len(cells) != 3:
        raise ValueError(f"column, row and UNIX time, not {_printable(line)}")
    column, row, since = map(_cell, ("column", "row", "UNIX time"), cells)
    return row, column, -1, value, 0.0, since


def _cell(name: str, text: str, least: float = 0, most: float = math.inf) -> float:
    """The number in a cell, whole unless it has a highest one."""
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    whole = most == math.inf
    if least <= number <= min(most, LARGEST) and (not whole or number.is_integer()):
        return number
    bounds = (
        f"a whole number from {least:g} on" if whole else f"a number from {least:g} to {most:g}"
    )
    raise ValueError(f"{name} {bounds}, not {_printable(text) or 'an empty cell'}")


def _printable(text: str) -> str:
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= 60 else f"{text[:60]}…"
