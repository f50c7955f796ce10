"""How weights follow the gradients: optimizers, schedules, and the networks' own recipes.

Sources: Cavey, Dolan and Stock (2020), section IV and figures 1 and 2, and section VI.C for
transfer; the recipe of `compact` was found by trying on CIFAR-10.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import keras
import tensorflow as tf

from robust_tf.settings import OneOf, check_fields, choice, number, switch, whole
from robust_tf.training import augmentations
from robust_tf.training.optimizers import OPTIMIZERS, SGD, Adam, AdamW, Rate

# One cycle: the rate starts at a fraction of its peak, which it reaches after a part of the
# steps; then it falls to 0.
_START_RATE = 0.1
_RISE = 0.2

SCHEDULES = ("constant", "one_cycle")


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

    def __post_init__(self):
        """Checks the values."""
        check_fields(self)

    def make_optimizer(self, steps: int) -> keras.optimizers.Optimizer:
        """The optimizer of a training of so many steps."""
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

    def loss(self) -> keras.losses.Loss | Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        """The cross-entropy of logits and labels."""
        if not self.label_smoothing:
            return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

        def smoothed(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
            classes = logits.shape[-1]
            targets = tf.one_hot(tf.cast(tf.reshape(labels, [-1]), tf.int32), classes)
            return keras.losses.categorical_crossentropy(
                targets, logits, from_logits=True, label_smoothing=self.label_smoothing
            )

        return smoothed


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
# Fewest batches per epoch: a training set too small for a recipe's batches, such as the
# MNIST sample, gets smaller ones by default.
LEAST_STEPS_PER_EPOCH = 10


def recipe_of(
    network: str, strategy: str, examples: int, image_shape: tuple[int, int, int]
) -> dict[str, Any]:
    """A network's own recipe, with smaller batches where its own leave too few per epoch.

    Images of one channel, digits say, are not mirrored.

    Args:
        network: the network's name.
        strategy: "transfer" has its own.
        examples: number of training images.
        image_shape: (H, W, C).

    Returns:
        Settings by name.
    """
    recipe = dict(RECIPES.get(network, _USUAL))
    if strategy == "transfer":
        recipe |= TRANSFER.get(network, _USUAL_TRANSFER)
    recipe["batch_size"] = max(1, min(recipe["batch_size"], examples // LEAST_STEPS_PER_EPOCH))
    if image_shape[-1] == 1 and recipe.get("augment") == "flip,shift":
        recipe["augment"] = "shift"
    return recipe
