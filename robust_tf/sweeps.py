"""Experiments of many models: which are still to do, by whom, and what they found.

A sweep keeps no state of its own but the list of its models: what is done is seen from
the runs' folders. So it can be stopped at any moment and begun again, and several
processes can share it.
"""

import contextlib
import dataclasses
import functools
import math
import os
import threading
import time
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import pandas as pd
import tensorflow as tf
import tqdm

from robust_tf import data as data_lib
from robust_tf import examples, experiments, machine, results, runs, trials
from robust_tf.configuration import Options, Run
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.evaluation import Condition
from robust_tf.files import is_locked, prepare_directory, writing_to
from robust_tf.workers import LocalWorkers, Outcome

# Seconds between looks at what has been done.
_POLL_SECONDS = 0.5
# Share of a model's work that is its training; for the progress bar only.
_TRAINING_SHARE = 0.85


@dataclasses.dataclass(frozen=True)
class Sources:
    """Where datasets come from and how much of them is used; as in `data.load`.

    Attributes:
        data_dir: TFDS's directory.
        data_source: "tfds", "sample" or "auto".
        train_examples: number of training images; None for all.
        test_examples: number of test images; None for all.
        preset: how the training images are presented.
    """

    data_dir: str | None = None
    data_source: str = "auto"
    train_examples: int | None = None
    test_examples: int | None = None
    preset: str = "text"

    def load(self, dataset: str) -> data_lib.Data:
        """Loads a dataset.

        Raises:
            InvalidArgument: as `data.load`, the argument being "datasets".
            Unavailable: likewise.
        """
        try:
            return data_lib.load(
                dataset,
                data_dir=self.data_dir,
                data_source=self.data_source,
                train_examples=self.train_examples,
                test_examples=self.test_examples,
                **experiments.PRESETS[self.preset].data_options(dataset),
            )
        except (InvalidArgument, Unavailable) as error:
            raise (error.of("datasets") if error.argument == "dataset" else error) from error


@dataclasses.dataclass(frozen=True)
class Task:
    """A model to train and test.

    Attributes:
        run: what to train.
        conditions: what to test it with.
        trials: passes for each random perturbation.
    """

    run: Run
    conditions: tuple[Condition, ...]
    trials: int

    def is_done(self, output_dir: Path) -> bool:
        """Whether it is trained, with all trials in `output_dir`."""
        return runs.is_finished(self.run, output_dir) and trials.is_complete(
            output_dir / self.run.name / "trials.csv",
            self.run.test_examples,
            self.conditions,
            trials=self.trials,
        )

    def is_taken(self, output_dir: Path) -> bool:
        """Whether some process works on it."""
        return any(map(is_locked, runs.folders(self.run, output_dir)))


def plan(
    cells: Iterable[experiments.Cell],
    options: dict[str, Any],
    datasets: dict[str, data_lib.Data],
    *,
    seeds: Iterable[int] = (0,),
    trials: int = experiments.TRIALS,
) -> list[Task]:
    """The tasks of an experiment.

    Args:
        cells: the experiment's models.
        options: of `configuration.Options`, for all models.
        datasets: by name.
        seeds: each cell is a model a seed.
        trials: passes for each random perturbation.

    Returns:
        The tasks, natural models first.

    Raises:
        InvalidArgument: if an option is not allowed.
    """
    tasks = []
    for cell in cells:
        of_cell = {
            key: value
            for key, value in dataclasses.asdict(cell).items()
            if key not in ("dataset", "test_levels") and value is not None
        }
        for seed in seeds:
            asked = Options(**{**options, **of_cell, "seed": seed})
            tests = experiments.conditions(cell.test_levels, bool(asked.channel_blur))
            tasks.append(Task(asked.resolve(datasets[cell.dataset]), tests, trials))
    return sorted(tasks, key=lambda task: task.run.strategy != "natural")


