"""Training strategies: each is a starting model, an input pipeline and its callbacks.

A strategy decides which images of a batch are perturbed; how they are perturbed and how
a model is fitted is not known here.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import keras
import numpy as np
import tensorflow as tf

from robust_tf import machine
from robust_tf.data import Split, without_autotuning
from robust_tf.errors import InvalidArgument
from robust_tf.perturbations import Perturbation, example_seeds
from robust_tf.perturbations.mixtures import Mixture
from robust_tf.seeds import fold_in, stream_seed
from robust_tf.training import devices
from robust_tf.training.augmentations import augment
from robust_tf.training.callbacks import PerturbedFraction, Ramp

# Perturbed training images that stay the same are kept in memory up to this size.
_CACHE_BYTES = 2**30
_CHUNK = 1000
# Batches that are ready before the training step asks for them.
_PREFETCHED = 2
# Converting these functions and what they call takes seconds in every process; none has
# Python control flow that depends on a tensor.
_do_not_convert = tf.autograph.experimental.do_not_convert

BuildModel = Callable[[], keras.Model]
# (example indices [B], epoch) to images [B, H, W, C]; callable in a graph.
ImagesAt = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
# Which training images the standardisation is adapted to.
Adapt = Literal["natural", "perturbed"] | None


@dataclasses.dataclass(frozen=True)
class Settings:
    """What every strategy needs to know.

    Attributes:
        epochs: how many epochs the whole training has.
        batch_size: images a batch; the last batch of an epoch may be smaller.
        seed: the experiment's seed.
        perturbation: None for natural training.
        ramp: the perturbed fraction over the epochs (incremental training).
        fresh: perturb an image anew in each epoch, not once and for all.
        augment: names of `augmentations.AUGMENTATIONS`; the image is changed by them anew in
            each epoch, then perturbed.
        keep_standardization: leave the standardisation of the starting model as it is
            (transfer).
        shuffle: a new order of the examples in each epoch; else that of their indices.
        drop_remainder: leave out the examples of an epoch that do not fill a batch.
        initial_epoch: the first epoch to make batches for, from 0.
        distribution: the devices that share each batch; see `devices.create`.
    """

    epochs: int
    batch_size: int
    seed: int = 0
    perturbation: Perturbation | Mixture | None = None
    ramp: Ramp = Ramp()
    fresh: bool = False
    augment: tuple[str, ...] = ()
    keep_standardization: bool = False
    shuffle: bool = True
    drop_remainder: bool = False
    initial_epoch: int = 0
    distribution: tf.distribute.Strategy = dataclasses.field(
        default_factory=tf.distribute.get_strategy
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    """What `training.fit` needs.

    Attributes:
        model: the starting model, standardisation adapted, not compiled.
        batches: (float32 images [B, H, W, C] in [0, 1], int64 labels [B]) of all epochs
            from `settings.initial_epoch` on, one after another; of R devices each has every
            R-th image of a batch.
        steps_per_epoch: batches an epoch.
        examples: images an epoch.
        settings: what it was made from.
        callbacks: Keras callbacks that belong to the strategy.
    """

    model: keras.Model
    batches: tf.data.Dataset | tf.distribute.DistributedDataset
    steps_per_epoch: int
    examples: int
    settings: Settings
    callbacks: tuple[keras.callbacks.Callback, ...]


def natural(split: Split, build_model: BuildModel, settings: Settings) -> Training:
    """Trains on the images as they are.

    Args:
        split: training split.
        build_model: makes the untrained model.
        settings: `perturbation`, `ramp` and `fresh` are not used.

    Returns:
        What `training.fit` needs.
    """
    settings = dataclasses.replace(settings, perturbation=None)
    return _training(split, build_model, settings, Ramp(0.0, 0.0), "natural")


def constant(split: Split, build_model: BuildModel, settings: Settings) -> Training:
    """Perturbs every training image (paper, section VI.A).

    The standardisation is adapted to the perturbed images of the first epoch.

    Args:
        split: training split.
        build_model: makes the untrained model.
        settings: with a perturbation; `ramp` is not used.

    Returns:
        What `training.fit` needs.

    Raises:
        InvalidArgument: if there is no perturbation or its level does not fit.
    """
    _check_perturbation(settings)
    return _training(split, build_model, settings, Ramp(1.0, 1.0), "perturbed")


def incremental(split: Split, build_model: BuildModel, settings: Settings) -> Training:
    """Perturbs a fraction of each batch that grows with the epochs (paper, section VI.B).

    A batch of B images in epoch e holds exactly ⌊f·B + ½⌋ perturbed ones, f being the
    ramp's fraction of e. The standardisation is adapted to the natural images.

    Args:
        split: training split.
        build_model: makes the untrained model.
        settings: with a perturbation and a ramp.

    Returns:
        What `training.fit` needs.

    Raises:
        InvalidArgument: if there is no perturbation or its level does not fit.
    """
    _check_perturbation(settings)
    return _training(split, build_model, settings, settings.ramp, "natural")


def transfer(split: Split, build_model: BuildModel, settings: Settings) -> Training:
    """Perturbs every image for a model that was trained before (paper, section VI.C).

    The standardisation is adapted to the perturbed images of the first epoch, or kept.

    Args:
        split: training split.
        build_model: makes the trained model with a new head; see `models.with_new_head`.
        settings: with a perturbation; `ramp` is not used.

    Returns:
        What `training.fit` needs.

    Raises:
        InvalidArgument: if there is no perturbation or its level does not fit.
    """
    _check_perturbation(settings)
    adapt: Adapt = None if settings.keep_standardization else "perturbed"
    return _training(split, build_model, settings, Ramp(1.0, 1.0), adapt)


STRATEGIES: dict[str, Callable[[Split, BuildModel, Settings], Training]] = {
    "natural": natural,
    "constant": constant,
    "incremental": incremental,
    "transfer": transfer,
}


def _check_perturbation(settings: Settings) -> None:
    if settings.perturbation is None:
        raise InvalidArgument("perturb", None, "a perturbation with this strategy")


def _training(
    split: Split,
    build_model: BuildModel,
    settings: Settings,
    ramp: Ramp,
    adapt: Adapt,
) -> Training:
    fraction = PerturbedFraction(ramp, settings.epochs)
    natural_at = _natural_at(split, settings)
    perturbed_at = _perturbed_at(split, settings, natural_at)

    def presented(index: tf.Tensor) -> tf.Tensor:
        images_at = perturbed_at if adapt == "perturbed" else natural_at
        return images_at(index, tf.constant(0, tf.int64))

    with settings.distribution.scope():
        model = build_model()
    for layer in model.layers:
        if adapt and layer.name == "standardization":
            layer.adapt(_mapped(_indices(len(split)), presented))
    examples = len(split)
    if settings.drop_remainder:
        examples -= examples % settings.batch_size
    batches = _batches(split, settings, examples, fraction, natural_at, perturbed_at)
    if settings.distribution.num_replicas_in_sync > 1:
        devices.synchronize(model)
        batches = settings.distribution.distribute_datasets_from_function(lambda _: batches)
    return Training(
        model=model,
        batches=batches,
        steps_per_epoch=math.ceil(examples / settings.batch_size),
        examples=examples,
        settings=settings,
        callbacks=(fraction,),
    )


def _batches(
    split: Split,
    settings: Settings,
    examples: int,
    fraction: PerturbedFraction,
    natural_at: ImagesAt,
    perturbed_at: ImagesAt,
) -> tf.data.Dataset:
    """All epochs in one dataset, so that every batch knows its epoch.

    The devices' parts of a batch follow one another.
    """
    batch_size, count = settings.batch_size, settings.distribution.num_replicas_in_sync
    steps, last = math.ceil(examples / batch_size), (examples - 1) % batch_size + 1
    if batch_size % count or last % count:
        expected = f"batches that {count} devices can share equally; the last one has {last}"
        raise InvalidArgument("batch_size", batch_size, expected)
    static_size = batch_size // count if last == batch_size else None
    shuffle_seed = stream_seed(settings.seed, "shuffle")

    def indices(epoch: tf.Tensor) -> tf.data.Dataset:
        order = tf.range(len(split))
        if settings.shuffle:
            seed = fold_in(shuffle_seed, epoch)
            order = tf.random.experimental.stateless_shuffle(order, seed)
        order = order[:examples]

        def of_device(place: tf.Tensor) -> tuple[tf.Tensor, ...]:
            start = place // count * batch_size
            return epoch, order[start : start + batch_size], place % count

        return tf.data.Dataset.range(steps * count).map(_do_not_convert(of_device))

    def batch(epoch: tf.Tensor, index: tf.Tensor, device: tf.Tensor) -> tuple[tf.Tensor, ...]:
        # Of a shuffled batch the first ones are a random choice; the paper's figures come
        # from a slice of batches that were not shuffled.
        perturbed = fraction.count(epoch, tf.size(index))
        index, perturbed = devices.shard(index, perturbed, device, count)
        parts = [perturbed_at(index[:perturbed], epoch), natural_at(index[perturbed:], epoch)]
        images = tf.concat(parts, axis=0)
        images = tf.ensure_shape(images, [static_size, *split.image_shape])
        return images, tf.ensure_shape(tf.gather(split.labels, index), [static_size])

    epochs = tf.data.Dataset.range(settings.initial_epoch, settings.epochs)
    return _mapped(epochs.flat_map(_do_not_convert(indices)), batch).prefetch(_PREFETCHED * count)


def _natural_at(split: Split, settings: Settings) -> ImagesAt:
    if not settings.augment:
        return lambda index, epoch: split.images_at(index)
    base = stream_seed(settings.seed, "augmentation")

    def augmented(index: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        seeds = example_seeds(base, index, epoch)
        return augment(split.images_at(index), seeds, settings.augment)

    return augmented


def _perturbed_at(split: Split, settings: Settings, natural_at: ImagesAt) -> ImagesAt:
    perturbation = settings.perturbation
    if perturbation is None:
        return natural_at
    perturbation.check(split.image_shape)
    base = stream_seed(settings.seed, "training perturbation")
    fresh = settings.fresh and perturbation.random

    def computed(index: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        seeds = example_seeds(base, index, epoch if fresh else None)
        return perturbation(natural_at(index, epoch), seeds)

    if fresh or settings.augment or 4 * math.prod(split.images.shape) > _CACHE_BYTES:
        return computed
    first = tf.constant(0, tf.int64)
    chunks = _mapped(_indices(len(split)), lambda index: computed(index, first))
    images = np.empty(split.images.shape, np.float32)  # no list of chunks: it would take twice
    for start, chunk in zip(range(0, len(split), _CHUNK), chunks):
        images[start : start + _CHUNK] = chunk
    with tf.device("CPU"):
        cache = tf.constant(images)
    return lambda index, epoch: tf.gather(cache, index)


def _indices(size: int) -> tf.data.Dataset:
    """The indices 0 … size-1 in chunks."""
    return tf.data.Dataset.range(size).batch(_CHUNK)


def _mapped(dataset: tf.data.Dataset, function: Callable) -> tf.data.Dataset:
    """Maps with all cores; in order."""
    mapped = dataset.map(_do_not_convert(function), num_parallel_calls=machine.cores())
    return without_autotuning(mapped)
