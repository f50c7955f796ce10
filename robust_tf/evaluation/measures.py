"""The field's measures of classifiers, as functions of arrays and tables; nothing else.

Sources, which docs/measures.md quotes too:

- interval: Wilson (1927), "Probable inference, the law of succession, and statistical
  inference"; over several trials with the effective number of images of Rao and Scott (1992),
  "A simple method for the analysis of clustered binary data".
- expected calibration error: Guo et al. (2017), "On calibration of modern neural networks".
- Brier score: Brier (1950), "Verification of forecasts expressed in terms of probability".
- mCE, relative mCE: Hendrycks and Dietterich (2019), "Benchmarking neural network
  robustness to common corruptions and perturbations".
- McNemar (1947), "Note on the sampling error of the difference between correlated
  proportions or percentages"; here its exact form, a binomial test.
"""

import numpy as np
import pandas as pd
import scipy.special
import scipy.stats
from numpy.typing import ArrayLike

from robust_tf.data.classes import check_labels

BINS = 15
_LEVEL = 0.95


def interval(
    accuracy: ArrayLike,
    examples: ArrayLike,
    trials: ArrayLike = 1,
    changed: ArrayLike = np.nan,
) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % interval of an accuracy, for other test images and other draws alike.

    Of one trial it is Wilson's score interval. Several trials see the same images, so they are
    more images only as far as their answers differ: ρ, the correlation of an image's answers in
    two trials, makes N images and T trials worth N·T / (1 + (T - 1)·ρ) images. With p the
    accuracy, ρ = 1 - changed / (2·p·(1 - p)), within [0, 1]; to estimate it, z² ≈ 4 images are
    added of which half is always right and half always wrong, which keeps it high where few
    images say what it is (z² images are also what Wilson's centre adds).

    Args:
        accuracy: fraction of images that are classified correctly, in [0, 1]; the mean over
            the trials. A number or an array, like all that follow.
        examples: number of different images.
        trials: number of trials.
        changed: fraction of the images that are right in one trial and wrong in the next, the
            mean over such pairs of trials. Where it is missing ρ is 1: the interval is that of
            one trial, which is never too narrow.

    Returns:
        Lower and upper end, in [0, 1].
    """
    mean, n, repeated, differing = (
        np.asarray(one, np.float64) for one in (accuracy, examples, trials, changed)
    )
    z = scipy.stats.norm.ppf((1 + _LEVEL) / 2)
    p = (mean * n + z**2 / 2) / (n + z**2)
    alike = 1 - differing * n / (n + z**2) / (2 * p * (1 - p))
    alike = np.where(np.isnan(differing), 1, alike).clip(0, 1)
    n = n * repeated / (1 + (repeated - 1) * alike)
    centre = mean + z**2 / (2 * n)
    reach = z * np.sqrt(mean * (1 - mean) / n + (z / (2 * n)) ** 2)
    scale = 1 + z**2 / n
    return np.maximum(0, (centre - reach) / scale), np.minimum(1, (centre + reach) / scale)


def answered(scores: np.ndarray) -> np.ndarray:
    """Which images have an answer: those whose scores [N, K] are all finite; bool [N]."""
    return np.isfinite(scores).all(axis=1)


def probabilities(scores: np.ndarray) -> np.ndarray:
    """Probabilities of scores: as they are, if they are some; else by softmax of logits.

    Args:
        scores: floats, shape [N, K].

    Returns:
        float64 array [N, K], rows of sum 1; of zeros where a score is not finite.
    """
    has_answer = answered(scores)
    if not has_answer.all():
        found = np.zeros(scores.shape)
        if has_answer.any():
            found[has_answer] = probabilities(scores[has_answer])
        return found
    scores = scores.astype(np.float64)
    # In a sum of 10 bfloat16 is off by up to 0.004, int8 by 0.02.
    if (scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=5e-2):
        return scores / scores.sum(axis=1, keepdims=True)
    return scipy.special.softmax(scores, axis=1)


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error: how far confidence is from accuracy.

    Images are put into bins of equal width by their confidence, the largest probability;
    the differences of the bins' mean confidence and accuracy are averaged, each with the
    share of images in it.

    Args:
        probabilities: floats in [0, 1], shape [N, K]; rows that are zero or not finite are images
            without an answer, which are wrong with confidence 0.
        labels: true classes, integers, shape [N].
        bins: number of bins (0, 1/bins], …, (1 - 1/bins, 1].

    Returns:
        A number in [0, 1]; 0 is best.

    Raises:
        InvalidArgument: if a label is no class.
    """
    check_labels(np.asarray(labels), probabilities.shape[1], argument="labels")
    probabilities = _finite(probabilities)
    confidence = probabilities.max(axis=1)
    right = (probabilities.argmax(axis=1) == labels) & (confidence > 0)
    place = np.ceil(confidence * bins).clip(1, bins).astype(int) - 1
    gap = np.bincount(place, confidence - right, minlength=bins)  # count · (confidence - accuracy)
    return float(np.abs(gap).sum() / len(labels))


def brier_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The Brier score: mean over images of Σₖ (pₖ - [k is the label])².

    Arguments and errors as in `calibration_error`.

    Returns:
        A number in [0, 2]; 0 is best, and an image without an answer adds 1.
    """
    check_labels(np.asarray(labels), probabilities.shape[1], argument="labels")
    errors = _finite(probabilities).astype(np.float64)
    errors[np.arange(len(labels)), labels] -= 1
    return float((errors**2).sum(axis=1).mean())


def _finite(probabilities: np.ndarray) -> np.ndarray:
    """The same with rows of zeros in place of those that are not finite."""
    return np.where(answered(probabilities)[:, np.newaxis], probabilities, 0)


def mcnemar(first: np.ndarray, second: np.ndarray) -> tuple[int, int, float]:
    """McNemar's exact test of two classifiers on the same images.

    Args:
        first: whether the first is right, bool, shape [N].
        second: likewise the second.

    Returns:
        The images that only the first gets right, those that only the second does, and
        the two-sided p-value of so uneven a split, if both were as good.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    differing = only_first + only_second
    if not differing:
        return 0, 0, 1.0
    return only_first, only_second, float(scipy.stats.binomtest(only_first, differing).pvalue)


def corruption_errors(errors: pd.DataFrame, baseline: pd.DataFrame) -> pd.DataFrame:
    """Corruption errors relative to a baseline, one row per kind of perturbation.

    Args:
        errors: columns kind ("none" for natural images), level, and error, a fraction.
        baseline: the same tests of another classifier.

    Returns:
        By kind: corruption_error, Σ E / Σ E_baseline over the levels; and
        relative_corruption_error, Σ (E - E_natural) / Σ (E_baseline - E_baseline_natural),
        missing where the baseline loses nothing. 1 is as the baseline. Their means over
        the kinds are mCE and relative mCE; the paper multiplies them by 100.
    """

    def sums(table: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
        natural = table.loc[table["kind"] == "none", "error"].iloc[0]
        by_kind = table[table["kind"] != "none"].groupby("kind", sort=False)["error"]
        return by_kind.sum(), by_kind.sum() - natural * by_kind.size()

    (own, own_lost), (base, base_lost) = sums(errors), sums(baseline)
    return pd.DataFrame(
        {
            "corruption_error": own / base.where(base > 0),
            "relative_corruption_error": own_lost / base_lost.where(base_lost > 0),
        }
    ).loc[own.index]
