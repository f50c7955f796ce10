"""What LiteRT and ONNX files made from a saved classifier are worth: their answers and robustness.

Making them is `saved_models.conversion`'s.
"""

import os
import statistics
import time
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import tensorflow as tf

from robust_tf import results, settings
from robust_tf.data import Data, Split
from robust_tf.errors import InvalidArgument
from robust_tf.evaluation import Condition, Evaluator, Natural, measures
from robust_tf.files import digest, file_name, locked, prepare_directory, writing_to
from robust_tf.results.labelling import training_of
from robust_tf.saved_models import Classifier, classifiers, conversion, matched, runtimes
from robust_tf.saved_models.targets import Target
from robust_tf.studies import robustness
from robust_tf.studies.calibration import Calibration

FILES_COLUMNS = [
    "file",
    "model",
    "training",
    "dataset",
    "data_source",
    "seed",
    "n_examples",
    "format",
    "quantize",
    "io",
    "deviation_floor",
    "calibrate",
    "calibration_examples",
    "bytes",
    "milliseconds",
    "largest_difference",
    "equal",
    "natural",
    "natural_low",
    "natural_high",
    "perturbed",
    "perturbed_low",
    "perturbed_high",
    "worst",
    "worst_low",
    "worst_high",
    "at",
]
# A float file of a larger difference is not what it was made from.
_SAME = 1e-4
# Deviations below it cost int8 what MNIST's natural model loses; see docs/device.md.
SUGGESTED_FLOOR = 0.125
_NATURAL = Calibration()
# Of one image each: calls before the time counts, and calls that count.
_BEFORE, _TIMED = 20, 200


def measure(file: Classifier, original: Classifier, data: Data) -> dict[str, float]:
    """Compares a file with what it was made from, on the natural test images.

    Args:
        file: from `classifiers.load`.
        original: likewise.
        data: the dataset; its test split is used.

    Returns:
        bytes, the file's size; milliseconds, the median time of one image on one thread of
        this CPU; largest_difference of the probabilities; equal, the share of images that get
        the same class.

    Raises:
        InvalidArgument: if one does not fit the images.
    """
    scores = [
        Evaluator(matched(one, data), data.test).scores(Natural()) for one in (file, original)
    ]
    own, other = map(measures.probabilities, scores)
    return {
        "bytes": file.path.stat().st_size,
        "milliseconds": _milliseconds(file, data.test),
        "largest_difference": float(np.abs(own - other).max()),
        "equal": float((own.argmax(axis=1) == other.argmax(axis=1)).mean()),
    }


def _milliseconds(file: Classifier, split: Split) -> float:
    opened = runtimes.open_file(file.path, file.argument, threads=1)
    images = file.inputs(split.images_at(tf.range(1))).numpy()
    assert file.output is not None
    taken = []
    for _ in range(_BEFORE + _TIMED):
        start = time.perf_counter()
        opened.run(file.output, images)
        taken.append(time.perf_counter() - start)
    return 1000 * statistics.median(taken[_BEFORE:])


