"""Pictures in folders of classes, and in lists: which files, of which class, for what.

No file is opened here but the list itself.
"""

import collections
import csv
import dataclasses
import os
import unicodedata
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

from robust_tf.data.classes import listed
from robust_tf.errors import InvalidArgument, Unavailable, one_line

# What folders and lists call splits, whatever the case.
_SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
}


@dataclasses.dataclass(frozen=True)
class Picture:
    """A file that may be a picture.

    Attributes:
        key: what tells it from the others wherever they lie: its path in the folder or list.
        path: where it is.
        label: the name of its class.
        split: "train", "test", or "" where nothing says.
    """

    key: str
    path: Path
    label: str
    split: str


@dataclasses.dataclass(frozen=True)
class Found:
    """The files of a dataset.

    Attributes:
        pictures: the files.
        groups: where the pictures of a split and class are, which must be some.
    """

    pictures: list[Picture]
    groups: Mapping[tuple[str, str], str]


def in_folder(dataset: str, root: Path) -> Found:
    """The files of `root/<class>/**`, or of `root/train/<class>/**` and `root/test/<class>/**`.

    Args:
        dataset: what the folder is called, for errors.
        root: the folder.

    Raises:
        InvalidArgument: if there are no folders in it.
        Unavailable: if it is not there, or cannot be read.
    """
    pictures: list[Picture] = []
    groups: dict[tuple[str, str], str] = {}
    again: list[Path] = []
    try:
        if not root.is_dir():
            is_file = root.is_file()
            problem = "a list of pictures is csv:FILE" if is_file else "there is no such folder"
            raise Unavailable("dataset", dataset, problem)
        parts = _parts(dataset, root)
        if "test" in parts:
            parts.pop("validation", None)  # it is for nothing, and may be a link to the other
        classes = [(split, folder) for split, part in parts.items() for folder in _folders(part)]
        seen = {os.path.realpath(one) for one in (root, *parts.values())}
        for _, folder in classes:
            again += [folder] if os.path.realpath(folder) in seen else []
            seen.add(os.path.realpath(folder))
        if again:
            expected = f"each folder once, not {listed(_below(root, again))} again"
            raise InvalidArgument("dataset", dataset, expected)
        for split, folder in classes:
            label = unicodedata.normalize("NFC", folder.name)
            groups.setdefault((split, label), f"folder {folder.relative_to(root)}")
            for path in _files(folder, seen, again):
                key = unicodedata.normalize("NFC", path.relative_to(root).as_posix())
                pictures.append(Picture(key, path, label, split))
    except OSError as error:
        problem = f"{error.filename or root} cannot be read ({error.strerror or one_line(error)})"
        raise Unavailable("dataset", dataset, problem) from error
    if links := [one for one in pictures if one.path.is_symlink()]:
        real = collections.Counter(os.path.realpath(one.path) for one in pictures)
        if twice := [one.key for one in links if real[os.path.realpath(one.path)] > 1]:
            raise InvalidArgument(
                "dataset", dataset, f"each picture once, not {listed(twice)} again"
            )
    if again:
        names = listed(_below(root, again))
        warnings.warn(
            f"{dataset}: left out, links to folders that are read anyway: {names}", stacklevel=2
        )
    return _found(pictures, groups)


def _below(root: Path, folders: list[Path]) -> list[str]:
    return [os.fspath(folder.relative_to(root)) for folder in folders]


def _parts(dataset: str, root: Path) -> dict[str, Path]:
    """The folders with folders of classes, by split; `root` itself where there are no splits."""
    folders = _folders(root)
    by_split: dict[str, Path] = {}
    for folder in folders:
        if split := _SPLITS.get(folder.name.casefold()):
            if split in by_split:
                expected = f"one folder per split, not {by_split[split].name} and {folder.name}"
                raise InvalidArgument("dataset", dataset, expected)
            by_split[split] = folder
    others = [folder for folder in folders if folder not in by_split.values()]
    # A folder train among others may be a class: that of trains.
    has_splits = "train" in by_split and len(by_split) > 1
    parts = by_split if by_split and (has_splits or not others) else {"": root}
    for split, part in parts.items():
        if not _folders(part):
            where = f"{part.name} has none" if split else "there is none"
            expected = "folders of classes, <class>/* or train/<class>/* and test/<class>/*"
            raise InvalidArgument("dataset", dataset, f"{expected}; {where}")
    if others and "" not in parts:
        names = listed([folder.name for folder in others])
        warnings.warn(f"{dataset}: left out, beside train and test: {names}", stacklevel=2)
    return parts


