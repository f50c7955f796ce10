"""What is asked of many devices, and how many there must be for an answer.

Source: Wilks (1941), "Determination of sample sizes for setting tolerance limits".
"""

import dataclasses
import math

from robust_tf.errors import InvalidArgument

# The confidence of all bounds and intervals.
LEVEL = 0.95


def least_devices(share: float) -> int:
    """The fewest devices of which the lowest bounds a quantile: 59 for a share of 0.05.

    Args:
        share: of the quantile, in (0, 1).
    """
    return max(1, math.ceil(math.log(1 - LEVEL) / math.log1p(-share)))


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is asked of a fleet.

    Attributes:
        accept: the accuracy that a device must have, in [0, 1]; None for no verdict.
        accept_share: the share of devices that may have less, in (0, 1); also which quantile
            of the accuracies is given.
    """

    accept: float | None = None
    accept_share: float = 0.05

    def check_number(self, devices: int) -> None:
        """Raises `InvalidArgument` if so few devices are not accepted, whatever they do."""
        least = least_devices(self.accept_share)
        if devices < least:
            expected = f"at least {least} for any to be accepted with accept_share"
            raise InvalidArgument("devices", devices, f"{expected}={self.accept_share:g}")
