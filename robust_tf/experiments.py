"""The paper's settings as data: hyperparameters, levels, test conditions.

Sources: Cavey, Dolan and Stock (2020), section IV and figures 1 and 2 for the
hyperparameters, section VI for the tests.
"""

import dataclasses

from robust_tf.perturbations import KINDS, Perturbation

TRIALS = 25


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """How a network is trained.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a batch.
        learning_rate: Adam's step size.
        beta_1: decay of Adam's mean of gradients.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    beta_1: float = 0.5


HYPERPARAMETERS = {
    "mnist_cnn": Hyperparameters(epochs=50, batch_size=1500, learning_rate=0.05),
    "cifar10_cnn": Hyperparameters(epochs=20, batch_size=100, learning_rate=0.0005),
}

# Section VI.C: what retrains a natural model, and the units of its new head.
TRANSFER_HYPERPARAMETERS = {
    "mnist_cnn": Hyperparameters(epochs=20, batch_size=200, learning_rate=0.0005),
    "cifar10_cnn": Hyperparameters(epochs=5, batch_size=200, learning_rate=0.0005),
}
HEAD_UNITS = {"mnist_cnn": (256,), "cifar10_cnn": (256, 512)}

# Fewest batches an epoch: a training set too small for the paper's batches, such as the
# MNIST sample, gets smaller ones by default.
LEAST_STEPS_PER_EPOCH = 10

# The level at which constant training on MNIST held best over the paper's tests (pixels),
# and the strongest tested level (noise, blur).
TRAIN_LEVELS = {"stuck": 4, "dead": 5, "hot": 6, "noise": 0.05, "blur": 1.0}

TEST_LEVELS = {
    "stuck": (2,),
    "dead": (2,),
    "hot": (2,),
    "noise": (0.0255, 0.03775, 0.05),
    "blur": (0.5, 0.75, 1.0),
}


def test_conditions(
    kinds: tuple[str, ...], channel_blur: bool = False
) -> tuple[Perturbation | None, ...]:
    """The paper's tests of some kinds, natural images first.

    Args:
        kinds: which kinds to test.
        channel_blur: blur over the channel axis too.

    Returns:
        None for natural images, then a perturbation a test.
    """
    return (
        None,
        *(
            Perturbation(kind, level, channel_blur and kind == "blur")
            for kind in KINDS
            if kind in kinds
            for level in TEST_LEVELS[kind]
        ),
    )


def default_model(image_shape: tuple[int, int, int]) -> str:
    """The paper's network for images of a shape: MNIST's for one channel."""
    return "mnist_cnn" if image_shape[-1] == 1 else "cifar10_cnn"


def default_hyperparameters(model: str, strategy: str, examples: int) -> Hyperparameters:
    """The paper's, with smaller batches where theirs leave too few an epoch.

    Args:
        model: a name of `HYPERPARAMETERS`.
        strategy: "transfer" has its own.
        examples: number of training images.

    Returns:
        How to train.
    """
    table = TRANSFER_HYPERPARAMETERS if strategy == "transfer" else HYPERPARAMETERS
    batch_size = max(1, min(table[model].batch_size, examples // LEAST_STEPS_PER_EPOCH))
    return dataclasses.replace(table[model], batch_size=batch_size)
