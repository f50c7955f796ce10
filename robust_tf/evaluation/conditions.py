"""The conditions that perturb nothing: natural images, and those of another dataset.

`Perturbation` and `Mixture` are the others; `Condition` says what all have in common.
"""

import math
from dataclasses import dataclass, field

from robust_tf.data import Split
from robust_tf.errors import InvalidArgument
from robust_tf.perturbations.condition import (
    Condition,
    condition_key,
    condition_label,
    trial_seed,
)

__all__ = ["Condition", "Natural", "Recorded", "condition_key", "condition_label", "trial_seed"]


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
