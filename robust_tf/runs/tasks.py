"""The models of an experiment as tasks: what each is, and how a process carries it out."""

import dataclasses
import functools
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
import tqdm

from robust_tf import data as data_lib
from robust_tf import machine, results, settings
from robust_tf.errors import InvalidArgument
from robust_tf.evaluation import Condition
from robust_tf.evaluation.suites import TRIALS, conditions_at
from robust_tf.files import is_locked
from robust_tf.results import trials as trials_lib
from robust_tf.runs import stages
from robust_tf.runs.declaration import Run
from robust_tf.runs.defaults import resolve
from robust_tf.runs.experiments import Cell
from robust_tf.training import Natural


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
        run = self.run.columns()
        return stages.is_finished(self.run, output_dir) and trials_lib.is_complete(
            output_dir / self.run.name / "trials.csv",
            (self.run.test_examples, self.run.test_digest),
            self.conditions,
            {name: run[name] for name in results.TRAINING_COLUMNS},
            trials=self.trials,
        )

    def is_whole(self, output_dir: Path, saved_models_dir: Path) -> bool:
        """Whether it is done, and its SavedModel, where there is one, is not damaged."""
        return self.is_done(output_dir) and stages.is_handed_on(
            self.run, output_dir, saved_models_dir
        )

    def is_taken(self, output_dir: Path) -> bool:
        """Whether some process works on it."""
        return any(map(is_locked, stages.folders(self.run, output_dir)))

    def columns(self) -> dict[str, Any]:
        """The task as a row of an experiment's `models.csv`."""
        tests = ";".join(
            results.condition_label(test.key[0], test.level) for test in self.conditions
        )
        return {**self.run.columns(), "tests": tests, "trials": self.trials}

    def __str__(self) -> str:
        """In words: "mnist constant hot 6"; with what is unusual about it."""
        run, flat = self.run, settings.flatten(self.run)
        words = [run.dataset, run.label]
        if flat.get("batch_norm") is False:
            words.append("without batch norm")
        if flat.get("dropout") == 0:
            words.append("without dropout")
        if flat.get("activation", "relu") != "relu":
            words.append(f"with {flat['activation']}")
        if run.standardize != "pixel":
            words.append(f"standardize {run.standardize}")
        if run.seed:
            words.append(f"seed {run.seed}")
        return " ".join(words)


def plan(
    cells: Iterable[Cell],
    given: Mapping[str, Any],
    datasets: Mapping[str, data_lib.Data],
    *,
    seeds: Iterable[int] = (0,),
    trials: int = TRIALS,
) -> list[Task]:
    """The tasks of an experiment.

    Args:
        cells: the experiment's models.
        given: settings for all models, by name, as arguments of `resolve`. One
            that belongs to some strategies, optimizers or networks holds for those models
            that have it.
        datasets: by name.
        seeds: each cell is one model per seed.
        trials: passes per random perturbation.

    Returns:
        The tasks, natural models first.

    Raises:
        InvalidArgument: if a setting is not allowed, or no model has it.
    """
    tasks = []
    unused = set(given)
    for cell in cells:
        for seed in seeds:
            own = {**given, **cell.settings, "seed": seed}
            run = resolve(datasets[cell.dataset], loosely=given.keys(), **own)
            flat = settings.flatten(run)
            unused -= {name for name, value in flat.items() if value is not None}
            tests = conditions_at(cell.test_levels, run.channel_blur)
            tasks.append(Task(run, tests, trials))
    for name in unused:
        chooser = settings.declared(Run)[name].chosen_by
        chosen = {str(settings.flatten(task.run)[chooser]) for task in tasks if chooser}
        with_chosen = f" with {chooser}={','.join(sorted(chosen))}" if chosen else ""
        raise InvalidArgument(name, given[name], f"no value{with_chosen}; no model would have it")
    return sorted(tasks, key=lambda task: not isinstance(task.run.strategy, Natural))


def work(
    task: Task,
    *,
    load: Callable[[Run], data_lib.Data],
    threads: int,
    output_dir: Path,
    saved_models_dir: Path,
    saved_models_url: str,
) -> list[str]:
    """Carries out a task, in a process for nothing but tasks.

    Args:
        task: the task.
        load: gives the dataset of a run.
        threads: TensorFlow's threads.
        output_dir: where the run's folder is made.
        saved_models_dir: where its SavedModel is exported.
        saved_models_url: what `runs.csv` calls that directory.

    Returns:
        What warnings said.
    """
    run = task.run
    _set_up(threads, deterministic=run.jit_compile != "on")
    folders: Any = {"output_dir": output_dir, "saved_models_dir": saved_models_dir}
    dataset = load(run)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        stages.train(run, dataset, saved_models_url=saved_models_url, progress=False, **folders)
        stages.test(run, dataset, task.conditions, trials=task.trials, progress=False, **folders)
    keras.backend.clear_session()
    return [str(one.message) for one in caught]


@functools.cache  # once a process
def _set_up(threads: int, deterministic: bool) -> None:
    # Those of data, which the process that started this one has shown, and of libraries.
    warnings.simplefilter("ignore")
    tf.get_logger().setLevel("ERROR")
    # tqdm's own lock is one between processes, which a killed process would leave behind.
    tqdm.tqdm.set_lock(threading.RLock())
    machine.use_threads(threads)
    machine.share_gpus()
    if deterministic:  # XLA cannot compile all of it
        tf.config.experimental.enable_op_determinism()
