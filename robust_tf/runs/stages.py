"""What a run does: train, export, test, draw; each step itself lives elsewhere.

This is the one place that knows their order and the files of a run's folder.
"""

import contextlib
import functools
import hashlib
import math
import os
import secrets
import warnings
from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

import robust_tf
from robust_tf import machine, models, results, saved_models, training
from robust_tf.data import Data
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.evaluation import Condition, Evaluator, Natural, examples, measures
from robust_tf.files import (
    locked,
    make_way,
    prepare_directory,
    remove,
    rename_folder,
    replacing,
    writing_to,
)
from robust_tf.results import figures
from robust_tf.results import trials as trials_lib
from robust_tf.runs.declaration import RUN_COLUMNS, Run
from robust_tf.training import Backup, Training, Transfer, devices

_BACKUP = "backup"
# A loss of so many times that of a guess is of no use, whatever the accuracy.
_WORST_LOSS = 100.0
_MARK = "mark"


def is_finished(run: Run, output_dir: str | os.PathLike) -> bool:
    """Whether a run is trained, with its results in `output_dir`."""
    return (Path(output_dir) / run.name).is_dir()


def trained_with(run: Run, output_dir: str | os.PathLike) -> int:
    """The number of threads that a finished run was trained with."""
    threads = _cell(run, output_dir, "threads")
    return int(float(threads)) if threads != "nan" else 0


def folders(run: Run, output_dir: str | os.PathLike) -> tuple[Path, Path]:
    """A run's folder while it is trained, and when it is finished."""
    return Path(output_dir) / f"{run.name}.partial", Path(output_dir) / run.name


def completed_epochs(run: Run, output_dir: str | os.PathLike) -> int:
    """How many epochs a run that is not finished has behind it."""
    partial, _ = folders(run, output_dir)
    return Backup(partial / _BACKUP, run=run.name).completed_epochs()


def train(
    run: Run,
    data: Data,
    *,
    output_dir: str | os.PathLike,
    saved_models_dir: str | os.PathLike,
    saved_models_url: str | None = None,
    tensorboard: bool = False,
    progress: bool = True,
) -> Path:
    """Trains a model, exports it, and writes `runs.csv` and `history.csv`.

    A finished run is left as it is; a stopped one goes on after its last whole epoch.
    Transfer trains its natural run first, unless that is finished or the run names a
    pretrained model.
    Until it is finished, its files lie in `<output_dir>/<run>.partial/`.

    Args:
        run: resolved for `data`.
        data: the dataset.
        output_dir: where the run's folder is made.
        saved_models_dir: where the run's SavedModel is exported.
        saved_models_url: what `runs.csv` calls that directory; by default as it is given.
        tensorboard: write TensorBoard logs to the run's folder.
        progress: show a progress bar.

    Returns:
        The run's folder, `<output_dir>/<run>/`.

    Raises:
        InvalidArgument: if the data are not those that the run was resolved for.
        Unavailable: if a directory cannot be written, or the training diverges.
    """
    if data.train_digest != run.train_digest:
        expected = f"the data that the run was resolved for, {run.train_digest}"
        raise InvalidArgument("data", data.train_digest, expected)
    output_dir = prepare_directory("output_dir", output_dir)
    url = saved_models_url or Path(saved_models_dir).as_posix()
    partial, folder = folders(run, output_dir)
    if is_finished(run, output_dir):
        remove(folder / _BACKUP)  # if it was stopped before that
        return folder
    saved_models_dir = prepare_directory("saved_models_dir", saved_models_dir)
    start = run.starts_from
    if start is not None:
        train(
            start,
            data,
            output_dir=output_dir,
            saved_models_dir=saved_models_dir,
            saved_models_url=saved_models_url,
            tensorboard=tensorboard,
            progress=progress,
        )
    with locked(prepare_directory("output_dir", partial)):
        if is_finished(run, output_dir):  # by the process that we waited for
            with contextlib.suppress(OSError):
                partial.rmdir()
            return folder
        row, history = _fit_and_export(run, data, partial, saved_models_dir, tensorboard, progress)
        row["saved_model"] = f"{url.rstrip('/')}/{row['saved_model']}"
        with writing_to("output_dir", output_dir):
            for name in ("history.csv", "runs.csv", "checksums.json"):
                make_way(partial / name)
            results.write(history, partial / "history.csv", results.HISTORY_COLUMNS)
            results.write(pd.DataFrame([row]), partial / "runs.csv", RUN_COLUMNS)
            rename_folder(partial, folder)
            # Last: without it a run that is stopped here would begin again.
            remove(folder / _BACKUP)
    return folder


