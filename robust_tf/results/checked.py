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
from robust_tf.evaluation import condition_key
from robust_tf.files import replacing
from robust_tf.training import STRATEGIES

CHECKSUMS = "checksums.json"
AGAIN = "remove the folder to train it again"
# What each row of a table must have, by the table's name, and what it is known by.
_REQUIRED = {
    "trials": ["run", "test_perturb", "test_level", "trial", "accuracy", "n_examples"],
    "history": ["epoch"],
    "runs": ["run"],
    "models": ["run", "tests", "trials"],
    "examples": ["figure", "dataset", "image"],
}
_KEYS = {
    "trials": ["run", "test_perturb", "test_level", "trial", "n_examples", "test_digest"],
    "history": ["run", "epoch"],
    "runs": ["run"],
    "models": ["run"],
}
_Rule = tuple[Callable[[str], bool], str]
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def write(
    table: pd.DataFrame,
    path: str | os.PathLike,
    columns: list[str],
    *,
    extra: Iterable[str] = (),
) -> None:
    """Writes a CSV and the digests of its rows, complete or not at all.

    A plan's rows of before keep their digests: killed in between it is whole, as it was.

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
    if path.stem == "models" and path.exists():
        # Of the columns that are written now; one that is new was empty.
        before = read(path).reindex(columns=columns).to_csv(index=False)
        old = csv.reader(io.StringIO(before))
        rows += [_digest(dict(zip(columns, cells))) for cells in old][1:]
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
        header, rows = [*_RULES.get(path.stem, ())], []
        problems = [getattr(error, "strerror", None) or one_line(error)]
    if problems and not lenient:
        again = "remove the file, and the experiment's command makes it again"
        if _checksums(path) == {}:
            again = f"remove {CHECKSUMS} beside it, which is damaged, to take it as it is"
        elif _of_a_run(path):
            again = AGAIN
        problem = f"{path.name} is damaged ({_some(problems)}); {again}"
        raise Unavailable("output_dir", path.parent, problem)
    if problems:
        warnings.warn(
            f"{path}: {_some(problems)}; what is damaged is left out, to be measured again",
            stacklevel=1,  # one place, so that a command says it once
        )
    stream = io.StringIO()
    csv.writer(stream).writerows([header, *rows])
    stream.seek(0)
    users = set() if but is None else set(header).difference(but)
    # Of the user's text each cell stays as it is, also one that has "NA".
    empty = {name: [""] for name in header if name not in users}
    rules = _RULES.get(path.stem, {})
    text = users | {name for name in header if rules.get(name) in (_TEXT, _NAME)}
    return pd.read_csv(
        stream, dtype=dict.fromkeys(text, str), keep_default_na=False, na_values=empty
    )


def is_whole(path: Path) -> bool:
    """Whether all rows of a table count."""
    try:
        return not _parse(path)[2]
    except (OSError, ValueError, csv.Error):
        return False


def _of_a_run(path: Path) -> bool:
    return path.stem in ("runs", "history") and path.parent.name != "tables"


def _unique(header: list[str]) -> list[str]:
    """Names for all columns: the first of a name has it, later ones are the user's."""
    names: list[str] = []
    for name in header:
        own, number = name or "unnamed", 1
        while own in names:
            number += 1
            own = f"{name or 'unnamed'}.{number}"
        names.append(own)
    return names


def _some(problems: list[str]) -> str:
    more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
    return f"{problems[0]}{more}"


def _parse(path: Path) -> tuple[list[str], list[list[str]], list[str]]:
    """The header, the rows that count, and what is wrong with the others."""
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(file)
        header = _unique(next(reader, []))
        lines = [(reader.line_num, cells) for cells in reader if cells]
    written = _written(path)
    grows = path.stem in ("trials", "models")  # which may have digests of other rows too
    columns = written[0] if written and path.stem != "models" else []
    required = [*_REQUIRED.get(path.stem, []), *columns]
    missing = [name for name in required if name not in header]
    if missing or not header:
        expected = f" with the column {missing[0]}" if missing else ""
        raise ValueError(f"line 1: expected a table{expected}")
    rows: dict[tuple, list[str] | None] = {}
    problems = []
    for line, cells in lines:
        row = dict(zip(header, cells))
        key = _key(row, _KEYS.get(path.stem, header))
        if len(cells) != len(header):
            problems.append(f"line {line}: not whole")
        elif problem := _problem(row, path, written):
            problems.append(f"line {line}: {problem}")
        elif key not in rows:
            rows[key] = cells
        else:
            problems.append(f"line {line}: doubled")
            if rows[key] != cells:  # nobody knows which is right
                rows[key] = None
    counted = [cells for cells in rows.values() if cells is not None]
    if not grows and written is not None and len(counted) < len(written[1]):
        problems.append(f"rows are missing: {len(counted)} of {len(written[1])} are left")
    if _of_a_run(path) or path.stem == "models":
        problems += [] if counted or problems else ["no row"]
    return header, counted, problems


def _key(row: Mapping[str, str], names: Iterable[str]) -> tuple:
    """What a row is known by; natural tests are one, with level 0 or without a level."""
    key = {name: _canonical(row.get(name, "")) for name in names}
    if "test_level" in key:
        level = _number(key["test_level"])
        key["test_level"] = str(condition_key(key["test_perturb"], level))
    return tuple(key.values())


