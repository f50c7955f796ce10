"""What a run does: train, export, test, draw; each step itself lives elsewhere.

This is the one place that knows their order and the files of a run's folder.
"""

import contextlib
import functools
import gc
import hashlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import keras
import pandas as pd
import tensorflow as tf

import robust_tf
from robust_tf import machine, models, results, saved_models, settings, training
from robust_tf.data import Data
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.evaluation import Condition, Evaluator, Natural, examples
from robust_tf.files import (
    locked,
    make_way,
    prepare_directory,
    remove,
    rename_folder,
    replacing,
    writing_to,
)
from robust_tf.results import trials as trials_lib
from robust_tf.runs import ending, pretrained
from robust_tf.runs.declaration import RUN_COLUMNS, Run
from robust_tf.training import Backup, Transfer, devices

_BACKUP = "backup"
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
        _remove_backup(folder)  # if it was stopped before that
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
            columns = [*results.HISTORY_COLUMNS]
            columns += results.VALIDATION_COLUMNS if "val_loss" in history else []
            results.write(history, partial / "history.csv", columns)
            results.write(pd.DataFrame([row]), partial / "runs.csv", RUN_COLUMNS)
            rename_folder(partial, folder)
            # Last: without it a run that is stopped here would begin again.
            _remove_backup(folder)
    return folder


def _remove_backup(folder: Path) -> None:
    remove(folder / _BACKUP / _MARK)
    Backup(folder / _BACKUP).remove()


def _learned(data: Data) -> dict[str, str]:
    """By what pictures that have been trained with are known again, wherever they lie."""
    return {"sketch": " ".join(data.train.sketch)} if data.origin else {}


def _fit_and_export(
    run: Run,
    data: Data,
    partial: Path,
    saved_models_dir: Path,
    tensorboard: bool,
    progress: bool,
) -> tuple[dict, pd.DataFrame]:
    """The run as a row of `runs.csv`, and its history."""
    ended = _fit(run, data, partial, saved_models_dir, tensorboard, progress)
    model, history = ended.model, ended.history
    if run.distribute != "none":
        build = functools.partial(_build_model, run, data, partial.parent, saved_models_dir)
        model = devices.on_one_device(model, build)
    # As it will be reloaded, so that its tests share what is traced here.
    evaluator = Evaluator(models.plain(model), data.test, run.seed)
    natural_accuracy = evaluator.accuracy(Natural())
    ending.check(run, data, evaluator.unanswered(), natural_accuracy, history)
    mark = _mark(partial)
    with writing_to("saved_models_dir", saved_models_dir, tf.errors.OpError):
        # Of this training, if it was killed since.
        saved_models.remove_marked(saved_models_dir / run.name, mark)
        saved_model = saved_models.export(
            model,
            saved_models_dir / run.name,
            mark=mark,
            label_names=data.label_names,
            training=run.columns() | dict(data.origin) | _learned(data),
            example=data.test.bytes_at([0])[0].numpy(),
        )
    seconds = history["seconds"].sum()
    row = {
        **run.columns(),
        "train_accuracy": ending.kept_epoch(run, history)["accuracy"],
        "natural_accuracy": natural_accuracy,
        "seconds": seconds,
        "images_per_second": len(history) * ended.examples / seconds,
        "threads": machine.threads(),
        "devices": ended.devices,
        "machine": machine.name(),
        "saved_model": saved_model.relative_to(saved_models_dir).as_posix(),
        "tensorflow_version": tf.__version__,
        "keras_version": keras.__version__,
        "robust_tf_version": robust_tf.__version__,
    }
    return row, history


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


class _Ended(NamedTuple):
    """A training that has ended.

    Attributes:
        model: trained.
        history: as of `training.fit`.
        examples: images per epoch.
        devices: how many shared each batch.
    """

    model: keras.Model
    history: pd.DataFrame
    examples: int
    devices: int


def _fit(
    run: Run,
    data: Data,
    partial: Path,
    saved_models_dir: Path,
    tensorboard: bool,
    progress: bool,
) -> _Ended:
    """Trains the model of a run, or what is left of its training."""
    keep_best = run.recipe.early_stopping > 0
    backup = Backup(partial / _BACKUP, run=run.name, keep_best=keep_best)
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
    ended = _Ended(
        started.model, history, started.examples, started.distribution.num_replicas_in_sync
    )
    # Its batches are in cycles of references, and with them hundreds of megabytes of images.
    del started
    gc.collect()
    return ended


def _build_model(run: Run, data: Data, output_dir: Path, saved_models_dir: Path) -> keras.Model:
    """The model that training starts from."""
    start = None
    if run.starts_from is not None:
        start = load_model(run.starts_from, output_dir, saved_models_dir)
    elif isinstance(run.strategy, Transfer) and run.strategy.pretrained:
        start = pretrained.load(
            run.strategy.pretrained,
            data.image_shape,
            standardize=run.standardize,
            value_range=settings.flatten(run.model).get("value_range"),
        ).model
    return run.build_model(data, start)


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
    folder = saved_model_of(run, output_dir, saved_models_dir)
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
    return saved_models.load(saved_model_of(run, output_dir, saved_models_dir))


def is_handed_on(
    run: Run, output_dir: str | os.PathLike, saved_models_dir: str | os.PathLike
) -> bool:
    """Whether a finished run's SavedModel is not damaged; one that was removed is not missed."""
    try:
        saved_model_of(run, output_dir, saved_models_dir)
    except Unavailable:
        place = Path(saved_models_dir) / run.name
        return not any(place.glob("*"))
    return True


def saved_model_of(
    run: Run, output_dir: str | os.PathLike, saved_models_dir: str | os.PathLike
) -> Path:
    """The folder of a finished run's SavedModel, whole and its own.

    Raises:
        Unavailable: if it is gone, damaged or that of another run.
    """
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
        saved_model = saved_models.find("saved_models_dir", found)
        trained = saved_models.metadata(saved_model).get("training", {})
    except Unavailable as error:
        problem = f"{error.problem.partition('; ')[0]}; {again}"
        raise Unavailable("saved_models_dir", found, problem) from error
    if trained.get("run", run.name) != run.name:
        problem = f"it is the SavedModel of another run, {trained['run']}; {again}"
        raise Unavailable("saved_models_dir", found, problem)
    return saved_model


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
        The folder `figures`, with `accuracy.png`, `training.png`, `examples.png` and the defect map
        of each device.

    Raises:
        Unavailable: if the folder cannot be written.
    """
    folders = {run.name: Path(output_dir) / run.name for run in runs}
    table = pd.DataFrame([run.columns() for run in runs])
    labels = results.labels(table, table)
    history = pd.concat(
        [results.read_history(folder).assign(run=name) for name, folder in folders.items()],
        ignore_index=True,
    )
    loaded = {labels[run.name]: load_model(run, output_dir, saved_models_dir) for run in runs}
    of_test_set = [one for one in conditions if one.split(data.test) is data.test]
    shown = examples.misled(loaded, data, of_test_set, seed=runs[-1].seed)
    drawn = {
        "accuracy": results.figures.accuracy(trials, table),
        "training": results.figures.training(history, labels),
        "examples": results.figures.examples(shown),
        **results.defect_maps.of_devices(of_test_set, data.image_shape),
    }
    folder = list(folders.values())[-1] / "figures"
    results.figures.save(drawn, folder)
    return folder
