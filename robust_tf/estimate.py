"""How long runs take on this machine, from a few steps of each kind; nothing is kept."""

import time
from collections.abc import Callable, Iterable, Mapping

import tensorflow as tf

from robust_tf import training
from robust_tf.configuration import Run
from robust_tf.data import Data
from robust_tf.evaluation import Evaluator, number_of_trials
from robust_tf.sweeps import Task

_STEPS = 3
_TEST_EXAMPLES = 500


def seconds(tasks: Iterable[Task], datasets: Mapping[str, Data]) -> dict[str, float]:
    """Estimates the time of runs: building, training and natural passes of the tests.

    What perturbing, exporting and starting a process take is left out.

    Args:
        tasks: from `sweeps.plan`.
        datasets: by name.

    Returns:
        Seconds by the runs' names.
    """
    measured: dict[tuple, tuple[float, float, float]] = {}
    estimates = {}
    for task in tasks:
        run = task.run
        key = (run.dataset, run.model, run.batch_size, run.batch_norm, run.activation)
        if key not in measured:
            measured[key] = _measure(run, datasets[run.dataset])
        start, an_image, a_test_image = measured[key]
        passes = sum(number_of_trials(condition, task.trials) for condition in task.conditions)
        estimates[run.name] = (
            start
            + run.epochs * run.train_examples * an_image
            + passes * run.test_examples * a_test_image
        )
    return estimates


def _measure(run: Run, data: Data) -> tuple[float, float, float]:
    """Seconds to begin, for a training image, and for a test image."""
    begun = time.perf_counter()
    model = run.build_model(data)
    training.compile_model(model, learning_rate=run.learning_rate, beta_1=run.beta_1)
    index = tf.range(run.batch_size)
    batch = data.train.images_at(index), tf.gather(data.train.labels, index)
    model.train_on_batch(*batch)
    evaluator = Evaluator(model, data.test.first(_TEST_EXAMPLES), run.seed)
    evaluator.accuracy(None)
    start = time.perf_counter() - begun
    a_step = _time(lambda: model.train_on_batch(*batch))
    a_test = _time(lambda: evaluator.accuracy(None))
    return start, a_step / run.batch_size, a_test / min(_TEST_EXAMPLES, len(data.test))


def _time(function: Callable[[], object]) -> float:
    begun = time.perf_counter()
    for _ in range(_STEPS):
        function()
    return (time.perf_counter() - begun) / _STEPS