def _found(pictures: list[Picture], groups: Mapping[tuple[str, str], str]) -> Found:
    """Pictures for validation are for testing where there are no others, or else for nothing."""
    test = "test" if any(split == "test" for split, _ in groups) else "validation"
    role = {"": "", "train": "train", test: "test"}
    return Found(
        [dataclasses.replace(one, split=role[one.split]) for one in pictures if one.split in role],
        {(role[split], label): groups[split, label] for split, label in groups if split in role},
    )


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"  # which macOS leaves in archives


def _folders(folder: Path) -> list[Path]:
    found = (one for one in folder.iterdir() if one.is_dir() and not _is_hidden(one.name))
    return sorted(found, key=lambda one: one.name)


def _files(folder: Path, seen: set[str], again: list[Path]) -> Iterator[Path]:
    """All files below a folder, in whatever order; links are followed, each folder once.

    Args:
        folder: the folder.
        seen: the real paths of folders that are read; those in it are added.
        again: gets the folders in it that have been seen.
    """
    for place, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        inside = sorted(
            (Path(place, name) for name in folders if not _is_hidden(name)),
            key=lambda one: (one.is_symlink(), one.name),
        )
        folders.clear()
        for one in inside:
            if (real := os.path.realpath(one)) in seen:
                again.append(one)
            else:
                seen.add(real)
                folders.append(one.name)
        yield from (Path(place, name) for name in names if not _is_hidden(name))


def _raise(error: OSError) -> None:
    raise error


def in_list(dataset: str, file: Path) -> Found:
    """The files that a CSV file lists, with the columns path, label and, if at all, split.

    Args:
        dataset: what the list is called, for errors.
        file: the list; relative paths in it are relative to its folder.

    Raises:
        InvalidArgument: if a column or cell is missing, a split is unknown, or a column or file
            is there twice, however its path is written.
        Unavailable: if it cannot be read, or a file that it lists is not there.
    """
    pictures = []
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            rows = csv.DictReader(text, strict=True)
            names = [name.strip().casefold() for name in rows.fieldnames or ()]
            if missing := {"path", "label"} - {*names}:
                expected = "the columns path, label and perhaps split, separated by commas"
                expected = f"{expected}; it has {listed(names)}"
                expected = expected if names else "a list with the columns path and label"
                raise InvalidArgument("dataset", dataset, f"{expected}, no {min(missing)}")
            if twice := [name for name in ("path", "label", "split") if names.count(name) > 1]:
                raise InvalidArgument("dataset", dataset, f"one column {twice[0]}")
            named = dict(zip(names, rows.fieldnames or ()))
            for row in rows:
                if None in row:
                    expected = "fields with commas in quotes"
                    raise InvalidArgument("dataset", dataset, f"{expected}; line {rows.line_num}")
                own = {name: (row[column] or "").strip() for name, column in named.items()}
                pictures.append(_listed(dataset, file.parent, own, rows.line_num))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise Unavailable("dataset", dataset, f"the list cannot be read ({reason})") from error
    seen: dict[str, Picture] = {}
    real = ((one, os.path.realpath(one.path)) for one in pictures)
    if twice := [one.key for one, path in real if seen.setdefault(path, one) is not one]:
        raise InvalidArgument("dataset", dataset, f"each path once, not {listed(twice)} again")
    if away := [one.key for one in pictures if not one.path.is_file()]:
        problem = f"{len(away):,} of the {len(pictures):,} files listed are not there"
        raise Unavailable("dataset", dataset, f"{problem}: {listed(away)}")
    return _found(pictures, {(one.split, one.label): f"class {one.label}" for one in pictures})


def _listed(dataset: str, folder: Path, row: Mapping[str, str], line: int) -> Picture:
    for name in ("path", "label", "split"):
        if row.get(name) == "":
            expected = f"no empty cell; line {line} has no {name}"
            raise InvalidArgument("dataset", dataset, expected)
    split = row.get("split", "")
    if split and split.casefold() not in _SPLITS:
        expected = f"split train, test or validation, not {listed([split])} in line {line}"
        raise InvalidArgument("dataset", dataset, expected)
    label = unicodedata.normalize("NFC", row["label"])
    path = Path(row["path"])
    return Picture(path.as_posix(), folder / path, label, _SPLITS.get(split.casefold(), ""))
