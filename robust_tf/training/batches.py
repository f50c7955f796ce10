"""The input pipeline of training: the batches of all epochs, perturbed as a strategy says.

Every batch knows its epoch, and every image's perturbation depends on the seed, the image's
index and, where asked for, the epoch.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Literal

import keras
import numpy as np
import tensorflow as tf

from robust_tf import machine
from robust_tf.data import Split, chunk_size, without_autotuning
from robust_tf.errors import InvalidArgument
from robust_tf.perturbations import example_seeds
from robust_tf.perturbations.condition import Condition
from robust_tf.seeds import fold_in, stream_seed
from robust_tf.training import augmentations, devices
from robust_tf.training.callbacks import PerturbedFraction
from robust_tf.training.ramp import Ramp
from robust_tf.training.recipes import Recipe
from robust_tf.training.retained import retain
from robust_tf.training.validation import Validation, balanced, division

# Perturbed training images that stay the same are kept in memory up to this size, and up to the
# split's room; otherwise they are computed anew in each epoch, which gives the same bits.
_CACHE_BYTES = 2**30
# Batches that are ready before the training step asks for them.
_PREFETCHED = 2
# Converting these functions and what they call takes seconds in every process; none has
# Python control flow that depends on a tensor.
_do_not_convert = tf.autograph.experimental.do_not_convert

BuildModel = Callable[[], keras.Model]
# (example indices [B], epoch) to images [B, H, W, C]; callable in a graph.
ImagesAt = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
# Which training images the standardisation is adapted to; None leaves it as it is.
Adapt = Literal["natural", "perturbed"] | None


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    """What `training.fit` needs.

    Attributes:
        model: the starting model, standardisation adapted, not compiled.
        batches: (float32 images [B, H, W, C] in [0, 1], int64 labels [B]) of all epochs
            from `initial_epoch` on, one after another; of R devices each has every R-th
            image of a batch.
        steps_per_epoch: batches per epoch.
        examples: images per epoch.
        recipe: how it is trained.
        initial_epoch: the first epoch of the batches, from 0.
        distribution: the devices that share each batch.
        callbacks: Keras callbacks that belong to the batches.
        validation: measures with images that are held out; None without them.
        class_weights: how much the images of each class count, [classes]; None for the same.
    """

    model: keras.Model
    batches: tf.data.Dataset | tf.distribute.DistributedDataset
    steps_per_epoch: int
    examples: int
    recipe: Recipe
    initial_epoch: int
    distribution: tf.distribute.Strategy
    callbacks: tuple[keras.callbacks.Callback, ...]
    validation: Validation | None = None
    class_weights: np.ndarray | None = None


def prepare(
    split: Split,
    build_model: BuildModel,
    recipe: Recipe,
    *,
    perturbation: Condition | None,
    fresh: bool,
    ramp: Ramp,
    adapt: Adapt,
    seed: int,
    initial_epoch: int,
    distribution: tf.distribute.Strategy | None,
) -> Training:
    """Makes what `training.fit` needs; see `strategies.Strategy.prepare`.

    Args:
        split: training split.
        build_model: makes the model that training starts from.
        recipe: how it is trained.
        perturbation: what perturbs an image; None for nothing.
        fresh: perturb an image anew in each epoch, not once and for all.
        ramp: the perturbed fraction over the epochs.
        adapt: the images that the standardisation is adapted to.
        seed: the experiment's seed.
        initial_epoch: the first epoch to make batches for, from 0.
        distribution: the devices that share each batch; None for one.
    """
    distribution = distribution or tf.distribute.get_strategy()
    fraction = PerturbedFraction(ramp, recipe.epochs)
    natural_at = _natural_at(split, recipe, seed)
    perturbed_at = natural_at
    if perturbation is not None:
        perturbed_at = _perturbed_at(split, recipe, perturbation, fresh, seed, natural_at)

    def presented(index: tf.Tensor) -> tf.Tensor:
        images_at = perturbed_at if adapt == "perturbed" else natural_at
        return images_at(index, tf.constant(0, tf.int64))

    kept, held_out = np.arange(len(split)), None
    if recipe.validation_fraction:
        kept, held_out = division(split.labels.numpy(), recipe.validation_fraction, seed)
    with distribution.scope():
        model = build_model()
    for layer in model.layers:
        if adapt and layer.name == "standardization":
            layer.adapt(_mapped(_chunks(split, kept), presented))
    examples = len(kept)
    if recipe.drop_remainder:
        examples -= examples % recipe.batch_size
    replicas = distribution.num_replicas_in_sync
    make_batches = functools.partial(
        _batches,
        split,
        recipe,
        kept,
        examples,
        fraction,
        natural_at,
        perturbed_at,
        seed=seed,
        initial_epoch=initial_epoch,
        replicas=replicas,
    )
    if replicas > 1:
        devices.synchronize(model)
        batches = distribution.distribute_datasets_from_function(lambda _: make_batches())
    else:
        batches = make_batches()
    return Training(
        model=model,
        batches=batches,
        steps_per_epoch=math.ceil(examples / recipe.batch_size),
        examples=examples,
        recipe=recipe,
        initial_epoch=initial_epoch,
        distribution=distribution,
        callbacks=(fraction,),
        validation=_validation(split, recipe, perturbation, seed, held_out, perturbed_at),
        class_weights=None
        if recipe.class_weight == "none"
        else balanced(split.labels.numpy()[kept], model.output_shape[-1]),
    )


def _batches(
    split: Split,
    recipe: Recipe,
    kept: np.ndarray,
    examples: int,
    fraction: PerturbedFraction,
    natural_at: ImagesAt,
    perturbed_at: ImagesAt,
    *,
    seed: int,
    initial_epoch: int,
    replicas: int,
) -> tf.data.Dataset:
    """All epochs in one dataset, so that every batch knows its epoch; those of devices in turn."""
    batch_size = recipe.batch_size
    steps, last = math.ceil(examples / batch_size), (examples - 1) % batch_size + 1
    if batch_size % replicas or last % replicas:
        expected = f"batches that {replicas} devices can share equally; the last one has {last}"
        raise InvalidArgument("batch_size", batch_size, expected)
    static_size = batch_size // replicas if last == batch_size else None
    shuffle_seed = stream_seed(seed, "shuffle")
    # Joining two parts would copy large images once more.
    one_kind = perturbed_at is natural_at or (fraction.fractions == 1).all()

    def indices(epoch: tf.Tensor) -> tf.data.Dataset:
        order = tf.constant(kept, tf.int32)
        if recipe.shuffle:
            order = tf.random.experimental.stateless_shuffle(order, fold_in(shuffle_seed, epoch))
        order = order[:examples]

        def of_device(place: tf.Tensor) -> tuple[tf.Tensor, ...]:
            start = place // replicas * batch_size
            return epoch, order[start : start + batch_size], place % replicas

        return tf.data.Dataset.range(steps * replicas).map(_do_not_convert(of_device))

    def batch(epoch: tf.Tensor, index: tf.Tensor, device: tf.Tensor) -> tuple[tf.Tensor, ...]:
        # Of a shuffled batch the first ones are a random choice; the paper's figures come
        # from a slice of batches that were not shuffled.
        count = fraction.count(epoch, tf.size(index))
        if replicas > 1:
            index, count = devices.shard(index, count, device, replicas)
        if one_kind:
            images = perturbed_at(index, epoch)
        else:
            parts = [perturbed_at(index[:count], epoch), natural_at(index[count:], epoch)]
            images = tf.concat(parts, axis=0)
        images = tf.ensure_shape(images, [static_size, *split.image_shape])
        return images, tf.ensure_shape(tf.gather(split.labels, index), [static_size])

    epochs = tf.data.Dataset.range(initial_epoch, recipe.epochs)
    ready = _PREFETCHED * replicas
    return _mapped(epochs.flat_map(_do_not_convert(indices)), batch).prefetch(ready)


def _natural_at(split: Split, recipe: Recipe, seed: int) -> ImagesAt:
    names = augmentations.parse(recipe.augment)
    if not names:
        return lambda index, epoch: split.images_at(index)
    base = stream_seed(seed, "augmentation")

    def augmented(index: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        seeds = example_seeds(base, index, epoch)
        return augmentations.augment(split.images_at(index), seeds, names)

    return augmented


def _perturbed_at(
    split: Split,
    recipe: Recipe,
    perturbation: Condition,
    fresh: bool,
    seed: int,
    natural_at: ImagesAt,
) -> ImagesAt:
    perturbation.check(split.image_shape)
    base = stream_seed(seed, "training perturbation")
    fresh = fresh and perturbation.random

    def computed(index: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        seeds = example_seeds(base, index, epoch if fresh else None)
        return perturbation(natural_at(index, epoch), seeds)

    if fresh or recipe.augment != "none":
        return computed
    first = tf.constant(0, tf.int64)
    chunks = _mapped(_chunks(split, np.arange(len(split))), lambda index: computed(index, first))
    kept_at = retain(chunks, split, min(_CACHE_BYTES, split.room))
    return computed if kept_at is None else lambda index, epoch: kept_at(index)


def _validation(
    split: Split,
    recipe: Recipe,
    perturbation: Condition | None,
    seed: int,
    held_out: np.ndarray | None,
    perturbed_at: ImagesAt,
) -> Validation | None:
    """Measures with held-out images, all of them perturbed if training perturbs; not augmented."""
    if held_out is None:
        return None
    images_at = perturbed_at
    if recipe.augment != "none":
        plain = dataclasses.replace(recipe, augment="none")
        images_at = natural_at = _natural_at(split, plain, seed)
        if perturbation is not None:  # fresh: nothing of it is kept
            images_at = _perturbed_at(split, plain, perturbation, True, seed, natural_at)

    def batch(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images = tf.ensure_shape(
            images_at(index, tf.constant(0, tf.int64)), [None, *split.image_shape]
        )
        return images, tf.gather(split.labels, index)

    return Validation(_mapped(_chunks(split, held_out), batch), recipe.early_stopping)


def _chunks(split: Split, indices: np.ndarray) -> tf.data.Dataset:
    """Some indices of a split in chunks."""
    return tf.data.Dataset.from_tensor_slices(indices).batch(chunk_size(split.image_shape))


def _mapped(dataset: tf.data.Dataset, function: Callable) -> tf.data.Dataset:
    """Maps with all cores; in order."""
    mapped = dataset.map(_do_not_convert(function), num_parallel_calls=machine.cores())
    return without_autotuning(mapped)
