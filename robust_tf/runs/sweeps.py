"""Experiments of many models: which are still to do, who does them, and their tables.

A sweep keeps no state of its own but the list of its models: what is done is seen from
the runs' folders. So it can be stopped at any moment and begun again, and several
processes can share it.
"""

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from robust_tf import machine, results
from robust_tf.errors import InvalidArgument
from robust_tf.files import prepare_directory, writing_to
from robust_tf.progress import Bar
from robust_tf.runs import stages
from robust_tf.runs.budget import Budget
from robust_tf.runs.pool import Outcome, Pool
from robust_tf.runs.tasks import Task

# Seconds between looks at what other processes have done.
_POLL_SECONDS = 0.5


def carry_out(
    name: str,
    tasks: list[Task],
    pool: Pool,
    *,
    output_dir: str | os.PathLike,
    saved_models_dir: str | os.PathLike | None = None,
    ended: Callable[[Task], None] | None = None,
    budget: Budget | None = None,
    progress: bool = True,
) -> list[Outcome]:
    """Carries out what is not done yet of an experiment, and gathers its tables.

    Args:
        name: the experiment's name, that of a folder in `output_dir`; see `results.gather`.
        tasks: from `tasks.plan`.
        pool: carries them out, such as `executors.processes.LocalPool`.
        output_dir: where the runs' folders are made.
        saved_models_dir: where their SavedModels are exported; with it a finished run whose
            SavedModel is damaged fails.
        ended: called with each task that the pool has carried out or failed in.
        budget: no task is begun that would not end within it; by default all are.
        progress: show a progress bar.

    Returns:
        The tasks that failed, with the reason.

    Raises:
        InvalidArgument: if the directory has the experiment's models with other settings.
        Unavailable: if the directory cannot be written, or the pool is of no use.
    """
    output_dir = prepare_directory("output_dir", output_dir)
    rows = pd.DataFrame([task.columns() for task in tasks], dtype=object)
    results.add_to_plan(output_dir, name, rows)

    def is_done(task: Task) -> bool:
        if saved_models_dir is None:
            return task.is_done(output_dir)
        return task.is_whole(output_dir, Path(saved_models_dir))

    left = [task for task in tasks if not is_done(task)]
    with Bar(
        desc=name,
        initial=len(tasks) - len(left),
        total=len(tasks),
        unit="model",
        dynamic_ncols=True,
        each=True,
        disable=not (progress and left),
    ) as bar:
        try:
            return _distribute(left, pool, output_dir, is_done, ended, budget, bar)
        finally:
            with writing_to("output_dir", output_dir):
                results.gather(output_dir, name)


def _distribute(
    waiting: list[Task],
    pool: Pool,
    output_dir: Path,
    is_done: Callable[[Task], bool],
    ended: Callable[[Task], None] | None,
    budget: Budget | None,
    bar: Bar,
) -> list[Outcome]:
    """Has tasks done, by the pool or by other processes; returns those that failed."""
    planned = {task.run.name for task in waiting}
    failed: list[Outcome] = []
    outcomes: list[Outcome] = []
    while True:
        if budget:
            late = [task for task in waiting if not budget.allows(task, _done(task, output_dir))]
            names = {task.run.name for task in late}
            waiting = [
                task
                for task in waiting
                if task not in late and not _waits_for(task, names, output_dir)
            ]
        for task in _ready(waiting, pool.free, planned, output_dir):
            waiting.remove(task)
            if is_done(task):  # by another process meanwhile
                bar.update()
                continue
            if budget:
                budget.begin(task, _done(task, output_dir))
            pool.submit(task)
        for outcome in outcomes:  # now that the pool has new work
            if ended:
                ended(outcome.task)
        if not (waiting or pool.busy):
            return failed
        outcomes = pool.wait(_POLL_SECONDS) if pool.busy else []
        if not pool.busy and not outcomes:
            time.sleep(_POLL_SECONDS)  # all that is left is with other processes
        for outcome in outcomes:
            if budget:
                budget.end(outcome.task)
            for note in outcome.notes:
                bar.write(f"warning: {outcome.task}: {note}")
            if outcome.problem is None:
                bar.update()
                continue
            failed.append(outcome)
            bar.write(f"{outcome.task} failed: {outcome.problem}")
            if outcome.details:
                bar.write(outcome.details)
        lost = {outcome.task.run.name for outcome in failed}
        for task in [task for task in waiting if _waits_for(task, lost, output_dir)]:
            waiting.remove(task)
            failed.append(Outcome(task, "its natural model failed"))


def _done(task: Task, output_dir: Path) -> float:
    """The fraction of its epochs that a task which was stopped has behind it."""
    if stages.is_finished(task.run, output_dir):
        return 0.0  # trials are not counted
    return stages.completed_epochs(task.run, output_dir) / task.run.recipe.epochs


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


def threads_of_each(
    workers: int | None, threads: int | None = None, cores: float | None = None
) -> int:
    """TensorFlow's threads in each of several processes.

    Args:
        workers: how many processes; None for one.
        threads: the number asked for; None for as many as there are cores for a process.
        cores: how many cores are set aside for a process; None for a fair share of this
            machine's.

    Raises:
        InvalidArgument: if a number is below 1.
    """
    for argument, value in (("workers", workers), ("threads", threads)):
        if value is not None and value < 1:
            raise InvalidArgument(argument, value, "a whole number from 1 on")
    return threads or max(1, int(cores or machine.cores() // (workers or 1)))


def duration(seconds: float) -> str:
    """Seconds in words: "1 h 05 min", "3 min", "40 s"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
