"""Datasets of picture files, in folders of classes or in lists: their splits, and reading them."""

import dataclasses
import decimal
import functools
import itertools
import math
import multiprocessing
import os
import warnings
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from robust_tf import machine
from robust_tf.data import folders, prepared
from robust_tf.data.classes import in_order, is_number, listed
from robust_tf.data.folders import Found, Picture
from robust_tf.data.names import TEST_FRACTION
from robust_tf.data.picture_files import DAMAGED, FORMATS, Header, header, read
from robust_tf.data.splits import Data, Split
from robust_tf.data.splitting import UNDRAWN, ranked, stratified
from robust_tf.errors import InvalidArgument
from robust_tf.files import digest
from robust_tf.progress import Bar

# Seconds until a bar says what takes so long.
_PATIENCE = 3.0
# Files that a warning names.
_SHOWN = 4
_FINDERS: dict[str, Callable[[str, Path], Found]] = {
    "folder": folders.in_folder,
    "csv": folders.in_list,
}

Item = TypeVar("Item")
Result = TypeVar("Result")


def find(
    dataset: str,
    *,
    image_size: tuple[int, int] | None,
    resize: str,
    color: str,
    test_fraction: float | None,
    split_seed: int | None,
) -> "Listing":
    """As `Pictures.find`, whose settings are the arguments."""
    source, _, place = dataset.partition(":")
    if not place.strip() or "://" in place or "\0" in place:
        raise InvalidArgument("dataset", dataset, f"{source}:PATH, on this machine")
    path = Path(place).expanduser()
    found = _FINDERS[source](dataset, path)
    headers = _in_order(lambda one: header(one.path), found.pictures, "looking at", dataset)
    known, skipped = [], {}
    for one, seen in zip(found.pictures, headers):
        if isinstance(seen, Header):
            known.append((one, seen))
        else:
            skipped[one.key] = seen
    pictures = [one for one, _ in known]
    label_names = _classes(dataset, source, found, pictures)
    channels = {"gray": 1, "rgb": 3}.get(color)
    if channels is None:
        channels = 1 if all(one.is_grey for _, one in known) else 3
    size = image_size or _only_size(dataset, [one for _, one in known])
    drawn: dict[str, Any] = {}
    groups = found.groups
    if not any(one.split == "test" for one in pictures):
        fraction = TEST_FRACTION if test_fraction is None else test_fraction
        drawn = {"test_fraction": fraction, "split_seed": split_seed or 0}
        keys, labels = zip(*((one.key, one.label) for one in pictures))
        test = stratified(np.array(labels), keys, *drawn.values())
        if not test.any():
            raise InvalidArgument("dataset", dataset, UNDRAWN.format("picture"))
        pictures = [
            dataclasses.replace(one, split="test" if is_test else "train")
            for one, is_test in zip(pictures, test)
        ]
        needed = "test" if fraction == 1 else "train"
        groups = {(needed, label): where for (_, label), where in groups.items()}
    else:
        for name, value in (("test_fraction", test_fraction), ("split_seed", split_seed)):
            if value is not None:
                raise InvalidArgument(name, value, f"no value: {dataset} has a test split")
    # As if they were shuffled, so that the first few are of all classes.
    order = ranked([one.key for one in pictures], "order", 0)
    whole = Path(os.path.abspath(path))
    return Listing(
        name=f"{source}:{whole.stem if source == 'csv' else whole.name}",
        dataset=dataset,
        label_names=label_names,
        image_shape=(*size, channels),
        resize=resize,
        pictures=tuple(pictures[place] for place in order),
        groups=groups,
        files=len(found.pictures),
        skipped=skipped,
        drawn=drawn,
    )


def _only_size(dataset: str, headers: list[Header]) -> tuple[int, int]:
    sizes = Counter(one.size for one in headers).most_common()
    if len(sizes) > 1:
        shown = ", ".join(f"{h}×{w} ({count:,})" for (h, w), count in sizes[:3])
        more = ", …" if len(sizes) > 3 else ""
        expected = f"H,W such as 96,96: pictures of {dataset} have {len(sizes):,} sizes, "
        raise InvalidArgument("image_size", None, f"{expected}{shown}{more}")
    return sizes[0][0]


def _classes(
    dataset: str, source: str, found: Found, pictures: Iterable[Picture]
) -> tuple[str, ...]:
    """The names of the classes, sorted; numbers in a list as numbers."""
    pictures = list(pictures)
    if not pictures:
        raise InvalidArgument("dataset", dataset, f"pictures ({FORMATS}); none can be read")
    _check_groups(dataset, found.groups, pictures)
    splits: dict[str, set[str]] = {}
    for split, name in found.groups:
        splits.setdefault(split, set()).add(name)
    names = (in_order if source == "csv" else sorted)(set().union(*splits.values()))
    for name in names:
        if any("\ud800" <= letter <= "\udfff" for letter in name):  # what stands for other bytes
            raise InvalidArgument("dataset", dataset, f"names of classes in UTF-8, not {name!a}")
    alike: dict[Any, str] = {}
    for name in names:
        as_number = source == "csv" and is_number(name)
        what, how = (decimal.Decimal(name), "form") if as_number else (name.casefold(), "case")
        if (other := alike.setdefault(what, name)) != name:
            expected = f"classes that differ by more than {how}, unlike {other} and {name}"
            raise InvalidArgument("dataset", dataset, expected)
    if len(names) < 2:
        raise InvalidArgument("dataset", dataset, f"two classes or more; there is {names[0]} alone")
    if "train" in splits and (new := sorted(splits.get("test", set()) - splits["train"])):
        expected = f"no class in test that is not in train, as {listed(new)}"
        raise InvalidArgument("dataset", dataset, expected)
    return tuple(names)


def _check_groups(
    dataset: str, groups: Mapping[tuple[str, str], str], pictures: Iterable[Picture]
) -> None:
    """Raises `InvalidArgument` if a class has no picture in a split."""
    there = {(one.split, one.label) for one in pictures}
    if empty := [where for group, where in groups.items() if group not in there]:
        expected = f"pictures ({FORMATS}) of each class; none can be read of {listed(empty)}"
        raise InvalidArgument("dataset", dataset, expected)


def _in_order(
    function: Callable[[Item], Result], items: Collection[Item], verb: str, name: str
) -> Iterator[Result]:
    """Calls a function in a few threads; gives the results in order, a few ahead of their use."""
    workers = machine.cores()
    waiting: deque[Future[Result]] = deque()
    bar = Bar(
        desc=f"{verb} {name}",
        total=len(items),
        unit="image",
        delay=_PATIENCE,
        dynamic_ncols=True,
        disable=multiprocessing.parent_process() is not None,  # which has shown it already
    )
    following = iter(items)
    with bar, ThreadPoolExecutor(workers) as pool:
        for item in itertools.islice(following, 4 * workers):
            waiting.append(pool.submit(function, item))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in itertools.islice(following, 1))
            bar.update()
            yield result


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes with a file's content, even where two files change places; empty if it is gone.

    A time of modification is restored by archives and copies, one of the status is not.
    """
    try:
        stat = path.stat()
    except OSError:
        return ()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


@dataclasses.dataclass(frozen=True, eq=False)
class Listing:
    """Picture files that make a dataset, none of them decoded yet.

    Attributes:
        name: what tables call the dataset, such as "folder:photos".
        dataset: where it is, such as "folder:/data/photos".
        label_names: the names of the classes.
        image_shape: (H, W, C) of the images.
        resize: one of `names.RESIZES`.
        pictures: the files of both splits, in order of their examples.
        groups: as of `folders.Found`, for these splits.
        files: how many files were found, pictures or not.
        skipped: why files are left out, by their keys; `iterate` adds those that are damaged.
        drawn: the settings that the test split was drawn with; empty where it was there.
    """

    name: str
    dataset: str
    label_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    resize: str
    pictures: tuple[Picture, ...]
    groups: Mapping[tuple[str, str], str]
    files: int
    skipped: dict[str, str]
    drawn: Mapping[str, Any]

    @property
    def source(self) -> str:
        """What names it: "folder" or "csv"."""
        return self.dataset.partition(":")[0]

    @property
    def origin(self) -> dict[str, Any]:
        """Where it is, and the settings that find it again: texts and numbers by name."""
        return {
            "pictures": self.dataset,
            "image_size": "{},{}".format(*self.image_shape[:2]),
            "resize": self.resize,
            "color": "gray" if self.image_shape[2] == 1 else "rgb",
            **self.drawn,
        }

    def of(self, split: str) -> list[Picture]:
        """The files of "train" or "test"."""
        return [one for one in self.pictures if one.split == split]

    def _key(self, split: str) -> str:
        """Tells what the images of a split are made of from all others."""
        files = [(one.key, one.label, _stamp(one.path)) for one in self.of(split)]
        return digest(self.image_shape, self.resize, self.label_names, files)

    def _place(self, split: str) -> Path:
        path = Path(self.dataset.partition(":")[2]).expanduser().absolute()
        own = digest(path.name, self.image_shape, self.resize, self.drawn)
        return prepared.place(
            path if path.is_dir() else path.parent, ".robust_tf", f"{own}-{split}"
        )

    def iterate(self, split: str) -> Iterator[tuple[np.ndarray, int]]:
        """Reads a split, a few files at a time, without those that are damaged.

        Args:
            split: "train" or "test".

        Yields:
            An image, uint8 [H, W, C], and its label.
        """
        places = {name: place for place, name in enumerate(self.label_names)}
        own = self.of(split)
        images = _in_order(
            lambda one: read(one.path, self.image_shape, self.resize), own, "reading", self.name
        )
        for image, one in zip(images, own):
            if image is None:
                self.skipped[one.key] = DAMAGED
            else:
                yield image, places[one.label]

    def finish(self) -> None:
        """Says, once both splits are read, which files were left out.

        Raises:
            InvalidArgument: if that leaves a class without pictures.
        """
        left = (one for one in self.pictures if one.key not in self.skipped)
        _check_groups(self.dataset, self.groups, left)
        for why in sorted({*self.skipped.values()}):
            keys = sorted(key for key, own in self.skipped.items() if own == why)
            names = [" ".join(key.split()) for key in keys]
            shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
            left_out = f"{len(names):,} of {self.files:,} files left out"
            warnings.warn(f"{self.dataset}: {left_out}, {why}: {shown}", stacklevel=3)

    def load(self, memory: float = math.inf) -> Data:
        """Reads both splits: into memory, or where they take more than so many bytes, from disk.

        What is prepared on disk lies in `.robust_tf` beside the pictures, and is known by their
        names, sizes, times and inodes: those of a copied folder are prepared again.
        """
        splits: dict[str, Split] = {}
        for split in ("train", "test"):
            splits[split] = prepared.hold(
                self.iterate(split),
                len(self.of(split)),
                self.image_shape,
                splits["train"].room if splits else memory,
                folder=functools.partial(self._place, split),
                key=functools.partial(self._key, split),
                argument="dataset",
            )
        self.finish()
        return Data(
            name=self.name,
            source=self.source,
            label_names=self.label_names,
            origin=self.origin,
            **splits,
        )