def _problem(
    row: Mapping[str, str], path: Path, written: tuple[list[str], set[str]] | None
) -> str | None:
    """What is wrong with a row; None if it counts."""
    table = path.stem
    for name, (fits, expected) in _RULES.get(table, {}).items():
        cell = row.get(name)
        filled = name in _FILLED or (table, name) == ("trials", "accuracy")
        if cell is not None and not fits(cell) and (cell or filled):
            return f"{name}={cell}: expected {expected}"
    if table == "trials" and path.parent.name != "tables":
        accuracy, examples = row["accuracy"], int(_number(row["n_examples"]))
        right = _number(accuracy) * examples
        if abs(right - round(right)) > 1e-4:
            return f"accuracy={accuracy}: expected a number of {examples} images"
    strategy, perturb = row.get("strategy"), row.get("train_perturb")
    trained = strategy and perturb and strategy != "external"
    if trained and (strategy == "natural") != (perturb == "none"):
        return f"train_perturb={perturb}: expected none with natural training and no other"
    saved_model = row.get("saved_model")
    if table == "runs" and saved_model and not _is_version(saved_model, row["run"]):
        return f"saved_model={saved_model}: expected a numbered folder in one of the run's name"
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
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}


def _is_version(saved_model: str, run: str) -> bool:
    *_, folder, version = ["", *saved_model.split("/")]
    return folder == run and re.fullmatch("[0-9]+", version) is not None


def _digest(row: Mapping[str, str]) -> str:
    text = json.dumps([[name, _canonical(cell)] for name, cell in row.items()])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _canonical(cell: str) -> str:
    """A cell whatever program wrote it: 2 is 2.0."""
    number = _number(cell)
    return cell if math.isnan(number) else f"{number:.15g}"


def _number(cell: str) -> float:
    return float(cell) if _NUMBER.fullmatch(cell) else math.nan


def _whole(least: int) -> _Rule:
    def fits(cell: str) -> bool:
        number = _number(cell)
        return number.is_integer() and number >= least

    return fits, f"a whole number from {least} on"


def _one_of(names: Iterable[str]) -> _Rule:
    allowed = [*names]
    return allowed.__contains__, f"one of {', '.join(allowed)}"


_TEXT: _Rule = (lambda cell: bool(cell.strip()), "text")
_NUMBER_RULE: _Rule = (lambda cell: math.isfinite(_number(cell)), "a number")
_POSITIVE: _Rule = (lambda cell: 0 < _number(cell) < math.inf, "a number above 0")
_FRACTION: _Rule = (lambda cell: 0 <= _number(cell) <= 1, "a fraction from 0 to 1")
_NAME: _Rule = (
    lambda cell: re.fullmatch(r"(?!\.)[^/\\\0]+", cell) is not None,
    "a name without separators",
)
_IMAGE: _Rule = (lambda cell: cell.startswith("iVBORw0KGgo"), "a PNG in base64")
_TRAINING: dict[str, _Rule] = {
    "run": _NAME,
    "dataset": _TEXT,
    "data_source": _TEXT,
    "model": _TEXT,
    "strategy": _one_of([*STRATEGIES, "external"]),
    "train_perturb": _TEXT,
    "train_level": _NUMBER_RULE,
    "seed": _whole(0),
}
_SETTINGS: dict[str, _Rule] = {
    **_TRAINING,
    **dict.fromkeys(("epochs", "batch_size", "train_examples", "test_examples"), _whole(1)),
    **dict.fromkeys(("learning_rate", "beta_1", "dropout", "weight_decay"), _NUMBER_RULE),
    **dict.fromkeys(("label_smoothing", "ramp_start", "ramp_end"), _NUMBER_RULE),
    "test_digest": _TEXT,
}
# What the cells of our own columns have, by table; other columns are the user's.
_RULES: dict[str, dict[str, _Rule]] = {
    "trials": {
        **_TRAINING,
        "test_perturb": _TEXT,
        "test_level": _NUMBER_RULE,
        "trial": _whole(0),
        "accuracy": _FRACTION,
        "n_examples": _whole(1),
        "changed": _FRACTION,
        "test_digest": _TEXT,
        "saved_model": _TEXT,
    },
    "history": {
        "run": _NAME,
        "epoch": _whole(0),
        "loss": _NUMBER_RULE,
        "accuracy": _FRACTION,
        "val_loss": _NUMBER_RULE,
        "val_accuracy": _FRACTION,
        "perturbed_fraction": _FRACTION,
        "seconds": _NUMBER_RULE,
        "images_per_second": _NUMBER_RULE,
    },
    "runs": {
        **_SETTINGS,
        "train_accuracy": _FRACTION,
        "natural_accuracy": _FRACTION,
        "seconds": _NUMBER_RULE,
        "images_per_second": _NUMBER_RULE,
        "threads": _whole(1),
        "devices": _whole(1),
    },
    "models": {**_SETTINGS, "tests": _TEXT, "trials": _whole(1)},
    "examples": {"dataset": _TEXT, "image": _IMAGE},
}
# Cells of these are never empty, where a table has the column.
_FILLED = {
    *("run", "dataset", "strategy", "train_perturb", "test_perturb"),
    *("trial", "n_examples", "epoch", "tests", "trials"),
}
