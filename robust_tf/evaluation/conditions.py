"""The conditions that perturb nothing themselves: natural images, others' images, rounding.

`Perturbation` and `Mixture` are the others; `Condition` says what all have in common.
"""

import math
from dataclasses import dataclass, field

import tensorflow as tf

from robust_tf.data import Split
from robust_tf.errors import InvalidArgument
from robust_tf.perturbations.condition import (
    Condition,
    condition_key,
    condition_label,
    trial_seed,
)

__all__ = [
    "Condition",
    "InBits",
    "Natural",
    "Recorded",
    "condition_key",
    "condition_label",
    "trial_seed",
]


@dataclass(frozen=True)
class Natural(Condition):
    """The images of the test set as they are.

    Examples:
        >>> str(Natural())
        'natural'
    """

    kind: str = field(default="none", init=False, repr=False)
    level: float = field(default=math.nan, init=False, compare=False, repr=False)


@dataclass(frozen=True)
class Recorded(Condition):
    """Images that were recorded, not computed: those of another dataset.

    Args:
        kind: the name of the dataset, "mnist_corrupted/fog".
        level: the severity that the dataset gives; NaN for none.
        recorded: the images.
    """

    kind: str
    level: float
    recorded: Split = field(compare=False, repr=False)

    def check(self, image_shape: tuple[int, int, int]) -> None:
        """Raises `InvalidArgument` if its images are not of shape (H, W, C)."""
        if self.recorded.image_shape != image_shape:
            given = f"{self.kind} {self.recorded.image_shape}"
            raise InvalidArgument("eval", given, f"a dataset of images of shape {image_shape}")

    def split(self, test: Split) -> Split:
        """Its own examples."""
        return self.recorded

    def examples(self, test_examples: int) -> int:
        """How many these are."""
        return len(self.recorded)

    def digest(self, test_digest: str) -> str:
        """Their own digest."""
        return self.recorded.digest

    def __tf_flatten__(self) -> tuple[tuple, tuple]:
        """As natural images: a traced function gets the split as another argument."""
        return (Natural(),), ()


@dataclass(frozen=True)
class InBits(Condition):
    """A perturbation whose images are rounded, as cameras and image files have them.

    Args:
        condition: the perturbation or mixture.
        bits: of each value, from 1 to 16: values become multiples of 1 / (2**bits - 1).

    Raises:
        InvalidArgument: if there cannot be so many bits.

    Examples:
        >>> str(InBits(Perturbation("noise", 0.05), 8))
        '8-bit noise 0.05'
    """

    condition: Condition
    bits: int = 8
    kind: str = field(init=False, compare=False, repr=False)
    level: float = field(init=False, compare=False, repr=False)

    def __post_init__(self):
        """Checks the bits; the kind is another than that of the same images without rounding."""
        if isinstance(self.bits, bool) or self.bits not in range(1, 17):
            raise InvalidArgument("bits", self.bits, "a whole number from 1 to 16")
        object.__setattr__(self, "kind", f"{self.bits}-bit {self.condition.kind}")
        object.__setattr__(self, "level", self.condition.level)

    @property
    def key(self) -> tuple[str, float]:
        """As for the perturbation, with the bits."""
        kind, level = self.condition.key
        return f"{self.bits}-bit {kind}", level

    @property
    def random(self) -> bool:
        """Whether two trials differ."""
        return self.condition.random

    @property
    def channel_blur(self) -> bool:
        """Whether it blurs over the channel axis too."""
        return self.condition.channel_blur

    def check(self, image_shape: tuple[int, int, int]) -> None:
        """Raises `InvalidArgument` if it does not fit images of shape (H, W, C)."""
        self.condition.check(image_shape)

    def fitted(self, image_shape: tuple[int, int, int]) -> "InBits":
        """The same for images of shape (H, W, C)."""
        return InBits(self.condition.fitted(image_shape), self.bits)

    @tf.autograph.experimental.do_not_convert
    def __call__(self, images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """Perturbs and rounds a batch; arguments and result as of `Condition`."""
        steps = float(2**self.bits - 1)
        # A division as in `Split.images_at`, so that bytes read from a file are the same.
        return tf.round(self.condition(images, seeds) * steps) / steps

    def __tf_flatten__(self) -> tuple[tuple, tuple]:
        """What a trace of the perturbation is for, with the bits, and its tensors."""
        metadata, components = self.condition.__tf_flatten__()
        return (self.bits, type(self.condition), metadata), components

    @classmethod
    def __tf_unflatten__(cls, metadata: tuple, components: tuple) -> "InBits":
        """The condition that `__tf_flatten__` took apart."""
        bits, kind, own = metadata
        return cls(kind.__tf_unflatten__(own, components), bits)

    def __str__(self) -> str:
        """As in tables and on figures."""
        return f"{self.bits}-bit {self.condition}"
