"""Images as a sensor's devices take them: from the scene to the input of a network.

The photosites of a device are exposed (colour filter, noise, defects), their values become an
image of eight bits (demosaicing), which is binned and resized. A test image is the scene; where
the sensor is larger, it is enlarged, and has no more detail than before.
"""

import dataclasses
import functools
import math
from typing import Any

import numpy as np
import tensorflow as tf

from robust_tf import machine
from robust_tf import seeds as seeds_lib
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.perturbations.condition import Condition
from robust_tf.perturbations.photons import random_words
from robust_tf.perturbations.values import check_values
from robust_tf.sensors import electrons, mosaics, scatter
from robust_tf.sensors.maps import DefectMap
from robust_tf.sensors.names import SENSOR_FILE
from robust_tf.sensors.specification import Sensor
from robust_tf.xla import by_rows, in_xla, not_constant

# Sets an image's own device apart from the temporal noise, and this from other perturbations.
_DEVICE, _TEMPORAL = 2, 3
# The draw of the fixed pattern among a device's; those of defects are of seeds folded from it.
_PATTERN = 2


@dataclasses.dataclass(frozen=True, eq=False)
class SensorDevice(Condition):
    """Images as devices of a sensor take them; callable on a batch.

    Args:
        sensor: what the devices have in common.
        device: the number of the one that takes all images, from 0 on; by default each image
            is taken by another, which its seed draws.
        seed: the experiment's, which draws the device of that number.
        years: the age of the devices.
        defects: the map of the device, in the sensor's coordinates; by default it is drawn.

    Raises:
        InvalidArgument: if there is no such device, or a defect is outside of the sensor.

    Examples:
        >>> taken = SensorDevice(Sensor(height=28, width=28), device=3)
        >>> taken(tf.ones([2, 28, 28, 1]), tf.zeros([2, 2], tf.int32)).shape
        TensorShape([2, 28, 28, 1])
    """

    sensor: Sensor
    device: int | None = None
    seed: int = 0
    years: float = 0.0
    defects: DefectMap | None = None
    level: float = dataclasses.field(init=False, repr=False, default=math.nan)
    # In a graph: those that stand for the device's.
    _tensors: tuple[tf.Tensor, ...] | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self):
        """Checks device, age and map."""
        self.sensor.check_device(self.device or 0, self.years)
        if self.defects is not None:
            if self.device is None:
                raise InvalidArgument("device", None, "the number of the device with these defects")
            self.defects.check((self.sensor.height, self.sensor.width, 1))

    @property
    def kind(self) -> str:  # type: ignore[override]
        """Its name in tables: that of the sensor, with device and age where they are given."""
        words = [self.sensor.kind]
        words += [] if self.device is None else [f"device {self.device}"]
        words += [] if self.defects is None else [f"with {self.defects.digest[:8]}"]
        words += [f"{self.years:g} years"] if self.years else []
        return " ".join(words)

    def __eq__(self, other: object) -> bool:
        """By what decides the images."""
        own = isinstance(other, SensorDevice) and (other.kind, other.seed)
        return own == (self.kind, self.seed)

    def __hash__(self) -> int:
        """As `__eq__` says."""
        return hash((self.kind, self.seed))

    @property
    def random(self) -> bool:
        """Whether two trials differ: by their devices or by noise."""
        drawn = any(source.mean for source in self.sensor.sources(self.years))
        return self.sensor.noise is not None or (self.device is None and drawn)

    def check(self, image_shape: tuple[int, int, int]) -> None:
        """Raises `InvalidArgument` if such images of shape (H, W, C) have no such colours."""
        grey = self.sensor.filter == "mono"
        channels = image_shape[-1]
        if channels is not None and channels != (1 if grey else 3):
            given = f"{self.sensor.name}, filter={self.sensor.filter}"
            expected = {1: "filter=mono", 3: f"filter={', '.join(mosaics.TILES)}"}.get(channels)
            expected = f"{expected} for" if expected else "one or three channels, not"
            noun = "channel" if channels == 1 else "channels"
            raise InvalidArgument("sensor", given, f"{expected} images of {channels} {noun}")

    @functools.cached_property
    def tensors(self) -> tuple[tf.Tensor, ...]:
        """Of the one device: what its photosites keep and add [H, W], its pattern [2, H, W]."""
        if self._tensors is not None:
            return self._tensors
        with tf.init_scope():  # kept beyond the graph in which it is asked for first
            sensor, number = self.sensor, int(self.device or 0)
            defects = self.defects
            if defects is None:
                defects = sensor.defects(self.seed, number, self.years)
            keep, add = scatter.painted_map(defects, sensor.window)
            pattern = _pattern(sensor, scatter.device_seeds(self.seed, [number]))[0]
            return keep, add, pattern

    @tf.autograph.experimental.do_not_convert
    def __call__(self, images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """Takes a batch.

        Args:
            images: float32, shape [B, H, W, C], values in [0, 1].
            seeds: int32, shape [B, 2].

        Returns:
            float32 tensor of the same shape, values in [0, 1].

        Raises:
            InvalidArgument: if the sensor has no such colours, or the images' size is not
                known in a graph; eagerly, also if a value is NaN or out of range.
        """
        images = tf.convert_to_tensor(images)
        check_values(images)
        self.check(tuple(images.shape[1:]))
        if None in images.shape[1:]:
            raise InvalidArgument("images", str(images.shape), "images of a known size")
        seeds = tf.convert_to_tensor(seeds, tf.int32)
        if self._is_plain(images.shape[1:3]):
            return tf.ensure_shape(self._taken(images, seeds), images.shape)
        if images.shape[0] == 0:  # XLA has no loop over nothing
            return images
        # A trace is of one of both: what is compiled by the caller, or here.
        taken = _one_by_one if in_xla() else _traced
        return tf.ensure_shape(taken(self, images, seeds), images.shape)

    def _is_plain(self, size: tuple[int, int]) -> bool:
        """Whether each pixel of an image is one photosite, and these are few."""
        window = self.sensor.window
        same = (window.height, window.width) == tuple(size) and self.sensor.input.binning == 1
        return same and window.height * window.width <= _AT_ONCE

    def _taken(self, scenes: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """Images [B, H, W, C] of scenes of the window's size."""
        sensor, window = self.sensor, self.sensor.window
        batches: tuple[tf.Tensor, ...] = ()
        common: tuple[tf.Tensor, ...] = ()
        if self.device is None:
            own = seeds_lib.fold_in(seeds, tf.constant(_DEVICE))
            sources = sensor.sources(self.years)
            defects = scatter.drawn(sources, own, sensor.height, sensor.width)
            batches = (*scatter.painted(defects, window, sensor.width), _pattern(sensor, own))
        else:
            common = self.tensors
        temporal = _words(sensor, seeds_lib.fold_in(seeds, tf.constant(_TEMPORAL)), 0)
        read = _photosites((scenes, temporal, *batches), sensor, *common)
        return _developed((read,), sensor)

    def __tf_flatten__(self) -> tuple[tuple, tuple]:
        """What a trace is for, and the device's tensors."""
        return ((self,), ()) if self.device is None else ((self.sensor,), self.tensors)

    @classmethod
    def __tf_unflatten__(cls, metadata: tuple, components: tuple) -> "SensorDevice":
        """The device that stands for all of its sensor in a graph."""
        return cls(metadata[0], 0, _tensors=components) if components else metadata[0]


def read(name: str, argument: str) -> SensorDevice:
    """The devices of the sensor that a text names, each image taken by another.

    Raises:
        InvalidArgument: if the file is no sensor's; of that argument.
        Unavailable: if it cannot be read.
    """
    if name == SENSOR_FILE:
        raise InvalidArgument(argument, name, f"{SENSOR_FILE}FILE")
    try:
        return SensorDevice(Sensor.read(name.removeprefix(SENSOR_FILE)))
    except (InvalidArgument, Unavailable) as error:
        raise error.of(argument).with_value(f"{SENSOR_FILE}{error.value}") from error


# Photosites of images that are computed as one batch, and of those that are one by one, in all.
_AT_ONCE, _IN_FLIGHT = 2**14, 2**23


def _words(sensor: Sensor, seeds: tf.Tensor, draw: int) -> tf.Tensor:
    """Two words for each photosite, uint32 [B, 2, H, W]; none of a sensor without noise."""
    shape = [-1, 2, sensor.window.height, sensor.window.width]
    if sensor.noise is None:
        return tf.zeros([tf.shape(seeds)[0], 0], tf.uint32)
    return tf.reshape(random_words(seeds, math.prod(shape[1:]), draw), shape)


def _pattern(sensor: Sensor, seeds: tf.Tensor) -> tf.Tensor:
    """The words of the fixed patterns of devices; see `_words`."""
    return _words(sensor, seeds, _PATTERN)


@by_rows
def _photosites(batch: tuple[tf.Tensor, ...], sensor: Sensor, *common: tf.Tensor) -> tf.Tensor:
    """What the photosites of the window show, [B, H, W].

    Args:
        batch: scenes [B, H, W, C] and words [B, 2, H, W]; with each image's device: what it keeps
            and adds [B, H, W], and the words of its pattern.
        sensor: what they are of.
        *common: the same for one device.
    """
    scenes, words, *own = batch
    keep, add, pattern = own or common
    noise = sensor.noise
    light = scenes[..., 0] if sensor.filter == "mono" else mosaics.mosaic(scenes, _colours(sensor))
    if noise is None:
        read = electrons.rounded(light, sensor.bits)
    else:
        # [B, 2, H, W] -> two of [B, H, W]; of one device [H, W]
        pattern = electrons.pattern(noise, tf.unstack(pattern, axis=-3))
        if in_xla():  # which would compute that of one device again for each image
            (pattern,) = not_constant((pattern,))
        read = electrons.digitised(light, tf.unstack(words, axis=1), pattern, noise, sensor.bits)
    return tf.clip_by_value(read * keep + add, 0.0, 1.0)


@by_rows
def _developed(batch: tuple[tf.Tensor], sensor: Sensor) -> tf.Tensor:
    """Images of eight bits, [B, H, W, C], of what the photosites show."""
    (read,) = batch
    if sensor.filter == "mono":
        image = read[..., tf.newaxis]
    else:
        image = mosaics.demosaic(read, _colours(sensor), sensor.input.demosaic)
    steps = tf.constant(255.0)
    if in_xla():  # which would multiply, and so give other bits than a file's bytes
        (steps,) = not_constant((steps,))
    return tf.round(image * steps) / steps


def _colours(sensor: Sensor) -> np.ndarray:
    window = sensor.window
    return mosaics.colours(sensor.filter, window.width, window.top, window.left)


def _one_by_one(taken: SensorDevice, images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
    """Images that are resized, or large: one after the other, always computed the same."""
    window, binning = taken.sensor.window, taken.sensor.input.binning
    size = images.shape[1:3]
    sides = list(zip((window.height, window.width), size))
    enlarge = [_matrix(n, side) for n, side in sides]
    reduce = [_matrix(side, n // binning) @ _binning(n, binning) for n, side in sides]

    def one(own: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        image, seed = own
        scene = _resized(image, enlarge)
        return _resized(taken._taken(scene[tf.newaxis], seed[tf.newaxis])[0], reduce)

    spec = tf.TensorSpec(images.shape[1:], tf.float32)
    at_once = max(1, min(machine.cores(), _IN_FLIGHT // (window.height * window.width)))
    return tf.map_fn(one, (images, seeds), parallel_iterations=at_once, fn_output_signature=spec)


_traced = tf.function(_one_by_one, autograph=False)


def _resized(image: tf.Tensor, matrices: list[np.ndarray]) -> tf.Tensor:
    """An image [H, W, C] with other numbers of rows and columns."""
    for axis, matrix in enumerate(matrices):
        if matrix.shape[0] != matrix.shape[1] or (matrix != np.eye(len(matrix))).any():
            image = tf.tensordot(tf.constant(matrix, tf.float32), image, [[1], [axis]])
            image = image if axis == 0 else tf.transpose(image, [1, 0, 2])
    return tf.clip_by_value(image, 0.0, 1.0)


def _matrix(to: int, size: int) -> Any:
    """Resizes `size` values: a triangle filter as wide as it takes, as of `picture_files.read`."""
    scale = size / to
    places = (np.arange(to) + 0.5) * scale
    distances = np.abs(np.arange(size) + 0.5 - places[:, np.newaxis]) / max(scale, 1.0)
    weights = np.maximum(1.0 - distances, 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


def _binning(size: int, binning: int) -> Any:
    """The means of so many values after each other."""
    return np.kron(np.eye(size // binning), np.full((1, binning), 1 / binning))