def carry_out(
    name: str,
    tasks: list[Task],
    sources: Sources,
    *,
    workers: int = 1,
    threads: int | None = None,
    output_dir: str | os.PathLike,
    saved_models_dir: str | os.PathLike,
    seconds: Mapping[str, float] | None = None,
    progress: bool = True,
) -> list[Outcome]:
    """Carries out what is not done yet of an experiment, and gathers its tables.

    Args:
        name: the experiment's, that of a folder in `output_dir`; see `results.gather`.
        tasks: from `plan`.
        sources: where the tasks' data come from.
        workers: how many models are trained at once, each in a process of its own.
        threads: TensorFlow's threads in each of them; by default a fair share of the
            cores. Sums are taken in another order with another number of them, so
            that trained weights differ, at first by rounding.
        output_dir: where the runs' folders are made.
        saved_models_dir: where SavedModels are exported.
        seconds: by run, how long it takes, for the progress bar; by default as long as
            it has images to see.
        progress: show a progress bar.

    Returns:
        The tasks that failed, with the reason.

    Raises:
        InvalidArgument: if an argument is out of range, or if the experiment has models
            with other settings there already.
        Unavailable: if a directory cannot be written.
    """
    output_dir = prepare_directory("output_dir", output_dir)
    saved_models_dir = prepare_directory("saved_models_dir", saved_models_dir)
    threads = threads_of_each(workers, threads)
    results.add_to_plan(output_dir, name, pd.DataFrame([_row(task) for task in tasks]))
    function = functools.partial(
        _work,
        sources=sources,
        threads=threads,
        output_dir=output_dir,
        saved_models_dir=saved_models_dir,
    )
    try:
        with LocalWorkers(workers, function) as local:
            return _distribute(tasks, local, output_dir, seconds or {}, progress)
    finally:
        with writing_to("output_dir", output_dir):
            results.gather(output_dir, name)


def _row(task: Task) -> dict[str, Any]:
    """A task as a row of `results.PLAN_COLUMNS`."""
    tests = ";".join(
        results.condition_label(*((test.kind, test.level) if test else ("none", 0.0)))
        for test in task.conditions
    )
    return {**task.run.columns(), "tests": tests, "trials": task.trials}


def save_examples(
    tasks: Iterable[Task],
    datasets: Mapping[str, data_lib.Data],
    output_dir: str | os.PathLike,
    saved_models_dir: str | os.PathLike,
) -> None:
    """Writes the examples of figures 3, 5 and 7 to `impact/tables/examples.csv`.

    Args:
        tasks: of the experiment "impact"; a dataset's first model that is done is shown.
        datasets: by name.
        output_dir: holds the runs' folders.
        saved_models_dir: holds their SavedModels.

    Raises:
        Unavailable: if a SavedModel is gone or the table cannot be written.
    """
    output_dir = Path(output_dir)
    tables: dict[str, pd.DataFrame] = {}
    for run in (task.run for task in tasks if task.is_done(output_dir)):
        if run.dataset not in tables:
            model = runs.load_model(run, output_dir, saved_models_dir)
            data = datasets[run.dataset]
            tables[run.dataset] = examples.of_paper(run.label, model, data, seed=run.seed)
    if tables:
        table = pd.concat(tables.values(), ignore_index=True)
        with writing_to("output_dir", output_dir):
            path = output_dir / "impact" / "tables" / "examples.csv"
            results.write(table, path, list(table.columns))


