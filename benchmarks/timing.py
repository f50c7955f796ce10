"""Medians of variants that take turns, so that a slow moment of the machine affects all."""

import statistics
import time
from collections.abc import Callable, Hashable
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


class Failed(Exception):
    """A peer cannot be measured."""


def seconds(run: Callable[[], object]) -> float:
    """Wall-clock time of a call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def medians(
    variants: dict[Name, Callable[[], float]], rounds: int, failed: dict[Name, str] | None = None
) -> dict[Name, float]:
    """Median of what each variant returns over the rounds, after a round of warm-up.

    Args:
        variants: by name.
        rounds: how often each is measured.
        failed: gets the variants that raise `Failed`, with the reason; they have no median.
    """
    values: dict[Name, list[float]] = {name: [] for name in variants}
    for round_ in range(rounds + 1):
        for name in list(values):
            try:
                value = variants[name]()
            except Failed as error:
                if failed is None:
                    raise
                failed[name] = str(error)
                del values[name]
                continue
            if round_:
                values[name].append(value)
    return {name: statistics.median(found) for name, found in values.items()}