def write(
    classifier: Classifier,
    data: Data,
    targets: Sequence[Target],
    conditions: Iterable[Condition],
    *,
    calibration: Calibration = _NATURAL,
    trials: int,
    seed: int,
    output_dir: str | os.PathLike,
    progress: bool = True,
) -> tuple[Path, pd.DataFrame, pd.DataFrame]:
    """Makes files of a saved classifier, checks them and tests all as `robustness.write` does.

    A warning says if a file classifies fewer natural images correctly than its interval allows,
    or if a float file answers something else.

    Args:
        classifier: from `classifiers.load`.
        data: the dataset; calibration uses its training split, all else its test split.
        targets: what is made.
        conditions: what all are tested with, at least one that perturbs.
        calibration: the images for int8.
        trials: passes for each random perturbation.
        seed: the experiment's seed.
        output_dir: where the folders of results are made.
        progress: show progress bars.

    Returns:
        The folder, with the files, `files.csv`, and `tests.csv`, which is
        `results.summarize` of all; the first of these tables, columns as in `FILES_COLUMNS`,
        whose first row is the classifier itself; and the trials of all, as of
        `robustness.measure`.

    Raises:
        InvalidArgument: if the classifier or a condition does not fit the images, or a target
            or the calibration not the classifier.
        Unavailable: if a converter fails or is missing, or the folder cannot be written.
    """
    conditions = list(conditions)
    if len(conditions) < 2:
        raise InvalidArgument("eval", "", "at least one test")
    matched(classifier, data)
    of_data = (data.name, data.source, data.train.identity, *data.test.identity, data.label_names)
    identity = digest(classifier.identity, of_data, targets, calibration, seed)
    stem = classifier.name.removesuffix(".keras")
    folder = Path(output_dir) / file_name(f"export {stem} {identity}")
    of_int8: dict[str, object] = {}
    images = None
    if any(target.quantize == "int8" for target in targets):
        images = calibration.images(data.train, seed)
        kinds = ",".join(calibration.calibrate)
        of_int8 = {"calibrate": kinds, "calibration_examples": len(images)}
    with locked(prepare_directory("output_dir", folder)):
        files = []
        for target in targets:
            path = folder / (file_name(f"{stem} {target}") + target.suffix)
            with writing_to("output_dir", output_dir):
                conversion.convert(classifier, path, target, data.image_shape, images)
            files.append(
                classifiers.load(
                    path,
                    input_range=classifier.input_range,
                    same_classes=classifier.same_classes,
                    argument=classifier.argument,
                )
            )
        tables = [
            robustness.write(
                one,
                data,
                conditions,
                trials=trials,
                seed=seed,
                output_dir=output_dir,
                progress=progress,
            )[1]
            for one in (classifier, *files)
        ]
        size = sum(path.stat().st_size for path in _files(classifier.path))
        found: list[dict[str, object]] = [
            {"format": "saved_model", "quantize": "none", "bytes": size}
        ]
        for file, target in zip(files, targets):
            of_target = settings.flatten(target) | (of_int8 if target.quantize == "int8" else {})
            found.append({"file": file.path.name, **of_target, **measure(file, classifier, data)})
        known = {
            "model": classifier.name,
            "training": training_of(classifier),
            "dataset": data.name,
            "data_source": data.source,
            "seed": seed,
            "n_examples": len(data.test),
        }
        rows = [known | own | _accuracies(table) for own, table in zip(found, tables)]
        table = pd.DataFrame(rows).reindex(columns=FILES_COLUMNS)
        trials_of_all = pd.concat(tables, ignore_index=True)
        tests = results.summarize(trials_of_all)
        with writing_to("output_dir", output_dir):
            results.write(table, folder / "files.csv", FILES_COLUMNS)
            results.write(tests, folder / "tests.csv", list(tests))
    for place, target in enumerate(targets, start=1):
        _warn(target, table.iloc[0], table.iloc[place])
    return folder, table, trials_of_all


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]


def _accuracies(trials: pd.DataFrame) -> dict[str, object]:
    profile = results.profile(trials).iloc[0].drop("drop")
    return {name.replace("mean", "perturbed"): value for name, value in profile.items()}


def _warn(target: Target, original: pd.Series, row: pd.Series) -> None:
    """Says if a file is not what a user expects of it."""
    text = None
    if row["natural_high"] < original["natural"]:
        before, now = (results.in_percent(one["natural"]) for one in (original, row))
        help = f"--deviation_floor={SUGGESTED_FLOOR:g} may keep them (docs/device.md)"
        if target.deviation_floor:
            help = "a higher --deviation_floor, or --quantize=float16, may keep them"
        text = f"{now} % of the natural images are right, {before} before; {help}"
    elif not target.deviation_floor and target.quantize == "none":
        difference = row["largest_difference"]
        if difference > _SAME:
            text = (
                f"a probability differs by {difference:.2g}, which float32 does not explain, but "
                "mixed precision before the conversion does"
            )
    if text:
        warnings.warn(f"{row['file']}: {text}", stacklevel=3)
