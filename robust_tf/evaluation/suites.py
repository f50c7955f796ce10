"""Which conditions a model is tested with: the paper's tests of each kind, or other levels.

Source: Cavey, Dolan and Stock (2020), sections V and VI.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from robust_tf.perturbations import KINDS, Perturbation
from robust_tf.perturbations.condition import Condition

# Passes over the test set per random condition.
TRIALS = 25


def standard_tests(
    kinds: Collection[str], channel_blur: bool = False, bits: int | None = None
) -> tuple[Condition, ...]:
    """The paper's tests of some kinds, natural images first.

    Args:
        kinds: which kinds to test.
        channel_blur: blur over the channel axis too.
        bits: round perturbed images to so many bits; None for no rounding.

    Returns:
        The conditions, kinds in the order of `KINDS`.
    """
    levels = ((kind, KINDS[kind].test_levels) for kind in KINDS if kind in kinds)
    return conditions_at(levels, channel_blur, bits)


def conditions_at(
    levels: Iterable[tuple[str, Iterable[float]]],
    channel_blur: bool = False,
    bits: int | None = None,
) -> tuple[Condition, ...]:
    """Tests at levels by kind, natural images first; arguments and result as above."""
    from robust_tf.evaluation.conditions import InBits, Natural

    perturbations = (
        Perturbation(kind, level, channel_blur and kind == "blur")
        for kind, own in levels
        for level in own
    )
    return (Natural(), *(InBits(one, bits) if bits else one for one in perturbations))


def kinds_of(families: Collection[str]) -> list[str]:
    """The kinds of some families."""
    return [name for name, kind in KINDS.items() if kind.family in families]
