"""Medians of variants that take turns, so that a slow moment of the machine affects all."""

import statistics
import time
from collections.abc import Callable


def seconds(run: Callable[[], object]) -> float:
    """Wall-clock time of a call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def medians(variants: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Median of what each variant returns over the rounds, after a round of warm-up."""
    values: dict[str, list[float]] = {name: [] for name in variants}
    for round_ in range(rounds + 1):
        for name, measure in variants.items():
            value = measure()
            if round_:
                values[name].append(value)
    return {name: statistics.median(found) for name, found in values.items()}
