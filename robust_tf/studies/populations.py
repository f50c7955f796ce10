"""Where the devices of a certificate come from: a sensor, or a kind of defective pixels.

A population makes fleets; what a model does on their devices is not known here.
"""

import dataclasses

import tensorflow as tf

from robust_tf.errors import InvalidArgument
from robust_tf.evaluation import Condition
from robust_tf.perturbations import KINDS, Mixture, Perturbation
from robust_tf.sensors import Device, Fleet, Sensor
from robust_tf.sensors.correction import GoodNeighbours, by_list

ImageShape = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class OfKind:
    """Devices with defective pixels of a kind, in the pixels of a network's input.

    Args:
        perturbation: the kind and how many; of a mixture, each device has one.
        image_shape: (H, W, C) of the images.
    """

    perturbation: Perturbation | Mixture
    image_shape: ImageShape
    ages = False
    # Whether a device's own list of defects can be corrected in its images.
    listed = True
    # What is defective.
    unit = "pixels"

    @property
    def name(self) -> str:
        """The kind, and how many: "hot 2"."""
        return str(self.perturbation)

    def fleet(self, seed: int, devices: int, years: float = 0.0) -> Fleet:
        """Devices 0, 1, …; raises `InvalidArgument` if the kind is not of defective pixels."""
        return Fleet.drawn(self.perturbation, self.image_shape, seed, devices)

    def most(self, kind: str) -> int:
        """The largest number of defects of a kind: all pixels."""
        return _most(kind, *self.image_shape[:2])

    def with_number(self, kind: str, level: int, seed: int, devices: int) -> Fleet:
        """Devices that have just so many defects of another kind."""
        return Fleet.drawn(Perturbation(kind, level), self.image_shape, seed, devices)


@dataclasses.dataclass(frozen=True)
class OfSensor:
    """Devices of a sensor: expected defects, noise, colour filter and the way to the input.

    Args:
        sensor: what they have in common.
    """

    sensor: Sensor
    listed = False  # it would have to be corrected before the colours are filled in
    unit = "photosites"

    @property
    def name(self) -> str:
        """That of the sensor."""
        return self.sensor.name

    @property
    def ages(self) -> bool:
        """Whether the sensor has a law of growth."""
        return self.sensor.growth is not None

    def fleet(self, seed: int, devices: int, years: float = 0.0) -> Fleet:
        """Devices 0, 1, … of an age; see `Fleet.of_sensor`."""
        return Fleet.of_sensor(self.sensor, seed, devices, years)

    def most(self, kind: str) -> int:
        """The largest number of defects of a kind: all photosites."""
        return _most(kind, self.sensor.height, self.sensor.width)

    def with_number(self, kind: str, level: int, seed: int, devices: int) -> Fleet:
        """Devices that have just so many defective photosites of one kind, and no other defects."""
        shape = (self.sensor.height, self.sensor.width, 1)
        return Fleet.drawn(Perturbation(kind, level), shape, seed, devices, self.sensor)


Population = OfKind | OfSensor


def _most(kind: str, height: int, width: int) -> int:
    return int(KINDS[kind].bounds(height, width)[1])


@dataclasses.dataclass(frozen=True, eq=False)
class Listed(Condition):
    """A device whose own list of defects is corrected.

    Args:
        device: the device.
        good: what its defects are corrected from; by default found of its map.
    """

    device: Device
    good: GoodNeighbours | None = None
    kind: str = dataclasses.field(init=False, default="listed")
    level: float = dataclasses.field(init=False, default=0.0)

    def __post_init__(self):
        """Finds the good neighbours."""
        if self.good is None:
            if self.device.image_shape is None:
                raise InvalidArgument("image_shape", None, "(height, width, channels)")
            good = GoodNeighbours.of(self.device.defects.mask(self.device.image_shape))
            object.__setattr__(self, "good", good)

    @tf.autograph.experimental.do_not_convert
    def __call__(self, images: tf.Tensor, seeds: tf.Tensor | None = None) -> tf.Tensor:
        """What the device takes, corrected; arguments and result as of `Condition`."""
        assert self.good is not None
        return by_list(self.device(images), self.good)

    def __tf_flatten__(self) -> tuple[tuple, tuple]:
        """That of the device, and the tensors of its good neighbours."""
        assert self.good is not None
        metadata, components = self.device.__tf_flatten__()
        own = (*self.good.sources, *self.good.counts, self.good.places)
        shapes = tuple(tuple(one.shape) for one in own)
        return (metadata, len(components), shapes), (*components, *map(tf.convert_to_tensor, own))

    @classmethod
    def __tf_unflatten__(cls, metadata: tuple, components: tuple) -> "Listed":
        """The device that stands for all with lists of such lengths in a graph."""
        own, count, _ = metadata
        device = Device.__tf_unflatten__(own, components[:count])
        *tables, places = components[count:]
        groups = len(tables) // 2
        return cls(device, GoodNeighbours(tuple(tables[:groups]), tuple(tables[groups:]), places))
