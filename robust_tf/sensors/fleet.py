"""Many devices: their maps, and what a sample of devices says of all that there may be.

Sources:

- the exact interval of a share: Clopper and Pearson (1934), "The use of confidence or fiducial
  limits illustrated in the case of the binomial";
- bounds of a quantile by order statistics: Wilks (1941), "Determination of sample sizes for
  setting tolerance limits"; David and Nagaraja (2003), *Order Statistics*, section 7.1.
"""

import dataclasses
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats

from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.files import digest
from robust_tf.perturbations import Mixture, Perturbation
from robust_tf.perturbations.condition import Condition
from robust_tf.sensors.asked import LEVEL, Asked
from robust_tf.sensors.devices import Device
from robust_tf.sensors.imaging import SensorDevice
from robust_tf.sensors.maps import DefectMap
from robust_tf.sensors.names import NAMED
from robust_tf.sensors.specification import Sensor


@dataclasses.dataclass(frozen=True, eq=False)
class Fleet:
    """Devices, each with its own defect map.

    Attributes:
        name: what they have in common, such as "hot 2".
        maps: by the device's name; in the coordinates of the images, or of the sensor.
        sample: whether the devices are drawn at random from others that are not seen, which
            bounds and intervals are about; otherwise these are all that there are.
        sensor: what takes the images; None where they have the defects as they are.
        seed: the experiment's.
        years: the age of a sensor's devices.
    """

    name: str
    maps: Mapping[str, DefectMap]
    sample: bool = True
    sensor: Sensor | None = None
    seed: int = 0
    years: float = 0.0

    def __len__(self) -> int:
        """The number of devices."""
        return len(self.maps)

    @property
    def digest(self) -> str:
        """A text that tells devices and maps from all others."""
        maps = [(device, own.digest) for device, own in self.maps.items()]
        return digest(maps, self.sensor and (self.sensor.digest, self.seed, self.years))

    def conditions(self, image_shape: tuple[int, int, int]) -> list[Condition]:
        """Each device as a test condition, for images of shape (H, W, C); they share a trace.

        Raises:
            InvalidArgument: if a defect is outside, or the sensor has other colours.
        """
        return [self._condition(*one, image_shape) for one in enumerate(self.maps.items())]

    def without(self, image_shape: tuple[int, int, int]) -> Condition:
        """The same for the images without defects: as they are, or as device 0 would take them."""
        return self._condition(0, ("without defects", DefectMap.none()), image_shape)

    def _condition(
        self, place: int, own: tuple[str, DefectMap], image_shape: tuple[int, int, int]
    ) -> Condition:
        name, defects = own
        if self.sensor is None:
            return Device(defects, name, image_shape)
        own_device = SensorDevice(self.sensor, place, self.seed, self.years, defects)
        return own_device.fitted(image_shape)

    @classmethod
    def drawn(
        cls,
        perturbation: Perturbation | Mixture,
        image_shape: tuple[int, int, int],
        seed: int,
        devices: int,
        sensor: Sensor | None = None,
    ) -> "Fleet":
        """Devices 0, 1, … of a kind of defective pixels.

        Arguments and errors as of `DefectMap.drawn_all`; `devices` is their number. With a
        sensor these are photosites of it, `image_shape` (its height, its width, 1).
        """
        maps = DefectMap.drawn_all(perturbation, image_shape, seed, range(devices))
        by_name = {str(device): own for device, own in enumerate(maps)}
        return cls(str(perturbation), by_name, sensor=sensor, seed=seed)

    @classmethod
    def of_sensor(cls, sensor: Sensor, seed: int, devices: int, years: float = 0.0) -> "Fleet":
        """Devices 0, 1, … of a sensor, all of one age; see `Sensor.defects`.

        Raises:
            InvalidArgument: if an argument is out of range.
        """
        maps = sensor.defects_of(seed, range(devices), years)
        name = f"{sensor.kind} {years:g} years" if years else sensor.kind
        by_name = {str(device): own for device, own in enumerate(maps)}
        return cls(name, by_name, sensor=sensor, seed=seed, years=years)

    @classmethod
    def at_every_position(
        cls, perturbation: Perturbation | Mixture, image_shape: tuple[int, int, int]
    ) -> "Fleet":
        """One defect at each position: all devices that there can be, each once.

        Args:
            perturbation: one hot or one dead pixel; others differ in more than the position.
            image_shape: (H, W, C).

        Returns:
            The devices, in order of rows and columns.

        Raises:
            InvalidArgument: if it is anything else.
        """
        if not isinstance(perturbation, Perturbation) or perturbation.kind not in NAMED:
            kind = perturbation.kind
            raise InvalidArgument("perturb", kind, f"{' or '.join(NAMED)} with devices=all")
        if perturbation.level != 1:
            value = f"{perturbation.level:g}"
            raise InvalidArgument("level", value, "1 with devices=all: one defect per device")
        height, width, _ = image_shape
        shown = np.array(NAMED[perturbation.kind])
        places = np.indices((height, width)).reshape(2, -1, 1)  # [2, H*W, 1]
        maps = {
            str(device): DefectMap(rows, columns, values=shown)
            for device, (rows, columns) in enumerate(zip(*places))
        }
        return cls(str(perturbation), maps, sample=False)

    @classmethod
    def read(cls, paths: Sequence[str | os.PathLike]) -> "Fleet":
        """A real fleet: one file per device.

        Args:
            paths: files as of `DefectMap.read`, or folders of such files.

        Returns:
            The devices by the names of their files, without ending where these differ.

        Raises:
            InvalidArgument: if a folder is empty, two files have one name, or one is no map.
            Unavailable: if one cannot be read.
        """
        files = [file for path in paths for file in _files(Path(path))]
        stems = [file.stem for file in files]
        names = stems if len(set(stems)) == len(stems) else [file.name for file in files]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise InvalidArgument("defects", twice[0], "files of different names, one per device")
        maps = {name: DefectMap.read(file) for name, file in zip(names, files)}
        return cls("defects", maps, sample=False)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    try:
        inside = sorted(one for one in path.iterdir() if not one.name.startswith("."))
    except OSError as error:
        raise Unavailable("defects", path, f"it cannot be read ({error.strerror})") from error
    if not inside:
        raise InvalidArgument("defects", path, "a folder with defect maps; it is empty")
    return inside


