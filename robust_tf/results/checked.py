"""Tables of our own on disk: written with their digests, read back and checked.

A row counts if it is whole, in range, there once, and as it was written: `checksums.json`
beside the tables has a digest of each row, over our own columns. So a column of the user's,
another order of rows and another program's way to write a number change nothing.
"""

import csv
import hashlib
import io
import json
import math
import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pandas as pd

from robust_tf.errors import Unavailable, one_line
from robust_tf.files import replacing

CHECKSUMS = "checksums.json"
AGAIN = "remove the folder to train it again"
# What a table must have, by its name, and what a row of it is known by.
_REQUIRED = {
    "trials": ["run", "test_perturb", "test_level", "trial", "accuracy", "n_examples"],
    "history": ["epoch"],
    "runs": ["run"],
    "models": ["run", "tests", "trials"],
}
_KEYS = {
    "trials": ["run", "test_perturb", "test_level", "trial", "n_examples", "test_digest"],
    "history": ["run", "epoch"],
    "runs": ["run"],
    "models": ["run"],
}
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def write(
    table: pd.DataFrame,
    path: str | os.PathLike,
    columns: list[str],
    *,
    extra: Iterable[str] = (),
) -> None:
    """Writes a CSV and the digests of its rows, complete or not at all.

    Args:
        table: has at least the columns.
        path: the file; its folder must exist.
        columns: what to write, in this order.
        extra: columns of the user's, which follow and have no digest.
    """
    path = Path(path)
    text = table[[*columns, *extra]].to_csv(index=False)
    if path.stem in _REQUIRED:  # what is read back
        _note(path, columns, text)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _note(path: Path, columns: list[str], text: str) -> None:
    """Writes the digests of a table's rows."""
    known = _checksums(path) or {}
    rows = [_digest(dict(zip(columns, cells))) for cells in csv.reader(io.StringIO(text))][1:]
    # First: a row without its digest would not count, a digest without its row does no harm.
    with replacing(path.with_name(CHECKSUMS)) as temporary:
        own = {"columns": columns, "rows": rows}
        temporary.write_text(json.dumps({**known, path.name: own}) + "\n", encoding="utf-8")


def read(path: Path, *, lenient: bool = False, but: Iterable[str] | None = None) -> pd.DataFrame:
    """Reads a CSV that `write` has written, or an earlier version, and checks it.

    Args:
        path: the file, "trials.csv", "runs.csv", "history.csv", "models.csv" or another.
        lenient: leave out rows that do not count, with a warning.
        but: all other columns stay text, whatever is in them.

    Returns:
        The rows that count.

    Raises:
        Unavailable: if there are others and `lenient` is not asked for; the message names
            the file, the line and what would help.
    """
    try:
        header, rows, problems = _parse(path)
    except (OSError, ValueError, csv.Error) as error:
        header, rows = _REQUIRED.get(path.stem, []), []
        problems = [getattr(error, "strerror", None) or one_line(error)]
    if problems and not lenient:
        is_run = path.stem in ("runs", "history") and path.parent.name != "tables"
        again = AGAIN if is_run else "remove the file, and the same command makes it again"
        problem = f"{path.name} is damaged ({_some(problems)}); {again}"
        raise Unavailable("output_dir", path.parent, problem)
    if problems:
        warnings.warn(
            f"{path}: {_some(problems)}; what is damaged is left out, to be measured again",
            stacklevel=3,
        )
    stream = io.StringIO()
    csv.writer(stream).writerows([header, *rows])
    stream.seek(0)
    text = set() if but is None else set(header).difference(but)
    return pd.read_csv(stream, dtype=dict.fromkeys(text, str))


def _some(problems: list[str]) -> str:
    more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
    return f"{problems[0]}{more}"


