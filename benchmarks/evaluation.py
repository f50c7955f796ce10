"""Trials of one MNIST model, beside bare forward passes of as many images."""

import time
from collections.abc import Callable

import keras
import pandas as pd
import tensorflow as tf

from benchmarks.timing import medians, seconds
from robust_tf import evaluation, models
from robust_tf.data import Split
from robust_tf.evaluation import Condition, Evaluator, Natural
from robust_tf.evaluation.suites import TRIALS
from robust_tf.perturbations import KINDS, Perturbation, all_kinds


def measure(split: Split, rounds: int, trials: int = TRIALS) -> pd.DataFrame:
    """Times the trials of every kind.

    Args:
        split: MNIST's test images.
        rounds: timed rounds.
        trials: passes per kind.

    Returns:
        One row per condition: trials_s, the seconds of its trials; ratio to bare forward passes of
        as many images in float32; first_s, what the first trial of a first model takes,
        with tracing, and compiling what nothing before it has compiled; and second_s,
        likewise of a second model.
    """
    first, second = (models.build("mnist_cnn", split.image_shape, 10, seed=i) for i in (0, 1))
    conditions: dict[str, Condition] = {"natural": Natural()}
    conditions |= {kind: Perturbation(kind, KINDS[kind].test_levels[-1]) for kind in all_kinds()}
    starts = {
        label: [_first_trial(model, split, condition) for model in (first, second)]
        for label, condition in conditions.items()
    }
    evaluator = Evaluator(first, split)
    bare = bare_pass(lambda images: first(images, training=False), split)

    def passes(condition: Condition) -> float:
        start = time.perf_counter()
        for trial in range(trials):
            evaluator.accuracy(condition, trial)
        return time.perf_counter() - start

    variants = {"bare": lambda: seconds(lambda: [bare() for _ in range(trials)])}
    variants |= {name: lambda c=condition: passes(c) for name, condition in conditions.items()}
    times = medians(variants, rounds)
    table = pd.DataFrame({"test": ["bare", *conditions]})
    table["trials_s"] = table["test"].map(times)
    table["images_per_s"] = trials * len(split) / table["trials_s"]
    table["ratio"] = table["trials_s"] / times["bare"]
    table["first_s"] = table["test"].map({key: both[0] for key, both in starts.items()})
    table["second_s"] = table["test"].map({key: both[1] for key, both in starts.items()})
    return table


def bare_pass(model: Callable[[tf.Tensor], tf.Tensor], split: Split) -> Callable[[], int]:
    """A function that classifies all images as they are, float32, in the batches of tests."""
    images = split.images_at(tf.range(len(split)))
    batch_size = evaluation.batch_size(split.image_shape)

    @tf.function
    def bare() -> tf.Tensor:
        total = tf.constant(0, tf.int64)
        for start in tf.range(0, len(split), batch_size):
            scores = model(images[start : start + batch_size])
            total += tf.reduce_sum(tf.argmax(scores, axis=-1))
        return total

    return lambda: int(bare())


def _first_trial(model: keras.Model, split: Split, condition: Condition) -> float:
    return seconds(lambda: Evaluator(model, split).accuracy(condition))


def goals(table: pd.DataFrame) -> list[tuple]:
    """(number, what, goal, figure, whether it is met) of the README's table."""
    ratios = table.set_index("test")["ratio"]
    rows = []
    for family, kinds, trials, most in (
        ("stuck, dead, hot", ["stuck", "dead", "hot"], TRIALS, 1.2),
        ("3 levels of noise", ["noise"] * 3, TRIALS, 1.35),
        ("3 levels of blur", ["blur"] * 3, 1, 1.35),
    ):
        # Natural images are one pass of 1 + 3 * trials.
        figure = (ratios["natural"] + trials * ratios[kinds].sum()) / (1 + trials * len(kinds))
        what = f"mnist: natural and {family}, {trials} trial(s), to bare passes"
        rows.append((4, what, most, figure, figure <= most))
    return rows
