"""The models of an experiment as tasks: what each is, and how a process carries it out."""

import dataclasses
import functools
import threading
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
import tqdm

from robust_tf import data as data_lib
from robust_tf import machine, results
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.evaluation import Condition
from robust_tf.files import is_locked
from robust_tf.paper import experiments
from robust_tf.results import trials
from robust_tf.runs import stages
from robust_tf.runs.declaration import Options, Run


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
        """Loads a dataset; the last few stay in memory.

        Raises:
            InvalidArgument: as `data.load`, the argument being "datasets".
            Unavailable: likewise.
        """
        try:
            return _load(self, dataset)
        except (InvalidArgument, Unavailable) as error:
            raise (error.of("datasets") if error.argument == "dataset" else error) from error

    def of(self, run: Run) -> data_lib.Data:
        """Loads the dataset of a run, from where the run has it."""
        return dataclasses.replace(self, data_source=run.data_source).load(run.dataset)


@functools.lru_cache(maxsize=4)
def _load(sources: Sources, dataset: str) -> data_lib.Data:
    return data_lib.load(
        dataset,
        data_dir=sources.data_dir,
        data_source=sources.data_source,
        train_examples=sources.train_examples,
        test_examples=sources.test_examples,
        **experiments.PRESETS[sources.preset].data_options(dataset),
    )


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
        return stages.is_finished(self.run, output_dir) and trials.is_complete(
            output_dir / self.run.name / "trials.csv",
            self.run.test_examples,
            self.conditions,
            trials=self.trials,
        )

    def is_taken(self, output_dir: Path) -> bool:
        """Whether some process works on it."""
        return any(map(is_locked, stages.folders(self.run, output_dir)))

    @property
    def folders(self) -> list[tuple[str, str]]:
        """The folders that it reads or writes, each in `output_dir` or `saved_models_dir`."""
        partial, finished = (path.name for path in stages.folders(self.run, ""))
        names = [("output_dir", partial), ("output_dir", finished), ("saved_models_dir", finished)]
        start = self.start
        if start is not None:
            names += [("output_dir", start.name), ("saved_models_dir", start.name)]
        return names

    @property
    def start(self) -> Run | None:
        """The run that its training starts from; None if it starts anew."""
        own = self.run.strategy == "transfer" and self.run.pretrained is None
        return self.run.natural_run if own else None

    def columns(self) -> dict[str, Any]:
        """The task as columns of `results.PLAN_COLUMNS`."""
        tests = ";".join(
            results.condition_label(test.key[0], test.level) for test in self.conditions
        )
        return {**self.run.columns(), "tests": tests, "trials": self.trials}

    def __str__(self) -> str:
        """In words: "mnist constant hot 6"; with what is unusual about it."""
        run = self.run
        words = [run.dataset, run.label]
        if run.batch_norm is False:
            words.append("without batch norm")
        if run.dropout == 0:
            words.append("without dropout")
        if run.activation not in (None, "relu"):
            words.append(f"with {run.activation}")
        if run.standardize != "pixel":
            words.append(f"standardize {run.standardize}")
        if run.seed:
            words.append(f"seed {run.seed}")
        return " ".join(words)


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


def work(
    task: Task,
    *,
    load: Callable[[Run], data_lib.Data],
    threads: int,
    output_dir: Path,
    saved_models_dir: Path,
    saved_models_url: str,
) -> None:
    """Carries out a task, in a process for nothing but tasks.

    Args:
        task: the task.
        load: gives the dataset of a run.
        threads: TensorFlow's threads.
        output_dir: where the run's folder is made.
        saved_models_dir: where its SavedModel is exported.
        saved_models_url: what `runs.csv` calls that directory.
    """
    run = task.run
    _set_up(threads, deterministic=run.jit_compile != "on")
    folders: Any = {"output_dir": output_dir, "saved_models_dir": saved_models_dir}
    dataset = load(run)
    stages.train(run, dataset, saved_models_url=saved_models_url, progress=False, **folders)
    stages.test(run, dataset, task.conditions, trials=task.trials, progress=False, **folders)
    keras.backend.clear_session()


@functools.cache  # once a process
def _set_up(threads: int, deterministic: bool) -> None:
    warnings.simplefilter("ignore")  # the process that started this one has told them
    tf.get_logger().setLevel("ERROR")
    # tqdm's own lock is one between processes, which a killed process would leave behind.
    tqdm.tqdm.set_lock(threading.RLock())
    machine.use_threads(threads)
    machine.share_gpus()
    if deterministic:  # XLA cannot compile all of it
        tf.config.experimental.enable_op_determinism()