def _parse(path: Path) -> tuple[list[str], list[list[str]], list[str]]:
    """The header, the rows that count, and what is wrong with the others."""
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        lines = [(reader.line_num, cells) for cells in reader if cells]
    written = _written(path)
    required = [*_REQUIRED.get(path.stem, []), *(written[0] if written else [])]
    missing = [name for name in required if name not in header]
    if missing or not header or len(set(header)) < len(header):
        expected = f" with the column {missing[0]}" if missing else ""
        raise ValueError(f"line 1: expected a table{expected}")
    rows: dict[tuple, list[str] | None] = {}
    problems = []
    for line, cells in lines:
        row = dict(zip(header, cells))
        key = tuple(_canonical(row.get(name, "")) for name in _KEYS.get(path.stem, header))
        if len(cells) != len(header):
            problems.append(f"line {line}: not whole")
        elif problem := _problem(row, _REQUIRED.get(path.stem, []), written):
            problems.append(f"line {line}: {problem}")
        elif key not in rows:
            rows[key] = cells
        else:
            problems.append(f"line {line}: doubled")
            if rows[key] != cells:  # nobody knows which is right
                rows[key] = None
    counted = [cells for cells in rows.values() if cells is not None]
    if path.stem != "trials" and written is not None and len(counted) < len(written[1]):
        problems.append(f"rows are missing: {len(counted)} of {len(written[1])} are left")
    return header, counted, problems


def _problem(
    row: Mapping[str, str], required: Iterable[str], written: tuple[list[str], set[str]] | None
) -> str | None:
    """What is wrong with a row; None if it counts."""
    for name, cell in row.items():
        fits, expected = _RULES.get(name, (None, ""))
        if fits and not fits(cell) and (cell or name in required):
            return f"{name}={cell}: expected {expected}"
    if written and _digest({name: row.get(name, "") for name in written[0]}) not in written[1]:
        return f"not as it was written; without {CHECKSUMS} beside it, it is taken as it is"
    return None


def _written(path: Path) -> tuple[list[str], set[str]] | None:
    """The columns and digests of the rows that were written; None if that is not known."""
    known = _checksums(path)
    if known is None or (known and path.name not in known):
        return None
    try:
        own = known[path.name]
        return list(map(str, own["columns"])), set(map(str, own["rows"]))
    except (KeyError, TypeError):
        return [], set()  # damaged: no row is known


def _checksums(path: Path) -> dict | None:
    """What `checksums.json` has; None where there is none, empty if it is damaged."""
    try:
        known = json.loads(path.with_name(CHECKSUMS).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _digest(row: Mapping[str, str]) -> str:
    text = json.dumps([[name, _canonical(cell)] for name, cell in row.items()])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _canonical(cell: str) -> str:
    """A cell whatever program wrote it: 2 is 2.0."""
    number = _number(cell)
    return cell if math.isnan(number) else f"{number:.15g}"


def _number(cell: str) -> float:
    return float(cell) if _NUMBER.fullmatch(cell) else math.nan


def _whole(least: int) -> tuple[Callable[[str], bool], str]:
    def fits(cell: str) -> bool:
        number = _number(cell)
        return number.is_integer() and number >= least

    return fits, f"a whole number from {least} on"


_FRACTION = (lambda cell: 0 <= _number(cell) <= 1, "a fraction from 0 to 1")
_NAME = (
    lambda cell: re.fullmatch(r"(?!\.)[^/\\\0]+", cell) is not None,
    "a name without separators",
)
# What cells may have, by column; text that is no number is NaN.
_RULES: dict[str, tuple[Callable[[str], bool], str]] = {
    "run": _NAME,
    "accuracy": _FRACTION,
    "train_accuracy": _FRACTION,
    "natural_accuracy": _FRACTION,
    "perturbed_fraction": _FRACTION,
    "trial": _whole(0),
    "trials": _whole(1),
    "epoch": _whole(0),
    "n_examples": _whole(1),
    "train_examples": _whole(1),
    "test_examples": _whole(1),
}
