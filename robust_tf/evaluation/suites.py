"""Which conditions a model is tested with: the paper's tests of each kind, or other levels.

Source: Cavey, Dolan and Stock (2020), sections V and VI.
"""

from collections.abc import Collection, Iterable

from robust_tf.evaluation.conditions import Condition, Natural
from robust_tf.perturbations import KINDS, Perturbation

# Passes over the test set per random condition.
TRIALS = 25


def standard_tests(kinds: Collection[str], channel_blur: bool = False) -> tuple[Condition, ...]:
    """The paper's tests of some kinds, natural images first.

    Args:
        kinds: which kinds to test.
        channel_blur: blur over the channel axis too.

    Returns:
        The conditions, kinds in the order of `KINDS`.
    """
    levels = ((kind, KINDS[kind].test_levels) for kind in KINDS if kind in kinds)
    return conditions_at(levels, channel_blur)


def conditions_at(
    levels: Iterable[tuple[str, Iterable[float]]], channel_blur: bool = False
) -> tuple[Condition, ...]:
    """Tests at levels by kind, natural images first; arguments and result as above."""
    return (
        Natural(),
        *(
            Perturbation(kind, level, channel_blur and kind == "blur")
            for kind, own in levels
            for level in own
        ),
    )


def kinds_of(families: Collection[str]) -> list[str]:
    """The kinds of some families."""
    return [name for name, kind in KINDS.items() if kind.family in families]