def _fit_and_export(
    run: Run,
    data: Data,
    partial: Path,
    saved_models_dir: Path,
    tensorboard: bool,
    progress: bool,
) -> tuple[dict, pd.DataFrame]:
    """The run as a row of `runs.csv`, and its history."""
    started, history = _fit(run, data, partial, saved_models_dir, tensorboard, progress)
    model = started.model
    if run.distribute != "none":
        build = functools.partial(_build_model, run, data, partial.parent, saved_models_dir)
        model = devices.on_one_device(model, build)
    # As it will be reloaded, so that its tests share what is traced here.
    evaluator = Evaluator(models.plain(model), data.test, run.seed)
    natural_accuracy = evaluator.accuracy(Natural())
    _check_training(run, data, evaluator.unanswered(), natural_accuracy, history)
    mark = _mark(partial)
    with writing_to("saved_models_dir", saved_models_dir, tf.errors.OpError):
        # Of this training, if it was killed since.
        saved_models.remove_marked(saved_models_dir / run.name, mark)
        saved_model = saved_models.export(
            model,
            saved_models_dir / run.name,
            mark=mark,
            label_names=data.label_names,
            training=run.columns(),
            example=data.test.images[0].numpy(),
        )
    seconds = history["seconds"].sum()
    row = {
        **run.columns(),
        "train_accuracy": history["accuracy"].iloc[-1],
        "natural_accuracy": natural_accuracy,
        "seconds": seconds,
        "images_per_second": run.recipe.epochs * started.examples / seconds,
        "threads": machine.threads(),
        "devices": started.distribution.num_replicas_in_sync,
        "machine": machine.name(),
        "saved_model": saved_model.relative_to(saved_models_dir).as_posix(),
        "tensorflow_version": tf.__version__,
        "keras_version": keras.__version__,
        "robust_tf_version": robust_tf.__version__,
    }
    return row, history


def _check_training(
    run: Run, data: Data, unanswered: int, natural_accuracy: float, history: pd.DataFrame
) -> None:
    """Warns of a training that has led nowhere; raises `Unavailable` if it answers nothing."""
    examples = len(data.test)
    if unanswered == examples:
        problem = "no score of the trained model is finite; a lower learning rate may help"
        raise Unavailable("learning_rate", run.recipe.optimizer.learning_rate, problem)
    name, classes = run.label, np.bincount(data.test.labels.numpy())
    if unanswered:
        text = f"scores of {unanswered:,} of {examples:,} natural test images are not finite"
        warnings.warn(f"{name}: {text}; these images count as wrong", stacklevel=3)
    most, loss = classes.max() / examples, history["loss"].iloc[-1]
    if loss > _WORST_LOSS * math.log(max(2, len(data.label_names))):
        text = f"ended with a loss of {loss:.3g}, and {natural_accuracy:.2%}"
    elif measures.interval(natural_accuracy, examples)[0] <= most < 1:
        text = f"ended near chance: {natural_accuracy:.2%}"
    else:
        return
    warnings.warn(
        f"{name}: the training {text} of the natural test images are right (the most frequent "
        f"class alone: {most:.2%}); a lower learning rate or more epochs may help",
        stacklevel=3,
    )


def _mark(partial: Path) -> str:
    """What marks the SavedModel of a run while the run is not finished."""
    path = partial / _BACKUP / _MARK
    with writing_to("output_dir", partial.parent):
        make_way(path)
        mark = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        if not mark:
            mark = secrets.token_hex(8)
            with replacing(path) as temporary:
                temporary.write_text(mark, encoding="utf-8")
    return mark


def _fit(
    run: Run,
    data: Data,
    partial: Path,
    saved_models_dir: Path,
    tensorboard: bool,
    progress: bool,
) -> tuple[Training, pd.DataFrame]:
    """What was trained, and its history."""
    backup = Backup(partial / _BACKUP, run=run.name)
    build = functools.partial(_build_model, run, data, partial.parent, saved_models_dir)
    started = run.strategy.prepare(
        data.train,
        build,
        run.recipe,
        seed=run.seed,
        initial_epoch=backup.completed_epochs(),
        distribution=devices.create(run.distribute),
    )
    with writing_to("output_dir", partial.parent):
        history = training.fit(
            started,
            jit_compile=run.jit_compile,
            backup=backup,
            tensorboard_dir=partial / "tensorboard" if tensorboard else None,
            label=f"training {run.label}" if progress else None,
        )
    return started, history


def _build_model(run: Run, data: Data, output_dir: Path, saved_models_dir: Path) -> keras.Model:
    """The model that training starts from."""
    pretrained = None
    if run.starts_from is not None:
        pretrained = load_model(run.starts_from, output_dir, saved_models_dir)
    elif isinstance(run.strategy, Transfer) and run.strategy.pretrained:
        folder = saved_models.find("pretrained", run.strategy.pretrained)
        pretrained = saved_models.load(folder, "pretrained")
    return run.build_model(data, pretrained)


