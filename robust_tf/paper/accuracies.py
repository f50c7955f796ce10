"""Accuracies by their conditions of training and test, as claims ask for them, in percent."""

import pandas as pd

from robust_tf.evaluation import condition_key
from robust_tf.perturbations import KINDS

PIXELS = ("stuck", "dead", "hot")


class Accuracies:
    """Points by their conditions.

    Args:
        points: columns as of `numbers.points`, ours or the published ones.
    """

    def __init__(self, points: pd.DataFrame):
        """See the class."""
        columns = ["dataset", "strategy", "train_perturb", "train_level"]
        columns += ["test_perturb", "test_level"]
        self._means: dict[tuple, float] = {}
        for *key, mean in points[[*columns, "mean"]].itertuples(index=False):
            self._means[_key(*key)] = 100 * mean

    def natural(self, dataset: str, test: str = "none", level: float = 0) -> float:
        """The accuracy of a natural model; raises `LookupError` where there is none."""
        return self._means[_key(dataset, "natural", "none", 0, test, level)]

    def robust(
        self,
        dataset: str,
        strategy: str,
        kind: str,
        level: float,
        test: str = "none",
        test_level: float = 0,
    ) -> float:
        """The accuracy of a robust model; raises `LookupError` where there is none."""
        return self._means[_key(dataset, strategy, kind, level, test, test_level)]

    def tests(
        self, dataset: str, strategy: str, kind: str, level: float, natural: bool = False
    ) -> list[float]:
        """The accuracies of a robust model in the tests of its figure."""
        family = PIXELS if kind in PIXELS else (kind,)
        perturbed = [
            self.robust(dataset, strategy, kind, level, test, test_level)
            for test in family
            for test_level in KINDS[test].test_levels
        ]
        return perturbed + [self.robust(dataset, strategy, kind, level)] * natural


def _key(
    dataset: str, strategy: str, kind: str, level: float, test: str, test_level: float
) -> tuple:
    return dataset, strategy, condition_key(kind, level), condition_key(test, test_level)
