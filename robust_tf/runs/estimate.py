"""How long runs take on this machine, from a few steps of each kind; nothing is kept."""

import math
import time
from collections.abc import Callable, Iterable, Mapping

import tensorflow as tf

from robust_tf import models, training
from robust_tf.data import Data, without_autotuning
from robust_tf.evaluation import Evaluator, Natural, number_of_trials
from robust_tf.runs.declaration import Run
from robust_tf.runs.tasks import Task

_STEPS = 3
_TEST_EXAMPLES = 500


def seconds(tasks: Iterable[Task], datasets: Mapping[str, Data]) -> dict[str, float]:
    """Estimates the time of runs: building, training and natural passes of the tests.

    What perturbing, exporting and starting a process take is left out.

    Args:
        tasks: from `tasks.plan`.
        datasets: by name.

    Returns:
        Seconds by the runs' names.
    """
    measured: dict[tuple, tuple[float, float, float]] = {}
    estimates = {}
    for task in tasks:
        run = task.run
        key = (
            run.dataset,
            run.model,
            run.recipe.batch_size,
            run.precision,
        )
        if key not in measured:
            measured[key] = _measure(run, datasets[run.dataset])
        start, an_image, a_test_image = measured[key]
        passes = sum(number_of_trials(condition, task.trials) for condition in task.conditions)
        estimates[run.name] = (
            start
            + run.recipe.epochs * run.train_examples * an_image
            + passes * run.test_examples * a_test_image
        )
    return estimates


@models.keras_defaults()
def _measure(run: Run, data: Data) -> tuple[float, float, float]:
    """Seconds to begin, for a training image, and for a test image."""
    begun = time.perf_counter()
    model = run.build_model(data)
    training.compile_model(
        model,
        run.recipe,
        steps_per_epoch=math.ceil(run.train_examples / run.recipe.batch_size),
        jit_compile=run.jit_compile,
    )
    index = tf.range(run.recipe.batch_size)
    batch = data.train.images_at(index), tf.gather(data.train.labels, index)
    batches = without_autotuning(tf.data.Dataset.from_tensors(batch).repeat())
    steps = max(_STEPS, model.steps_per_execution)

    def train() -> None:
        model.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)

    train()
    evaluator = Evaluator(model, data.test.first(_TEST_EXAMPLES), run.seed)
    evaluator.accuracy(Natural())
    start = time.perf_counter() - begun
    an_image = _time(train) / (steps * run.recipe.batch_size)
    passes = _time(lambda: [evaluator.accuracy(Natural()) for _ in range(_STEPS)])
    return start, an_image, passes / (_STEPS * min(_TEST_EXAMPLES, len(data.test)))


def _time(function: Callable[[], object]) -> float:
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun
