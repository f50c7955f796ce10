"""A defect map: which pixels of one device are defective, and what they show.

How maps are drawn for many devices is in `fleet`, a map as a test condition in `devices`, the text
of its files in `map_files`.
"""

import dataclasses
import functools
import hashlib
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from robust_tf.data import chunk_size
from robust_tf.errors import InvalidArgument
from robust_tf.files import replacing
from robust_tf.perturbations import Mixture, Perturbation
from robust_tf.seeds import fold_in, stream_seed
from robust_tf.sensors import map_files
from robust_tf.sensors.names import NAMED, kinds_of_defects

# Files of these endings are written as LibRaw reads them.
LIBRAW = (".txt", ".badpixels")


@dataclasses.dataclass(frozen=True, eq=False)
class DefectMap:
    """The defects of one device, which are the same for all images.

    A defective pixel shows a value whatever the light is, or adds an offset to what it should
    show; an image becomes `clip(image * keep + add, 0, 1)`, see `tensors`. A number stands for
    as many as there are rows.

    Args:
        rows: whole numbers, shape [n], from 0 at the top.
        columns: likewise, from 0 at the left.
        channels: likewise, from 0; -1 for all channels of the pixel.
        values: what the pixel shows, in [0, 1]; NaN where it has an offset instead.
        offsets: what it adds, in [-1, 1]; 0 where it has a value.
        since: UNIX time in seconds from which on the pixel is defective; 0 for always.

    Raises:
        InvalidArgument: if a number is out of range, there are not as many of each, or a
            position is there twice.

    Examples:
        >>> len(DefectMap(rows=[3, 5], columns=[4, 4], values=1.0))
        2
    """

    rows: np.ndarray
    columns: np.ndarray
    channels: np.ndarray = -1  # type: ignore[assignment]
    values: np.ndarray = math.nan  # type: ignore[assignment]
    offsets: np.ndarray = 0.0  # type: ignore[assignment]
    since: np.ndarray = 0  # type: ignore[assignment]

    def __post_init__(self):
        """Makes arrays of the arguments and checks them."""
        count = np.size(self.rows)
        for name in ("rows", "columns", "channels", "since"):
            least = -1 if name == "channels" else 0
            found = _numbers(name, getattr(self, name), count)
            fits = (found == np.round(found)) & (found >= least) & (found <= map_files.LARGEST)
            _check(name, found, fits, f"whole numbers from {least} on")
            object.__setattr__(self, name, _frozen(found.astype(np.int64)))
        values = _numbers("values", self.values, count)
        fits = np.isnan(values) | ((values >= 0) & (values <= 1))
        _check("values", values, fits, "numbers from 0 to 1, or NaN for a pixel with an offset")
        offsets = _numbers("offsets", self.offsets, count)
        _check("offsets", offsets, np.abs(offsets) <= 1, "numbers from -1 to 1")
        both = ~np.isnan(values) & (offsets != 0)
        _check("offsets", offsets, ~both, "0 where the pixel has a value")
        object.__setattr__(self, "values", _frozen(values.astype(np.float32)))
        object.__setattr__(self, "offsets", _frozen(offsets.astype(np.float32)))
        if twice := _doubled(self.rows, self.columns, self.channels):
            raise InvalidArgument("defects", self._place(twice[0]), "each position once")

    def __len__(self) -> int:
        """The number of defects; of a pixel with one for each channel, all of them."""
        return len(self.rows)

    @classmethod
    def none(cls) -> "DefectMap":
        """The map of a device without defects."""
        return cls(np.empty(0), np.empty(0))

    @property
    def pixels(self) -> int:
        """The number of defective pixels."""
        return len(set(zip(self.rows.tolist(), self.columns.tolist())))

    @functools.cached_property
    def digest(self) -> str:
        """A text that tells the content from all others, in whatever order: 64 characters."""
        order = np.lexsort((self.channels, self.columns, self.rows))
        content = hashlib.sha256()
        for field in dataclasses.fields(self):
            own = getattr(self, field.name)[order]
            content.update((own + 0).astype(own.dtype.newbyteorder("<")).tobytes())  # no -0.0
        return content.hexdigest()

    def check(self, image_shape: tuple[int | None, ...]) -> None:
        """Checks the positions against a sensor of shape (H, W, C).

        Raises:
            InvalidArgument: if one is outside.
        """
        height, width, channels = (math.inf if side is None else side for side in image_shape)
        outside = (self.rows >= height) | (self.columns >= width) | (self.channels >= channels)
        if outside.any():
            place = self._place(int(outside.argmax()))
            sensor = " x ".join(map(str, image_shape))
            raise InvalidArgument("defects", place, f"a position on the sensor, {sensor}")

    def tensors(self, image_shape: tuple[int, int, int]) -> tuple[tf.Tensor, tf.Tensor]:
        """What becomes of images of shape (H, W, C): `clip(image * keep + add, 0, 1)`.

        Returns:
            keep and add, float32 tensors of shape [H, W, C].

        Raises:
            InvalidArgument: if a position is outside.
        """
        has_value = ~np.isnan(self.values)
        keep = self._painted(image_shape, np.where(has_value, 0, 1), 1)
        add = self._painted(image_shape, np.where(has_value, self.values, self.offsets), 0)
        return tf.constant(keep), tf.constant(add)

    def mask(self, image_shape: tuple[int, int, int]) -> np.ndarray:
        """Which values of an image of shape (H, W, C) come from a defective pixel.

        Returns:
            bool array of shape [H, W, C].

        Raises:
            InvalidArgument: if a position is outside.
        """
        return self._painted(image_shape, np.ones(len(self)), 0).astype(bool)

    def at(self, time: int) -> "DefectMap":
        """The defects that there are at a UNIX time in seconds."""
        return self.part(self.since <= time)

    def part(self, chosen: np.ndarray) -> "DefectMap":
        """Some of the defects, by a bool array or indices."""
        own = (getattr(self, field.name)[chosen] for field in dataclasses.fields(self))
        return DefectMap(*own)

    @classmethod
    def drawn(
        cls,
        perturbation: Perturbation | Mixture,
        image_shape: tuple[int, int, int],
        seed: int,
        device: int,
    ) -> "DefectMap":
        """The map that a kind of defective pixels gives a device; see `drawn_all`."""
        return cls.drawn_all(perturbation, image_shape, seed, [device])[0]

    @classmethod
    def drawn_all(
        cls,
        perturbation: Perturbation | Mixture,
        image_shape: tuple[int, int, int],
        seed: int,
        devices: Sequence[int],
    ) -> list["DefectMap"]:
        """The maps that a kind of defective pixels gives devices.

        That of a device depends on the seed and its number, and on nothing else.

        Args:
            perturbation: what is drawn, such as `Perturbation("hot", 2)`; of a mixture, each
                device has one kind at one level.
            image_shape: (H, W, C).
            seed: a whole number from 0 on.
            devices: their numbers, from 0 on.

        Returns:
            One map for each.

        Raises:
            InvalidArgument: if the kind is not of defective pixels, or the level out of range.
        """
        ranges = perturbation.ranges if isinstance(perturbation, Mixture) else ()
        for kind in [one for one, _, _ in ranges] or [perturbation.kind]:
            if kind not in kinds_of_defects():
                raise InvalidArgument("perturb", kind, f"some of {', '.join(kinds_of_defects())}")
        perturbation.check(image_shape)
        found = []
        at_once = chunk_size(image_shape)
        for start in range(0, len(devices), at_once):
            numbers = tf.constant(devices[start : start + at_once], tf.int64)
            seeds = fold_in(stream_seed(seed, "device"), numbers)
            dark = tf.zeros([len(numbers), *image_shape])
            pairs = zip(perturbation(dark, seeds).numpy(), perturbation(dark + 1, seeds).numpy())
            found += [cls._between(*pair) for pair in pairs]
        return found

    @classmethod
    def _between(cls, dark: np.ndarray, bright: np.ndarray) -> "DefectMap":
        """The map that makes these of images [H, W, C] of zeros and of ones."""
        values = np.where(dark == bright, dark, np.nan)
        offsets = np.where(dark == bright, 0, np.where(bright == 1, dark, bright - 1))
        rows, columns = np.nonzero(((dark != 0) | (bright != 1)).any(axis=-1))
        own = np.stack([values[rows, columns], offsets[rows, columns]])  # [2, n, C]
        whole = (np.nan_to_num(own, nan=-1) == np.nan_to_num(own[..., :1], nan=-1)).all(axis=(0, 2))
        places = np.stack([rows, columns])
        parts = [[*places[:, whole], np.full(whole.sum(), -1), *own[:, whole, 0]]]
        for channel in range(dark.shape[-1]):
            split = ~whole & ((dark != 0) | (bright != 1))[rows, columns, channel]
            numbers = np.full(split.sum(), channel)
            parts.append([*places[:, split], numbers, *own[:, split, channel]])
        return cls(*(np.concatenate(one) for one in zip(*parts)))

    @classmethod
    def read(cls, path: str | os.PathLike, value: float = 0.0) -> "DefectMap":
        """Reads a CSV file, or LibRaw's text; which of them it is shows in its first line.

        A CSV has the columns row and column, perhaps channel (empty for all), then one or more
        of kind (hot or dead), value and offset, of which each line fills in one, and perhaps
        since. A line of LibRaw's text is `column row unixtime`. Lines that begin with # are
        comments.

        Args:
            path: the file.
            value: what a pixel shows that LibRaw's text lists, in [0, 1].

        Raises:
            InvalidArgument: if the file says something else; the message names file and line.
            Unavailable: if it cannot be read.
        """
        lines, found = map_files.read(path, value)
        if twice := _doubled(*found[:3]):
            first, second = sorted(lines[one] for one in twice)
            row, column = (int(found[axis, twice[0]]) for axis in (0, 1))
            expected = f"row {row}, column {column} once, not in line {first} and again"
            raise InvalidArgument("defects", path, f"{expected} (line {second})")
        return cls(*found)

    def write(self, path: str | os.PathLike) -> None:
        """Writes the map as CSV; as LibRaw's text if the name ends in .txt or .badpixels.

        Args:
            path: the file to write or replace; its folder must exist.

        Raises:
            InvalidArgument: if LibRaw's text cannot hold it: it has whole pixels only, hot or
                dead, and does not tell these apart.
        """
        path = Path(path)
        is_libraw = path.suffix.lower() in LIBRAW
        if is_libraw:
            held = (self.channels == -1) & np.isin(self.values, [*NAMED.values()])
            if not held.all():
                place = self._place(int(held.argmin()))
                expected = "hot or dead pixels, all channels, in LibRaw's text; else a name in .csv"
                raise InvalidArgument("defects", f"{path}, {place}", expected)
        own = [getattr(self, field.name) for field in dataclasses.fields(self)]
        with replacing(path) as temporary:
            text = map_files.libraw_text(*own) if is_libraw else map_files.csv_text(*own)
            temporary.write_text(text, encoding="utf-8")

    def _painted(self, image_shape: tuple[int, int, int], own: np.ndarray, rest: float) -> Any:
        """Float32 [H, W, C] with a number for each defect, and another for the rest."""
        self.check(image_shape)
        painted = np.full(image_shape, rest, np.float32)
        whole = self.channels < 0
        painted[self.rows[whole], self.columns[whole]] = own[whole, np.newaxis]
        painted[self.rows[~whole], self.columns[~whole], self.channels[~whole]] = own[~whole]
        return painted

    def _place(self, defect: int) -> str:
        place = f"row {self.rows[defect]}, column {self.columns[defect]}"
        channel = self.channels[defect]
        return place if channel < 0 else f"{place}, channel {channel}"


def _numbers(name: str, given: Any, count: int) -> np.ndarray:
    """Float64 numbers, one for each defect."""
    try:
        return np.broadcast_to(np.asarray(given, np.float64), [count])
    except (TypeError, ValueError):
        expected = f"numbers, one for each of {count} defects or one for all"
        raise InvalidArgument(name, f"shape {np.shape(given)}", expected) from None


def _check(name: str, found: np.ndarray, fits: np.ndarray, expected: str) -> None:
    if not fits.all():
        raise InvalidArgument(name, f"{found[fits.argmin()]:g}", expected)


def _frozen(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array


def _doubled(rows: np.ndarray, columns: np.ndarray, channels: np.ndarray) -> tuple[int, int] | None:
    """The places of two defects of one position, or of a channel and of all channels there."""
    order = np.lexsort((channels, columns, rows))  # all channels, -1, first
    rows, columns, channels = rows[order], columns[order], channels[order]
    same = (rows[1:] == rows[:-1]) & (columns[1:] == columns[:-1])
    same &= (channels[1:] == channels[:-1]) | (channels[:-1] < 0)
    if not same.any():
        return None
    first = int(same.argmax())
    return int(order[first]), int(order[first + 1])
