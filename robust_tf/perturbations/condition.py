"""What all test conditions have in common: a kind and level, the images that they are about.

The conditions themselves are `Perturbation` and `Mixture`, and those of `evaluation`.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from robust_tf.data import Split


def condition_key(kind: str, level: float) -> tuple[str, float]:
    """What two conditions are compared by, whatever a CSV made of the last bit of a level.

    Args:
        kind: as in the columns `test_perturb` and `train_perturb`.
        level: as in `test_level` and `train_level`; NaN or None for none.

    Returns:
        The kind, and the level rounded to 9 decimals; 0.0 for a missing one.
    """
    return kind, 0.0 if level is None or math.isnan(level) else round(float(level), 9)


def condition_label(kind: str, level: float) -> str:
    """A training or test condition in words: "natural" or, say, "hot 2".

    Without a level, as of a mixture, the kind alone: "all". Conditions of one key have one label.
    """
    if kind == "none":
        return "natural"
    if level is None or math.isnan(level):
        return kind
    return f"{kind} {condition_key(kind, level)[1]:.12g}"


def trial_seed(seed: int, trial: int) -> np.ndarray:
    """The seed of a trial's stream, int32 [2]; raises `InvalidArgument` if `seed` is none."""
    from robust_tf.seeds import stream_seed

    return stream_seed(seed, f"evaluation/{trial}")


class Condition:
    """What a model is tested with: a set of images, and what is done to them.

    This base class takes the images of the test set and leaves them as they are. Conditions are
    frozen dataclasses; TensorFlow traces a function that takes one once for all of its levels.

    Attributes:
        kind: its name, as `--perturb` and `--eval` take it.
        level: how strong it is; NaN for none.
    """

    kind: str
    level: float

    @property
    def random(self) -> bool:
        """Whether two trials differ."""
        return False

    @property
    def channel_blur(self) -> bool:
        """Whether it blurs over the channel axis too."""
        return False

    @property
    def key(self) -> tuple[str, float]:
        """What it is compared by; its name is that in the column `test_perturb`."""
        return condition_key(self.kind, self.level)

    def check(self, image_shape: tuple[int, int, int]) -> None:
        """Raises `InvalidArgument` if it does not fit images of shape (H, W, C)."""

    def fitted(self, image_shape: tuple[int, int, int]) -> Condition:
        """The same, made for images of shape (H, W, C); raises as `check`."""
        self.check(image_shape)
        return self

    def split(self, test: Split) -> Split:
        """The examples that it is about: those of the test set."""
        return test

    def examples(self, test_examples: int) -> int:
        """How many examples it is about where the test set has so many."""
        return test_examples

    def digest(self, test_digest: str) -> str:
        """The digest of these where that of the test set is so."""
        return test_digest

    def images(self, test: Split, index: tf.Tensor, seed: int, trial: int = 0) -> tf.Tensor:
        """The images that a model sees; callable in a graph.

        Args:
            test: the test set.
            index: which of the condition's examples, integers, shape [B].
            seed: the experiment's seed.
            trial: which random draw, a whole number from 0 on.

        Returns:
            float32 tensor of shape [B, H, W, C], values in [0, 1].
        """
        from robust_tf.seeds import fold_in

        return self(self.split(test).images_at(index), fold_in(trial_seed(seed, trial), index))

    def __call__(self, images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """What becomes of a batch.

        Args:
            images: float32, shape [B, H, W, C], values in [0, 1].
            seeds: int32, shape [B, 2].

        Returns:
            float32 tensor of shape [B, H, W, C], values in [0, 1].
        """
        return images

    def raising(self) -> contextlib.AbstractContextManager[None]:
        """While a graph runs that it is in: its own errors become those that a user can mend."""
        return contextlib.nullcontext()

    def __str__(self) -> str:
        """As in tables and on figures: "hot 2"."""
        return condition_label(self.kind, self.level)

    def __tf_flatten__(self) -> tuple[tuple, tuple]:
        """What a trace is for, and the tensors that it takes."""
        return (self,), ()

    @classmethod
    def __tf_unflatten__(cls, metadata: tuple, components: tuple) -> Condition:
        """The condition that stands for it in a graph."""
        return metadata[0]
