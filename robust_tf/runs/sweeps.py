"""Experiments of many models: which are still to do, by whom, and what they found.

A sweep keeps no state of its own but the list of its models: what is done is seen from
the runs' folders. So it can be stopped at any moment and begun again, and several
processes can share it.
"""

import contextlib
import functools
import math
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd
import tqdm

from robust_tf import data as data_lib
from robust_tf import machine, results
from robust_tf.errors import InvalidArgument
from robust_tf.evaluation import examples
from robust_tf.executors.cluster import Cluster, ClusterWorkers
from robust_tf.executors.processes import LocalWorkers, Outcome
from robust_tf.files import prepare_directory, writing_to
from robust_tf.runs import stages
from robust_tf.runs import tasks as tasks_lib
from robust_tf.runs.sources import Sources
from robust_tf.runs.tasks import Task

# Seconds between looks at what has been done.
_POLL_SECONDS = 0.5
# Share of a model's work that is its training; for the progress bar only.
_TRAINING_SHARE = 0.85


def carry_out(
    name: str,
    tasks: list[Task],
    sources: Sources,
    *,
    workers: int | None = None,
    threads: int | None = None,
    cluster: Cluster | None = None,
    output_dir: str | os.PathLike,
    saved_models_dir: str | os.PathLike,
    saved_models_url: str | None = None,
    seconds: Mapping[str, float] | None = None,
    progress: bool = True,
) -> list[Outcome]:
    """Carries out what is not done yet of an experiment, and gathers its tables.

    Args:
        name: the experiment's, that of a folder in `output_dir`; see `results.gather`.
        tasks: from `tasks.plan`.
        sources: where the tasks' data come from.
        workers: how many models are trained at once, each in a process of its own; by
            default one, or as many as there is room for on a cluster.
        threads: TensorFlow's threads in each of them; by default as `threads_of_each`
            says. Sums are taken in another order with another number of them, so that
            trained weights differ, at first by rounding.
        cluster: carries the tasks out; None for this machine alone.
        output_dir: where the runs' folders are made.
        saved_models_dir: where SavedModels are exported.
        saved_models_url: what `runs.csv` calls that directory; by default as it is given.
        seconds: by run, how long it takes, for the progress bar; by default as long as
            it has images to see.
        progress: show a progress bar.

    Returns:
        The tasks that failed, with the reason.

    Raises:
        InvalidArgument: if an argument is out of range, or if the experiment has models
            with other settings there already.
        Unavailable: if a directory cannot be written, or the cluster not be used.
    """
    # SavedModels first: a run whose results are there has its SavedModel.
    directories = {
        "saved_models_dir": prepare_directory("saved_models_dir", saved_models_dir),
        "output_dir": prepare_directory("output_dir", output_dir),
    }
    function = functools.partial(
        tasks_lib.work,
        threads=threads_of_each(workers, threads, cluster),
        saved_models_url=saved_models_url or Path(saved_models_dir).as_posix(),
    )
    pool: LocalWorkers | ClusterWorkers
    if cluster is None:
        pool = LocalWorkers(
            workers or 1, functools.partial(function, load=sources.of, **directories)
        )
    else:
        datasets = {name: sources.load(name) for name in {task.run.dataset for task in tasks}}
        pool = ClusterWorkers(cluster, function, workers, directories, datasets)
    with pool:
        rows = pd.DataFrame([task.columns() for task in tasks])
        results.add_to_plan(directories["output_dir"], name, rows)
        try:
            return _distribute(tasks, pool, directories["output_dir"], seconds or {}, progress)
        finally:
            with writing_to("output_dir", output_dir):
                results.gather(output_dir, name)


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
            model = stages.load_model(run, output_dir, saved_models_dir)
            data = datasets[run.dataset]
            tables[run.dataset] = examples.of_paper(run.label, model, data, seed=run.seed)
    if tables:
        table = pd.concat(tables.values(), ignore_index=True)
        with writing_to("output_dir", output_dir):
            path = output_dir / "impact" / "tables" / "examples.csv"
            results.write(table, path, list(table.columns))


def threads_of_each(
    workers: int | None, threads: int | None = None, cluster: Cluster | None = None
) -> int:
    """TensorFlow's threads in each of some processes.

    Args:
        workers: how many processes; None for one.
        threads: what is asked for; None for a fair share of this machine's cores, or the
            cores that a cluster sets aside for a task.
        cluster: the cluster that the processes run on, if any.

    Raises:
        InvalidArgument: if a number is below 1.
    """
    for argument, value in (("workers", workers), ("threads", threads)):
        if value is not None and value < 1:
            raise InvalidArgument(argument, value, "a whole number from 1 on")
    fair = cluster.num_cpus if cluster else machine.cores() // (workers or 1)
    return threads or max(1, int(fair))


def _distribute(
    tasks: list[Task],
    workers: LocalWorkers | ClusterWorkers,
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
                    bar.write(f"{outcome.task} failed: {outcome.problem}")
                    if outcome.details:
                        bar.write(outcome.details)
            lost = {outcome.task.run.name for outcome in failed}
            for task in [task for task in waiting if _waits_for(task, lost, output_dir)]:
                waiting.remove(task)
                failed.append(Outcome(task, "its natural model failed"))
            bar.look()
        bar.look(last=True)
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
    start = task.run.starts_from
    return start is not None and start.name in names and not stages.is_finished(start, output_dir)


class _Bar:
    """A progress bar over all tasks, from what their folders show; those of others too."""

    def __init__(
        self, tasks: list[Task], seconds: Mapping[str, float], output_dir: Path, shown: bool
    ):
        self._tasks = tasks
        self._weights = [
            seconds.get(task.run.name, float(task.run.recipe.epochs * task.run.train_examples))
            for task in tasks
        ]
        self._output_dir = output_dir
        self._start = self._next = time.monotonic()
        self._first: float | None = None
        self._done: set[str] = set()
        self._bar = tqdm.tqdm(
            total=100.0,
            disable=not shown,
            bar_format="{desc} |{bar}| {postfix}",
            dynamic_ncols=True,
        )

    def look(self, last: bool = False) -> None:
        """Shows what has been done since; takes no more than a tenth of the time."""
        begun = time.monotonic()
        if self._bar.disable or (begun < self._next and not last):
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
        self._next = begun + 10 * (time.monotonic() - begun)

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
        if stages.is_finished(task.run, self._output_dir):
            return _TRAINING_SHARE
        epochs = stages.completed_epochs(task.run, self._output_dir)
        return _TRAINING_SHARE * epochs / task.run.recipe.epochs


def duration(seconds: float) -> str:
    """Seconds in words: "1 h 05 min", "3 min", "40 s"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
