"""One device as a test condition: its defect map, the same for all images.

What a map is, and its files, is in `maps`.
"""

import dataclasses
import functools
import math
import os
from pathlib import Path

import tensorflow as tf

from robust_tf.errors import InvalidArgument
from robust_tf.files import file_name
from robust_tf.perturbations.condition import Condition
from robust_tf.perturbations.values import check_values
from robust_tf.sensors.maps import DefectMap
from robust_tf.sensors.names import DEVICE

_NONE = DefectMap.none()


@dataclasses.dataclass(frozen=True, eq=False)
class Device(Condition):
    """Images as a device with defective pixels takes them; callable on a batch.

    Two are equal if their names and the contents of their maps are.

    Args:
        defects: its map.
        name: what it is called, such as the name of the map's file.
        image_shape: (H, W, C) of the images; TensorFlow then traces a function that takes a
            device once for all of that shape. By default each has its own trace.

    Raises:
        InvalidArgument: if a position is outside of images of that shape.

    Examples:
        >>> device = Device(DefectMap([3], [4], values=1.0), "front")
        >>> float(tf.reduce_sum(device(tf.zeros([2, 28, 28, 1]))))
        2.0
    """

    defects: DefectMap
    name: str = "device"
    image_shape: tuple[int, int, int] | None = None
    level: float = dataclasses.field(init=False, repr=False, default=math.nan)
    # In a graph: those that stand for the map's.
    _tensors: tuple[tf.Tensor, tf.Tensor] | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self):
        """Checks the positions where the shape is known."""
        if self.image_shape is not None:
            self.check(self.image_shape)

    @classmethod
    def read(cls, path: str | os.PathLike) -> "Device":
        """The device whose map is in a file; see `DefectMap.read`."""
        return cls(DefectMap.read(path), Path(path).stem)

    @property
    def kind(self) -> str:  # type: ignore[override]
        """Its name in tables, with eight characters that the content of the map decides."""
        return f"{DEVICE}{file_name(self.name)}-{self.defects.digest[:8]}"

    def check(self, image_shape: tuple[int, int, int]) -> None:
        """Raises `InvalidArgument` if a position is outside of images of shape (H, W, C)."""
        try:
            self.defects.check(image_shape)
        except InvalidArgument as error:
            raise error.with_value(f"{self.name}, {error.value}") from None

    def fitted(self, image_shape: tuple[int, int, int]) -> "Device":
        """The same for images of shape (H, W, C)."""
        return dataclasses.replace(self, image_shape=image_shape)

    @functools.cached_property
    def tensors(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Keep and add of `DefectMap.tensors`; the image shape must be known."""
        if self._tensors is not None:
            return self._tensors
        if self.image_shape is None:
            raise InvalidArgument("image_shape", None, "(height, width, channels) of the images")
        with tf.init_scope():  # kept beyond the graph in which it is asked for first
            return self.defects.tensors(self.image_shape)

    @tf.autograph.experimental.do_not_convert
    def __call__(self, images: tf.Tensor, seeds: tf.Tensor | None = None) -> tf.Tensor:
        """Gives a batch the defects; arguments and result as of `Condition`.

        Args:
            images: float32, shape [B, H, W, C], values in [0, 1].
            seeds: not used.

        Returns:
            float32 tensor of the same shape, values in [0, 1].

        Raises:
            InvalidArgument: if a position is outside, or the images' size is not known in a
                graph; eagerly, also if a value is NaN or out of range.
        """
        images = tf.convert_to_tensor(images)
        check_values(images)
        known = self._tensors is not None or self.image_shape == tuple(images.shape[1:])
        if not known and None in images.shape[1:]:
            raise InvalidArgument("images", str(images.shape), "images of a known size")
        own = self if known else self.fitted(tuple(images.shape[1:]))
        keep, add = own.tensors
        return tf.clip_by_value(images * keep + add, 0.0, 1.0)

    def __eq__(self, other: object) -> bool:
        """By name and content of the map."""
        return isinstance(other, Device) and self.kind == other.kind

    def __hash__(self) -> int:
        """As `__eq__` says."""
        return hash(self.kind)

    def __tf_flatten__(self) -> tuple[tuple, tuple]:
        """The shape of the images, which a trace depends on, and the map's tensors."""
        if self.image_shape is None:
            return (self,), ()
        return (self.image_shape,), self.tensors

    @classmethod
    def __tf_unflatten__(cls, metadata: tuple, components: tuple) -> "Device":
        """The device that stands for all of its shape in a graph."""
        if not components:
            return metadata[0]
        return cls(_NONE, image_shape=metadata[0], _tensors=components)
