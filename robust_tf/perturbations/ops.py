"""What `Perturbation` and `Mixture` do to a batch: the part of them that is TensorFlow's."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from robust_tf.perturbations.values import check_values, sizes
from robust_tf.seeds import fold_in, uniform
from robust_tf.xla import in_xla

# Sets the draw of kind and level apart from those of the perturbation itself.
_CHOICE = 1

# What a mixture can draw, one sequence per kind.
Variants = Sequence[Sequence[Callable[[tf.Tensor, tf.Tensor], tf.Tensor]]]


@tf.autograph.experimental.do_not_convert
def perturbed(
    perturbation: Any, kind: Any, images: tf.Tensor, seeds: tf.Tensor | None
) -> tf.Tensor:
    """A batch that a `Perturbation` has perturbed, whose `Kind` is given.

    Other arguments, the result and errors are as of a call of the perturbation.
    """
    images = tf.convert_to_tensor(images)
    perturbation.check(tuple(images.shape[1:]))
    check_values(images)
    if None in images.shape[1:3] and not in_xla():
        images = _with_level_asserted(perturbation, kind, images)
    result = kind.op(images, seeds, perturbation.level, perturbation.channel_blur)
    return tf.ensure_shape(result, images.shape)


def _with_level_asserted(perturbation: Any, kind: Any, images: tf.Tensor) -> tf.Tensor:
    """The same images of a size that is known only when the graph runs."""
    _, high = kind.bounds(*sizes(images)[1:3])
    level, high = tf.cast(perturbation.level, tf.float64), tf.cast(high, tf.float64)
    message = f"level: for {perturbation.kind} of images of this size, expected at most:"
    check = tf.debugging.Assert(level <= high, [message, high, "received:", level])
    with tf.control_dependencies([check]):
        return tf.identity(images)


def choices(variants: Variants, seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Which of its variants a `Mixture` draws; seeds and result as of `Mixture.choices`."""
    draws = uniform(fold_in(seeds, tf.constant(_CHOICE)), 2)
    counts = tf.constant([len(levels) for levels in variants], tf.float32)
    kind = tf.cast(draws[:, 0] * float(len(variants)), tf.int32)
    return kind, tf.cast(draws[:, 1] * tf.gather(counts, kind), tf.int32)


@tf.autograph.experimental.do_not_convert
def mixed(variants: Variants, images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
    """A batch that a `Mixture` has perturbed; images, seeds and result as of a call of it."""
    kinds, levels = choices(variants, seeds)
    result = images
    for kind, of_kind in enumerate(variants):
        for level, perturbation in enumerate(of_kind):
            chosen = tf.where((kinds == kind) & (levels == level))
            own = tf.gather(images, chosen[:, 0]), tf.gather(seeds, chosen[:, 0])
            result = tf.tensor_scatter_nd_update(result, chosen, perturbation(*own))
    return tf.ensure_shape(result, images.shape)