def threads_of_each(workers: int, threads: int | None = None) -> int:
    """TensorFlow's threads in each of some processes.

    Args:
        workers: how many processes.
        threads: what is asked for; None for a fair share of the cores.

    Raises:
        InvalidArgument: if a number is below 1.
    """
    for argument, value in (("workers", workers), ("threads", threads)):
        if value is not None and value < 1:
            raise InvalidArgument(argument, value, "a whole number from 1 on")
    return threads or max(1, machine.cores() // workers)


def use_threads(threads: int) -> None:
    """Sets TensorFlow's threads in this process, before it has computed anything."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def _distribute(
    tasks: list[Task],
    workers: LocalWorkers,
    output_dir: Path,
    seconds: Mapping[str, float],
    progress: bool,
) -> list[Outcome]:
    failed: list[Outcome] = []
    waiting = [task for task in tasks if not task.is_done(output_dir)]
    planned = {task.run.name for task in tasks}
    bar = _Bar(tasks, seconds, output_dir, shown=progress and bool(waiting))
    with contextlib.closing(bar):
        bar.look()
        while waiting or workers.busy:
            for task in _ready(waiting, workers.free, planned, output_dir):
                waiting.remove(task)
                if not task.is_done(output_dir):  # by another process meanwhile
                    workers.submit(task)
            outcomes = workers.wait(_POLL_SECONDS)
            if not workers.busy and not outcomes:
                time.sleep(_POLL_SECONDS)  # all that is left is with other processes
            for outcome in outcomes:
                if outcome.problem is not None:
                    failed.append(outcome)
                    bar.write(f"{describe(outcome.task.run)} failed: {outcome.problem}")
                    if outcome.details:
                        bar.write(outcome.details)
            lost = {outcome.task.run.name for outcome in failed}
            for task in [task for task in waiting if _waits_for(task, lost, output_dir)]:
                waiting.remove(task)
                failed.append(Outcome(task, "its natural model failed"))
            bar.look()
    return failed


def _ready(waiting: list[Task], most: int, planned: set[str], output_dir: Path) -> list[Task]:
    """The first tasks that can be begun."""
    ready: list[Task] = []
    for task in waiting:
        if len(ready) == most:
            break
        if not _waits_for(task, planned, output_dir) and not task.is_taken(output_dir):
            ready.append(task)
    return ready


def _waits_for(task: Task, names: set[str], output_dir: Path) -> bool:
    """Whether a task starts from a model that is one of some runs and not trained yet."""
    start = task.run.natural_run if task.run.strategy == "transfer" else None
    return start is not None and start.name in names and not runs.is_finished(start, output_dir)


def describe(run: Run) -> str:
    """A run in words: "mnist constant hot 6"; with what is unusual about it."""
    words = [run.dataset, run.label]
    if run.batch_norm is False:
        words.append("without batch norm")
    if run.dropout == 0:
        words.append("without dropout")
    if run.activation not in (None, "relu"):
        words.append(f"with {run.activation}")
    if run.seed:
        words.append(f"seed {run.seed}")
    return " ".join(words)


def _set_up(threads: int) -> None:
    """Prepares a process for its tasks."""
    warnings.simplefilter("ignore")  # the process that started this one has told them
    tf.get_logger().setLevel("ERROR")
    # tqdm's own lock is one between processes, which a killed process would leave behind.
    tqdm.tqdm.set_lock(threading.RLock())
    use_threads(threads)
    tf.config.experimental.enable_op_determinism()


# In a worker: the datasets that it has read.
_datasets: dict[str, data_lib.Data] = {}


def _work(
    task: Task, *, sources: Sources, threads: int, output_dir: Path, saved_models_dir: Path
) -> None:
    """A task, in a process of its own."""
    run = task.run
    if not _datasets:
        _set_up(threads)
    if run.dataset not in _datasets:
        source = dataclasses.replace(sources, data_source=run.data_source)
        _datasets[run.dataset] = source.load(run.dataset)
    dataset = _datasets[run.dataset]
    folders: Any = {"output_dir": output_dir, "saved_models_dir": saved_models_dir}
    runs.train(run, dataset, progress=False, **folders)
    runs.test(run, dataset, task.conditions, trials=task.trials, progress=False, **folders)
    keras.backend.clear_session()


class _Bar:
    """A progress bar over all tasks, from what their folders show; those of others too."""

    def __init__(
        self, tasks: list[Task], seconds: Mapping[str, float], output_dir: Path, shown: bool
    ):
        self._tasks = tasks
        self._weights = [
            seconds.get(task.run.name, float(task.run.epochs * task.run.train_examples))
            for task in tasks
        ]
        self._output_dir = output_dir
        self._start = time.monotonic()
        self._first: float | None = None
        self._done: set[str] = set()
        self._bar = tqdm.tqdm(
            total=100.0,
            disable=not shown,
            bar_format="{desc} |{bar}| {postfix}",
            dynamic_ncols=True,
        )

    def look(self) -> None:
        """Shows what has been done since."""
        if self._bar.disable:
            return
        total = sum(self._weights)
        work = sum(weight * self._share(task) for weight, task in zip(self._weights, self._tasks))
        if self._first is None:
            self._first = work
        elapsed = time.monotonic() - self._start
        speed = (work - self._first) / elapsed if elapsed else 0.0
        self._bar.n = 100.0 * work / total
        self._bar.set_description_str(f"{len(self._done)}/{len(self._tasks)} models", refresh=False)
        remaining = duration((total - work) / speed) if speed else "unknown"
        self._bar.set_postfix_str(f"{duration(elapsed)} so far, {remaining} left")

    def write(self, text: str) -> None:
        """Writes lines above the bar."""
        self._bar.write(text)

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()

    def _share(self, task: Task) -> float:
        """How much of a task has been done, in [0, 1]."""
        name = task.run.name
        if name in self._done or task.is_done(self._output_dir):
            self._done.add(name)
            return 1.0
        if runs.is_finished(task.run, self._output_dir):
            return _TRAINING_SHARE
        epochs = runs.completed_epochs(task.run, self._output_dir)
        return _TRAINING_SHARE * epochs / task.run.epochs


def duration(seconds: float) -> str:
    """Seconds in words: "1 h 05 min", "3 min", "40 s"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
