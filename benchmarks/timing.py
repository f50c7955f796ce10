"""Medians of variants that take turns, so that a slow moment of the machine affects all."""

import resource
import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import numpy as np

Name = TypeVar("Name", bound=Hashable)


class Failed(Exception):
    """A peer cannot be measured."""


def seconds(run: Callable[[], object]) -> float:
    """Wall-clock time of a call."""
    return times(run)[0]


def times(run: Callable[[], object]) -> tuple[float, float]:
    """Wall-clock time of a call, and the processor time that it and its child processes took."""
    start, processor = time.perf_counter(), _processor()
    run()
    return time.perf_counter() - start, _processor() - processor


def _processor() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def medians(
    variants: dict[Name, Callable[[], Any]],
    rounds: int,
    failed: dict[Name, str] | None = None,
    warm_up: int = 1,
) -> dict[Name, Any]:
    """Median of what each variant returns over the rounds.

    Args:
        variants: by name; each returns a number, or a tuple of numbers.
        rounds: how often each is measured.
        failed: gets the variants that raise `Failed`, with the reason; they have no median.
        warm_up: rounds before these.
    """
    values: dict[Name, list] = {name: [] for name in variants}
    for round_ in range(-warm_up, rounds):
        for name in list(values):
            try:
                value = variants[name]()
            except Failed as error:
                if failed is None:
                    raise
                failed[name] = str(error)
                del values[name]
                continue
            if round_ >= 0:
                values[name].append(value)
    return {name: np.median(found, axis=0) for name, found in values.items()}
