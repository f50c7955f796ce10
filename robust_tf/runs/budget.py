"""A sweep's limit of time: which models end before it, as far as can be told."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from robust_tf.errors import InvalidArgument

if TYPE_CHECKING:
    from robust_tf.runs.tasks import Task

# An estimate leaves out what exporting, drawing and a busy machine take.
_RESERVE = 1.2
_UNITS = {"h": 3600, "m": 60, "s": 1}


def seconds_of(text: str | float) -> float:
    """The seconds of a duration such as "3h", "1h30m" or "90s"; those of a number are itself.

    Raises:
        InvalidArgument: if it is none.
    """
    if not isinstance(text, str):
        return text
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)([hms])", text)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    units = [unit for _, unit in parts]
    ordered = sorted(set(units), key="hms".index) == units
    if "".join(map("".join, parts)) != text or not ordered or not 0 < seconds < 1e9:
        raise InvalidArgument("budget", text, "a duration such as 3h, 1h30m or 90s")
    return seconds


class Budget:
    """Time for a sweep, from now on.

    Args:
        seconds: how much.
        estimates: how long each model takes, seconds by the runs' names.
    """

    def __init__(self, seconds: float, estimates: Mapping[str, float]):
        """See the class."""
        self._end = time.monotonic() + seconds
        self._estimates = estimates
        self._slowest = 1.0  # the largest ratio of what a model took to its estimate
        self._begun: dict[str, float] = {}

    def allows(self, task: Task, done: float = 0.0) -> bool:
        """Whether a model that is begun now would end in time.

        Args:
            task: the model.
            done: the fraction of its training that is behind it.
        """
        left = self._estimates[task.run.name] * (1 - done) * self._slowest * _RESERVE
        return time.monotonic() + left <= self._end

    def begin(self, task: Task, done: float = 0.0) -> None:
        """Notes that a model is begun; arguments as in `allows`."""
        if not done:  # what is left says little of how long models take
            self._begun[task.run.name] = time.monotonic()

    def end(self, task: Task) -> None:
        """Notes that it has ended."""
        begun = self._begun.pop(task.run.name, None)
        if begun is not None:
            ratio = (time.monotonic() - begun) / self._estimates[task.run.name]
            self._slowest = max(self._slowest, ratio)
