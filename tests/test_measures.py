"""Against hand-computed values and SciPy's and scikit-learn's own."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import sklearn.metrics
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from robust_tf.evaluation import measures

RANDOM = np.random.default_rng(5)


@given(st.integers(1, 10_000), st.data())
def test_the_interval_is_scipys(examples, data):
    right = data.draw(st.integers(0, examples))
    expected = scipy.stats.binomtest(right, examples).proportion_ci(0.95, "wilson")
    found = measures.interval(right / examples, examples)
    np.testing.assert_allclose(found, (expected.low, expected.high), atol=1e-9)


def test_the_interval_by_hand():
    # 81 of 263: Wilson's interval in Newcombe (1998), table I.
    low, high = measures.interval(81 / 263, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


def test_calibration_error_by_hand():
    probabilities = np.array([[0.95, 0.05], [0.91, 0.09], [0.3, 0.7], [0.62, 0.38], [0.61, 0.39]])
    labels = np.array([0, 1, 1, 0, 1])
    # With ten bins: 0.9 to 1 has confidence 0.93 and accuracy 1/2, 0.6 to 0.7 has 0.6433
    # and 2/3 (0.7 belongs to it: bins are closed above).
    expected = 2 / 5 * abs(0.93 - 0.5) + 3 / 5 * abs((0.7 + 0.62 + 0.61) / 3 - 2 / 3)
    assert measures.calibration_error(probabilities, labels, bins=10) == pytest.approx(expected)


def test_calibration_error_of_extremes():
    sure = np.eye(4)[[0, 1, 2, 3]]
    assert measures.calibration_error(sure, np.array([0, 1, 2, 3])) == 0
    assert measures.calibration_error(sure, np.array([1, 2, 3, 0])) == 1
    assert measures.calibration_error(np.full((4, 4), 0.25), np.array([0, 0, 1, 2])) == 0.25


def test_calibration_error_by_a_plain_loop():
    probabilities = RANDOM.dirichlet(np.ones(5) / 2, 500)
    labels = RANDOM.integers(0, 5, 500)
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = [
            (max(p), int(np.argmax(p)) == label)
            for p, label in zip(probabilities, labels)
            if low < max(p) <= low + 1 / 15
        ]
        if inside:
            confidence, right = map(np.mean, zip(*inside))
            expected += len(inside) / 500 * abs(confidence - right)
    assert measures.calibration_error(probabilities, labels) == pytest.approx(expected)


def test_brier_score_by_hand():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    # (0.3² + 0.2² + 0.1²) and (0.1² + 0.9² + 0.8²)
    assert measures.brier_score(probabilities, np.array([0, 1])) == pytest.approx(
        ((0.09 + 0.04 + 0.01) + (0.01 + 0.81 + 0.64)) / 2
    )


def test_brier_score_is_scikit_learns_for_two_classes():
    p, labels = RANDOM.random(300), RANDOM.integers(0, 2, 300)
    both = np.stack([1 - p, p], axis=1)
    # Which counts one of the two classes.
    expected = 2 * sklearn.metrics.brier_score_loss(labels, p)
    assert measures.brier_score(both, labels) == pytest.approx(expected)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 20))
def test_mcnemar_is_a_sum_of_binomials(only_first, only_second, both):
    first = np.array([True] * (only_first + both) + [False] * only_second + [False], bool)
    second = np.array([False] * only_first + [True] * (both + only_second) + [False], bool)
    n, least = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(n, k) for k in range(least + 1)) / 2**n
    counts = measures.mcnemar(first, second)
    assert counts[:2] == (only_first, only_second)
    assert counts[2] == pytest.approx(min(1.0, 2 * tail))


def test_mcnemar_of_a_known_table():
    # 121 against 59: 2 · P(X ≤ 59), X binomial of 180 and 1/2.
    first = np.array([True] * 121 + [False] * 59 + [True] * 101 + [False] * 33)
    second = np.array([False] * 121 + [True] * 59 + [True] * 101 + [False] * 33)
    assert measures.mcnemar(first, second)[2] == pytest.approx(4.4344e-6, rel=1e-4)


def test_probabilities():
    logits = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], np.float32)
    exponents = np.exp(logits)
    expected = exponents / exponents.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(measures.probabilities(logits), expected)
    np.testing.assert_allclose(measures.probabilities(expected), expected)
    many = RANDOM.dirichlet(np.ones(10), 10_000)
    for dtype in (tf.bfloat16, tf.float16):
        rounded = tf.cast(many, dtype).numpy().astype(np.float32)
        np.testing.assert_allclose(measures.probabilities(rounded), many, atol=5e-3)


def table(**errors):
    rows = [(kind, level, error) for kind, of_kind in errors.items() for level, error in of_kind]
    return pd.DataFrame(rows, columns=["kind", "level", "error"])


def test_corruption_errors_by_hand():
    own = table(none=[(np.nan, 0.02)], hot=[(2, 0.04)], noise=[(0.1, 0.05), (0.2, 0.11)])
    base = table(none=[(np.nan, 0.03)], hot=[(2, 0.23)], noise=[(0.1, 0.08), (0.2, 0.32)])
    found = measures.corruption_errors(own, base)
    assert found["corruption_error"].to_dict() == pytest.approx(
        {"hot": 0.04 / 0.23, "noise": 0.16 / 0.40}
    )
    assert found["relative_corruption_error"].to_dict() == pytest.approx(
        {"hot": 0.02 / 0.20, "noise": 0.12 / 0.34}
    )
    as_itself = measures.corruption_errors(base, base)
    np.testing.assert_allclose(as_itself, 1.0)


def test_what_the_baseline_does_not_lose_has_no_ratio():
    own = table(none=[(np.nan, 0.02)], dead=[(2, 0.03)], hot=[(2, 0.03)])
    base = table(none=[(np.nan, 0.02)], dead=[(2, 0.02)], hot=[(2, 0.0)])
    found = measures.corruption_errors(own, base)
    assert found["relative_corruption_error"].isna().all()
    assert np.isnan(found["corruption_error"]["hot"])
