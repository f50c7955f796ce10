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


def answers(shares: np.ndarray, trials: int) -> np.ndarray:
    """Whether images are right, bool [..., trials, N], each as often as its share says."""
    drawn = RANDOM.random((*shares.shape[:-1], trials, shares.shape[-1]))
    return drawn < shares[..., np.newaxis, :]


def interval_of(right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The interval of answers, bool [..., trials, N]."""
    trials, examples = right.shape[-2:]
    changed = (right[..., 1:, :] != right[..., :-1, :]).mean(axis=(-1, -2))
    return measures.interval(right.mean(axis=(-1, -2)), examples, trials, changed)


@pytest.mark.parametrize(
    ("examples", "trials", "accuracy", "correlation"),
    [
        (1000, 25, 0.97, 0.8),
        (1000, 25, 0.75, 0.35),
        (500, 5, 0.5, 0.1),
        (500, 2, 0.9, 0.5),
        (200, 25, 0.5, 0.3),
        (200, 10, 0.1, 0.8),
        (100, 25, 0.75, 0.9),
    ],
)
def test_it_covers_the_truth_in_95_of_100_cases(examples, trials, accuracy, correlation):
    """For other images and other draws: each repetition draws both anew."""
    a, b = np.array([accuracy, 1 - accuracy]) * (1 / correlation - 1)
    right = answers(RANDOM.beta(a, b, (1500, examples)), trials)
    low, high = interval_of(right)
    covered = 100 * np.mean((low <= accuracy) & (accuracy <= high))
    assert 93 <= covered <= 97.7
    # One pass over as many images as there are answers would be far from that.
    naive = measures.interval(right.mean(axis=(1, 2)), examples * trials)
    assert np.mean((naive[0] <= accuracy) & (accuracy <= naive[1])) < (covered - 1) / 100


@pytest.mark.parametrize("trials", [2, 10, 50])
@pytest.mark.parametrize("accuracy", [0.97, 0.9, 0.5, 0.1])
def test_few_images_never_look_exact(trials, accuracy):
    for correlation in (0.1, 0.5, 0.9):
        a, b = np.array([accuracy, 1 - accuracy]) * (1 / correlation - 1)
        low, high = interval_of(answers(RANDOM.beta(a, b, (1000, 12)), trials))
        assert np.mean((low <= accuracy) & (accuracy <= high)) > 0.925
        assert (high - low).min() > 0.05


@pytest.mark.parametrize("name", ["some hard images", "all alike", "two groups"])
def test_it_is_as_wide_as_a_bootstrap_over_images(name):
    shares = {
        "some hard images": RANDOM.beta(3, 1, 2000),
        "all alike": np.full(2000, 0.7),
        "two groups": np.repeat([0.99, 0.4], [1500, 500]),
    }[name]
    right = answers(shares, 8)
    by_image = right.mean(axis=0)
    means = RANDOM.choice(by_image, (3000, len(by_image))).mean(axis=1)
    np.testing.assert_allclose(interval_of(right), np.quantile(means, [0.025, 0.975]), atol=1.5e-3)


def test_trials_that_agree_are_one_and_those_that_differ_are_many():
    once = np.array(measures.interval(0.8, 500))
    same = np.repeat(RANDOM.random((1, 500)) < 0.8, 25, axis=0)
    expected = measures.interval(same.mean(), 500)
    np.testing.assert_allclose(interval_of(same), expected)
    np.testing.assert_array_equal(measures.interval(0.8, 500, 25), once)  # nothing is known
    np.testing.assert_array_equal(measures.interval(0.8, 500, 1, 0.3), once)
    # As often as of unrelated images: 25 · 500 images; never more.
    many = measures.interval(0.8, 500 * 25)
    for changed in (0.33, 0.5, 1.0):
        np.testing.assert_allclose(measures.interval(0.8, 500, 25, changed), many)
    widths = np.subtract(*measures.interval(0.8, 500, 25, np.linspace(0, 0.32, 9))[::-1])
    assert (np.diff(widths) < 0).all()


@pytest.mark.parametrize(
    ("right", "examples"), [(10, 12), (0, 3), (12, 12), (1, 1), (9700, 10_000)]
)
@pytest.mark.parametrize("trials", [1, 25])
def test_a_pass_that_is_repeated_without_a_change_is_scipys(right, examples, trials):
    expected = scipy.stats.binomtest(right, examples).proportion_ci(0.95, "wilson")
    found = measures.interval(right / examples, examples, trials, 0.0)
    np.testing.assert_allclose(found, (expected.low, expected.high), atol=1e-12)


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
