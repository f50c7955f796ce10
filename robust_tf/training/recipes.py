"""How weights follow the gradients: optimizers, schedules, and the networks' own recipes.

Sources: Cavey, Dolan and Stock (2020), section IV and figures 1 and 2, and section VI.C for
transfer; the recipe of `compact` was found by trying on CIFAR-10.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from robust_tf.errors import InvalidArgument
from robust_tf.settings import OneOf, check_fields, choice, number, switch, whole
from robust_tf.training import augmentations
from robust_tf.training.optimizers import OPTIMIZERS, SGD, Adam, AdamW, Rate

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf

# One cycle: the rate starts at a fraction of its peak, which it reaches after a part of the
# steps; then it falls to 0.
_START_RATE = 0.1
_RISE = 0.2

# Of the training step, whatever the recipe.
JIT_COMPILE = ("auto", "on", "off")
DISTRIBUTIONS = ("none", "mirrored")
SCHEDULES = ("constant", "one_cycle")
CLASS_WEIGHTS = ("none", "balanced")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained, whatever the strategy.

    Attributes:
        epochs: passes over the training images, from 1 on.
        batch_size: images per batch, from 1 on; the last batch of an epoch may be smaller.
        optimizer: one of `OPTIMIZERS`.
        schedule: of the learning rate: "constant", or "one_cycle": it rises linearly from a
            tenth in the first fifth of all steps and falls to 0 as a cosine
            (https://arxiv.org/abs/1708.07120).
        label_smoothing: share of the label that is spread over all classes, in [0, 1).
        weight_average: decay per step of a moving average of the weights, in [0, 1); the
            trained model has the average. 0 for the weights of the last step.
        augment: "none", or names of `augmentations.AUGMENTATIONS`, separated by commas.
        shuffle: a new order of the training images in each epoch; else that of their files.
        drop_remainder: leave out the images of an epoch that do not fill a batch.
        class_weight: "none", or "balanced": images of rare classes count more, so that all
            classes count the same.
        validation_fraction: part of the training images that is held out and measures after
            each epoch, in [0, 1).
        early_stopping: epochs without a lower loss of the held-out images after which training
            ends with the weights of the best epoch; 0 to train all epochs.

    Raises:
        InvalidArgument: if a value is out of range.
    """

    epochs: Annotated[int, whole("Passes over the training images.")]
    batch_size: Annotated[int, whole("Images per batch.")]
    optimizer: Annotated[
        Adam | AdamW | SGD, OneOf("sgd has Nesterov's momentum of 0.9.", OPTIMIZERS)
    ] = Adam()
    schedule: Annotated[
        str,
        choice(
            "constant: the learning rate stays; one_cycle: it rises from a tenth in the first "
            "fifth of all steps, then falls to 0.",
            SCHEDULES,
        ),
    ] = "constant"
    label_smoothing: Annotated[
        float,
        number("Share of a label that is spread over all classes, from 0 to below 1.", 0, below=1),
    ] = 0.0
    weight_average: Annotated[
        float,
        number(
            "Decay of a moving average of the weights, which the trained model has; 0 for none.",
            0,
            below=1,
        ),
    ] = 0.0
    augment: Annotated[str, augmentations.SETTING] = "none"
    shuffle: Annotated[bool, switch("Shuffle the training images in each epoch.")] = True
    drop_remainder: Annotated[
        bool, switch("Leave out the training images of an epoch that do not fill a batch.")
    ] = False
    class_weight: Annotated[
        str,
        choice(
            "Whether images of rare classes count more: balanced, so that all classes count the "
            "same.",
            CLASS_WEIGHTS,
        ),
    ] = "none"
    validation_fraction: Annotated[
        float,
        number(
            "Part of the training images of each class that is held out, to measure after each "
            "epoch.",
            0,
            below=1,
            noun="a part",
        ),
    ] = 0.0
    early_stopping: Annotated[
        int,
        whole(
            "Epochs without a lower loss of the held-out images after which training ends, with "
            "the weights of the best epoch; 0 for none.",
            0,
        ),
    ] = 0

    def __post_init__(self):
        """Checks the values."""
        check_fields(self)
        if self.early_stopping and not self.validation_fraction:
            expected = "a validation_fraction besides, which says what to go by"
            raise InvalidArgument("early_stopping", self.early_stopping, expected)
        if self.early_stopping and self.weight_average:
            expected = "0 with early_stopping, which goes by the weights of an epoch"
            raise InvalidArgument("weight_average", self.weight_average, expected)

    def make_optimizer(self, steps: int) -> keras.optimizers.Optimizer:
        """The optimizer of a training of so many steps."""
        import keras

        rate: Rate = self.optimizer.learning_rate
        if self.schedule == "one_cycle":
            rise = max(1, round(_RISE * steps))
            rate = keras.optimizers.schedules.CosineDecay(
                _START_RATE * self.optimizer.learning_rate,
                max(1, steps - rise),
                warmup_target=self.optimizer.learning_rate,
                warmup_steps=rise,
            )
        return self.optimizer.make(
            rate, use_ema=self.weight_average > 0, ema_momentum=self.weight_average
        )

    def loss(
        self, class_weights: np.ndarray | None = None
    ) -> keras.losses.Loss | Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        """The cross-entropy of logits and labels, each image with its class's weight."""
        import keras
        import tensorflow as tf

        if class_weights is not None:
            plain: Any = self.loss() if self.label_smoothing else _cross_entropy

            def weighted(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
                places = tf.cast(tf.reshape(labels, [-1]), tf.int32)
                return plain(labels, logits) * tf.gather(class_weights, places)

            return weighted
        if not self.label_smoothing:
            return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

        def smoothed(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
            classes = logits.shape[-1]
            targets = tf.one_hot(tf.cast(tf.reshape(labels, [-1]), tf.int32), classes)
            return keras.losses.categorical_crossentropy(
                targets, logits, from_logits=True, label_smoothing=self.label_smoothing
            )

        return smoothed


def _cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    import keras
    import tensorflow as tf

    return keras.losses.sparse_categorical_crossentropy(
        tf.reshape(labels, [-1]), logits, from_logits=True
    )


# What a network is trained with where nothing else is said: settings of a run by name.
RECIPES: dict[str, Mapping[str, Any]] = {
    "mnist_cnn": {"epochs": 50, "batch_size": 1500, "learning_rate": 0.05},
    "cifar10_cnn": {"epochs": 20, "batch_size": 100, "learning_rate": 0.0005},
    "compact": {
        "epochs": 10,
        "batch_size": 250,
        "learning_rate": 0.2,
        "optimizer": "sgd",
        "schedule": "one_cycle",
        "weight_decay": 5e-4,
        "label_smoothing": 0.1,
        "augment": "flip,shift",
        "standardize": "global",
    },
}
# What transfer changes in it: a trained model gets a new head of so many units.
TRANSFER: dict[str, Mapping[str, Any]] = {
    "mnist_cnn": {
        "epochs": 20,
        "batch_size": 200,
        "learning_rate": 0.0005,
        "head_units": (256,),
    },
    "cifar10_cnn": {
        "epochs": 5,
        "batch_size": 200,
        "learning_rate": 0.0005,
        "head_units": (256, 512),
    },
    "compact": {"epochs": 4, "learning_rate": 0.05, "head_units": (256,)},
}
# Of networks that have none of their own.
_USUAL: Mapping[str, Any] = {
    **RECIPES["compact"],
    "epochs": 20,
    "batch_size": 100,
    "learning_rate": 0.1,
}
_USUAL_TRANSFER: Mapping[str, Any] = {"epochs": 5, "learning_rate": 0.01, "head_units": (256,)}
# Of networks of the user's own: epochs go by the number of training images, so that few images
# are seen often enough and many not too often.
OWN = "own"
OWN_RECIPE: Mapping[str, Any] = {
    "batch_size": 64,
    "learning_rate": 0.001,
    "optimizer": "adamw",
    "beta_1": 0.9,
    "weight_decay": 0.01,
    "schedule": "one_cycle",
    "standardize": "none",
}
OWN_TRANSFER: Mapping[str, Any] = {"learning_rate": 0.0003}
# Images that are seen in all, within so many epochs.
_OWN_IMAGES, OWN_EPOCHS = 1_000_000, (10, 100)
_OWN_TRANSFER_IMAGES, OWN_TRANSFER_EPOCHS = 300_000, (5, 30)
# Fewest batches per epoch: a training set too small for a recipe's batches, such as the
# MNIST sample, gets smaller ones by default.
LEAST_STEPS_PER_EPOCH = 10


def recipe_of(
    network: str, strategy: str, examples: int, image_shape: tuple[int, int, int]
) -> dict[str, Any]:
    """A network's own recipe, with smaller batches where its own leave too few per epoch.

    Images of one channel, digits say, are not mirrored.

    Args:
        network: the network's name; `OWN` for one of the user's.
        strategy: "transfer" has its own.
        examples: number of training images.
        image_shape: (H, W, C).

    Returns:
        Settings by name.
    """
    recipe = dict(OWN_RECIPE if network == OWN else RECIPES.get(network, _USUAL))
    if network == OWN:
        images, (least, most) = _OWN_IMAGES, OWN_EPOCHS
        if strategy == "transfer":
            recipe |= OWN_TRANSFER
            images, (least, most) = _OWN_TRANSFER_IMAGES, OWN_TRANSFER_EPOCHS
        recipe["epochs"] = min(most, max(least, round(images / examples)))
    elif strategy == "transfer":
        recipe |= TRANSFER.get(network, _USUAL_TRANSFER)
    recipe["batch_size"] = max(1, min(recipe["batch_size"], examples // LEAST_STEPS_PER_EPOCH))
    if image_shape[-1] == 1 and recipe.get("augment") == "flip,shift":
        recipe["augment"] = "shift"
    return recipe