def described(defects: DefectMap, most: int = 5) -> str:
    """What is defective, to read: "hot (3, 4), dead (0, 7)"; positions are row and column."""
    names = {value: name for name, value in NAMED.items()}
    found = []
    for defect in range(min(len(defects), most)):
        value, offset = float(defects.values[defect]), float(defects.offsets[defect])
        shown = f"{offset:+.3g}" if np.isnan(value) else names.get(value, f"{value:.3g}")
        channel = defects.channels[defect]
        own = "" if channel < 0 else f", {channel}"
        found.append(f"{shown} ({defects.rows[defect]}, {defects.columns[defect]}{own})")
    more = len(defects) - most
    return ", ".join(found) + (f" and {more:,} more" if more > 0 else "")


def share_interval(count: int, devices: int, level: float = LEVEL) -> tuple[float, float]:
    """The exact interval of a share (Clopper and Pearson), for devices drawn at random.

    Args:
        count: devices that have it.
        devices: all that were seen, from 1 on.
        level: its confidence.

    Returns:
        Lower and upper end, in [0, 1]. Each end alone has the confidence (1 + level) / 2.

    Examples:
        >>> share_interval(0, 59, 0.9)[1] < 0.05
        True
    """
    rest = (1 - level) / 2
    low = scipy.stats.beta.ppf(rest, count, devices - count + 1) if count else 0.0
    high = scipy.stats.beta.ppf(1 - rest, count + 1, devices - count) if count < devices else 1.0
    return float(low), float(high)


