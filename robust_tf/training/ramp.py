"""The perturbed fraction of each batch over the epochs; a callback of `callbacks` follows it."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Annotated

from robust_tf.settings import check_fields, choice, number

if TYPE_CHECKING:
    import numpy as np

RAMPS = {
    "linear": lambda progress: progress,
    "cosine": lambda progress: (1.0 - math.cos(math.pi * progress)) / 2.0,
    "step": lambda progress: float(progress >= 0.5),
}


@dataclasses.dataclass(frozen=True)
class Ramp:
    """How the perturbed fraction grows from the first epoch to the last.

    Args:
        start: fraction in the first epoch, in [0, 1].
        end: fraction in the last epoch, in [0, 1].
        shape: "linear", "cosine" (slow at both ends) or "step" (`start` in the first
            half of the epochs, then `end`).

    Raises:
        InvalidArgument: if an argument is out of range.
    """

    start: Annotated[
        float,
        number(
            "Perturbed fraction in the first epoch, 0 to 1 (incremental).",
            0,
            1,
            noun="a fraction",
            name="ramp_start",
        ),
    ] = 0.05
    end: Annotated[
        float,
        number(
            "Perturbed fraction in the last epoch, 0 to 1 (incremental).",
            0,
            1,
            noun="a fraction",
            name="ramp_end",
        ),
    ] = 0.95
    shape: Annotated[
        str, choice("How the perturbed fraction grows (incremental).", RAMPS, name="ramp")
    ] = "linear"

    def __post_init__(self):
        """Checks the arguments."""
        check_fields(self)

    def fractions(self, epochs: int) -> np.ndarray:
        """The fraction of each epoch, float64 of shape [epochs]."""
        import numpy as np

        last = max(epochs - 1, 1)
        progress = [RAMPS[self.shape](epoch / last) for epoch in range(epochs)]
        return self.start + (self.end - self.start) * np.array(progress, np.float64)