def test(
    run: Run,
    data: Data,
    conditions: Iterable[Condition],
    *,
    trials: int,
    output_dir: str | os.PathLike,
    saved_models_dir: str | os.PathLike,
    progress: bool = True,
) -> pd.DataFrame:
    """Tests a finished run's SavedModel and keeps the trials in its `trials.csv`.

    Trials that are there already are not repeated; new ones are added.

    Args:
        run: resolved for `data`, and trained.
        data: the dataset; its test split is used.
        conditions: what it is tested with.
        trials: passes for each random perturbation.
        output_dir: holds the run's folder.
        saved_models_dir: holds the run's SavedModel.
        progress: show a progress bar.

    Returns:
        The asked trials, columns as in `results.TRIAL_COLUMNS`.

    Raises:
        InvalidArgument: if a condition does not fit the images or `trials` is below 1.
        Unavailable: if the SavedModel is gone or the folder cannot be written.
    """
    conditions = list(conditions)
    folder = _saved_model(run, output_dir, saved_models_dir)
    model = saved_models.load(folder)
    path = Path(output_dir) / run.name / "trials.csv"
    asked = trials_lib.complete(
        path,
        model,
        data.test,
        conditions,
        {key: run.columns()[key] for key in results.TRAINING_COLUMNS}
        | {"saved_model": f"{saved_models.full_name(folder)} {_digest_of_weights(model)}"},
        trials=trials,
        seed=run.seed,
        label=f"testing {run.label}" if progress else None,
    )
    known = trials_lib.read(path)
    tested = [(one.examples(len(data.test)), one.digest(data.test.digest)) for one in conditions]
    now = pd.MultiIndex.from_tuples([(len(data.test), data.test.digest), *tested])
    known = known[pd.MultiIndex.from_frame(known[["n_examples", "test_digest"]]).isin(now)]
    with writing_to("saved_models_dir", saved_models_dir):
        saved_models.add_robustness(folder, results.summarize(known))
    return asked


def _digest_of_weights(model: keras.Model) -> str:
    """Tells models of one network apart; the same for the same training."""
    content = hashlib.sha256()
    for weight in model.weights:
        content.update(weight.numpy().tobytes())
    return content.hexdigest()[:8]


def load_model(
    run: Run, output_dir: str | os.PathLike, saved_models_dir: str | os.PathLike
) -> keras.Model:
    """Reloads a finished run's SavedModel.

    Raises:
        Unavailable: if it is gone.
    """
    return saved_models.load(_saved_model(run, output_dir, saved_models_dir))


def _saved_model(
    run: Run, output_dir: str | os.PathLike, saved_models_dir: str | os.PathLike
) -> Path:
    own = Path(output_dir) / run.name
    again = f"remove the folder {own} to train it again"
    path = Path(_cell(run, output_dir, "saved_model"))
    folder = Path(saved_models_dir) / run.name / path.name
    for found in (folder, path):  # the second of a run that had another directory
        if found.is_dir():
            break
    else:
        problem = f"{folder.relative_to(saved_models_dir)} is not there; {again}"
        raise Unavailable("saved_models_dir", saved_models_dir, problem)
    try:
        return saved_models.find("saved_models_dir", found)
    except Unavailable as error:
        problem = f"{error.problem.partition('; ')[0]}; {again}"
        raise Unavailable("saved_models_dir", found, problem) from error


def _cell(run: Run, output_dir: str | os.PathLike, column: str) -> str:
    """What a finished run's `runs.csv` has in a column."""
    folder = Path(output_dir) / run.name
    value = results.read_run(folder).get(column)
    if value is None:
        problem = f"runs.csv is damaged (no {column}); remove the folder to train it again"
        raise Unavailable("output_dir", folder, problem)
    return str(value)


def draw(
    runs: list[Run],
    data: Data,
    conditions: Iterable[Condition],
    trials: pd.DataFrame,
    *,
    output_dir: str | os.PathLike,
    saved_models_dir: str | os.PathLike,
) -> Path:
    """Draws the figures of a run, beside others to compare it with.

    Args:
        runs: finished runs; the figures go to the folder of the last.
        data: the dataset.
        conditions: what they were tested under.
        trials: their trials, as `test` returned them.
        output_dir: holds the runs' folders.
        saved_models_dir: holds the runs' SavedModels.

    Returns:
        The folder `figures`, with `accuracy.png`, `training.png` and `examples.png`.

    Raises:
        Unavailable: if the folder cannot be written.
    """
    folders = {run.name: Path(output_dir) / run.name for run in runs}
    settings = pd.DataFrame([run.columns() for run in runs])
    labels = results.labels(settings, settings)
    history = pd.concat(
        [results.read_history(folder).assign(run=name) for name, folder in folders.items()],
        ignore_index=True,
    )
    loaded = {labels[run.name]: load_model(run, output_dir, saved_models_dir) for run in runs}
    of_test_set = [one for one in conditions if one.split(data.test) is data.test]
    shown = examples.misled(loaded, data, of_test_set, seed=runs[-1].seed)
    drawn = {
        "accuracy": figures.accuracy(trials, settings),
        "training": figures.training(history, labels),
        "examples": figures.examples(shown),
    }
    folder = list(folders.values())[-1] / "figures"
    figures.save(drawn, folder)
    return folder
