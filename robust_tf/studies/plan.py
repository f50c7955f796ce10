"""What is measured for a certificate, and what can be seen of it before."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from robust_tf.errors import InvalidArgument
from robust_tf.perturbations import KINDS
from robust_tf.sensors import Asked

if TYPE_CHECKING:
    from robust_tf.models.correction import Correction


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured for a certificate.

    Attributes:
        asked: the accuracy that is asked for, and the share of devices that may have less.
        devices: how many are drawn.
        years: ages besides new, for a population that ages.
        limit_kinds: kinds of defective pixels of which the largest number is looked for.
        limit_most: the largest number that is tried.
        corrections: what may be in front of the model, besides each device's own list.
        seed: the experiment's.

    Raises:
        InvalidArgument: if so few devices cannot be accepted, whatever they do, or a limit is
            not of defective pixels.
    """

    asked: Asked
    devices: int = 100
    years: tuple[float, ...] = (5.0, 10.0)
    limit_kinds: tuple[str, ...] = ("hot",)
    limit_most: int = 64
    corrections: tuple[Correction, ...] = ()
    seed: int = 0

    def __post_init__(self):
        """Checks what can be checked without a model."""
        if self.asked.accept is None:
            raise InvalidArgument("accept", None, "the accuracy that a device must have")
        self.asked.check_number(self.devices)
        pixels = [kind for kind in KINDS if KINDS[kind].unit == "number of pixels"]
        for kind in self.limit_kinds:
            if kind not in pixels:
                raise InvalidArgument("limit", kind, f"some of {', '.join(pixels)}")