def quantile(values: np.ndarray, share: float) -> float:
    """The lowest value that at least a share of the devices does not exceed.

    Args:
        values: one per device.
        share: above 0, at most 1: 0.5 for a median.
    """
    return float(np.quantile(values, share, method="inverted_cdf"))


def lower_rank(devices: int, share: float, level: float = LEVEL) -> int:
    """Which of the sorted values of a sample bounds a quantile of all devices from below.

    The k-th lowest of n is at most the quantile unless fewer than k of n devices are
    below it, whose number is binomial, whatever the distribution is.

    Args:
        devices: n, from 1 on.
        share: of the quantile, in (0, 1).
        level: the confidence.

    Returns:
        The largest k, from 1 on; 0 where there are too few devices.

    Examples:
        >>> lower_rank(58, 0.05), lower_rank(59, 0.05)
        (0, 1)
    """
    ranks = np.arange(1, devices + 1)
    return int((scipy.stats.binom.cdf(ranks - 1, devices, share) <= 1 - level).sum())


def upper_rank(devices: int, share: float, level: float = LEVEL) -> int:
    """Likewise from above: the smallest such k; n + 1 where there are too few devices."""
    return devices + 1 - lower_rank(devices, 1 - share, level)


def summarize(
    accuracies: np.ndarray, natural: float, examples: int, asked: Asked, sample: bool = True
) -> dict[str, Any]:
    """What the accuracies of devices say of a fleet, as columns of `studies.fleet.SUMMARY_COLUMNS`.

    Args:
        accuracies: one per device.
        natural: the accuracy without defects.
        examples: number of test images.
        asked: what is asked.
        sample: as in `Fleet`; where the devices are no sample, each bound is the value itself.

    Returns:
        `mean_low` and `mean_high`: the 95 % interval of the mean for other devices (Student's).
        `quantile_low`: what the quantile of all devices is not below, with 95 % confidence and
        whatever the distribution; it is the accuracy of rank `quantile_rank` from the lowest,
        missing where there are too few devices. `share_low` and `share_high`: the exact 95 %
        interval of the share of devices below `accept`; `share_bound`: what that share is not
        above, with 95 % confidence. `accepted`: whether this bound is at most `accept_share`, or,
        which is the same, `quantile_low` at least `accept`.
    """
    devices, share, mean = len(accuracies), asked.accept_share, float(accuracies.mean())
    at_quantile = quantile(accuracies, share)
    rank, low, reach = math.nan, at_quantile, 0.0
    if sample:
        rank = lower_rank(devices, share)
        low = np.sort(accuracies)[int(rank) - 1] if rank else math.nan
        freedom = max(1, devices - 1)
        error = accuracies.std(ddof=1) / math.sqrt(devices) if devices > 1 else math.nan
        reach = float(scipy.stats.t.ppf((1 + LEVEL) / 2, freedom) * error)
    found = {
        "devices": devices,
        "natural_accuracy": natural,
        "mean_accuracy": mean,
        "mean_low": mean - reach,
        "mean_high": mean + reach,
        "median_accuracy": quantile(accuracies, 0.5),
        "accept_share": share,
        "quantile_accuracy": at_quantile,
        "quantile_low": low,
        "quantile_rank": rank,
        "lowest_accuracy": accuracies.min(),
        "accept": asked.accept,
    }
    if asked.accept is None:
        return found
    below = int(np.count_nonzero(is_below(accuracies, asked.accept, examples)))
    ends, bound = (below / devices,) * 2, below / devices
    if sample:
        ends = share_interval(below, devices)
        _, bound = share_interval(below, devices, 2 * LEVEL - 1)
    return found | {
        "below": below,
        "share_below": below / devices,
        "share_low": ends[0],
        "share_high": ends[1],
        "share_bound": bound,
        "accepted": bound <= share,
    }


def is_below(accuracies: np.ndarray, accept: float, examples: int) -> np.ndarray:
    """Which accuracies of so many images are below one that is asked for."""
    return accuracies * examples < accept * examples - 1e-6  # 0.07 * 100 is above 7
