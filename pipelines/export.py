"""Makes LiteRT and ONNX files of a saved classifier, and measures what they are worth.

Example:
  python -m pipelines.export --model=saved_models/<run> --quantize=none,int8
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pipelines import app, flags
from pipelines.shared_flags import Model, Outputs, Tests, measuring, some
from robust_tf import settings
from robust_tf.evaluation.suites import standard_tests
from robust_tf.saved_models.targets import QUANTIZE, SUFFIXES, Target, targets
from robust_tf.settings import names, whole
from robust_tf.studies.calibration import Calibration

if TYPE_CHECKING:
    import pandas as pd

_OF_TARGETS = ["io", "deviation_floor"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Files:
    """Which files are made."""

    format: Annotated[
        tuple[str, ...], names("The formats, one or both of litert and onnx.", SUFFIXES)
    ] = ("litert",)
    quantize: Annotated[
        tuple[str, ...],
        names(
            "How numbers are stored and computed with, one file for each: none (float32), "
            "dynamic (weights of 8 bits), float16, int8 (all of 8 bits).",
            QUANTIZE,
        ),
    ] = ("none",)
    calibrate: Annotated[
        tuple[str, ...],
        names(
            "The training images that show int8 which values there are: natural; perturbed, "
            "where each has one of all kinds; or some kinds, of which each has one."
        ),
    ] = ("natural",)
    calibration_examples: Annotated[int, whole("How many of them, drawn from the seed.")] = (
        Calibration.examples
    )


def _targets(values: flags.Values) -> list[Target]:
    asked = settings.make(Files, values.given)
    own = {name: getattr(values, name) for name in _OF_TARGETS}
    return targets(asked.format, asked.quantize, **own)


def _calibration(values: flags.Values) -> Calibration:
    asked = settings.make(Files, values.given)
    return Calibration(calibrate=asked.calibrate, examples=asked.calibration_examples)


def check(values: flags.Values) -> None:
    """Checks what files are asked for, and what they are tested with."""
    _targets(values)
    _calibration(values)
    settings.make(Tests, {"eval": values.eval} | values.given).kinds(None)
    app.check_outputs(settings.make(Outputs, values.given))
    settings.make(Model, values.given).check()


def main(values: flags.Values) -> None:
    """Makes the files, tests them and prints what is found."""
    from robust_tf.studies import device

    tests = settings.make(Tests, {"eval": values.eval} | values.given)
    kinds = tests.kinds(None)
    outputs = settings.make(Outputs, values.given)
    classifier = settings.make(Model, values.given).load()
    dataset = app.load_data(values, classifier)
    conditions = (
        *standard_tests(kinds, values.channel_blur, tests.bits),
        *tests.other_images(dataset, values.data_dir, values.test_examples, values.same_classes),
    )
    with app.local(outputs) as folders:
        folder, files, trials = device.write(
            classifier,
            dataset,
            _targets(values),
            conditions,
            calibration=_calibration(values),
            trials=tests.trials,
            seed=values.seed,
            **folders,
        )
    _print(files, trials, classifier.name, app.images_of(dataset))
    print(f"\nfiles    {outputs.output_dir}/{folder.name}")


def _print(files: pd.DataFrame, trials: pd.DataFrame, name: str, images: str) -> None:
    import pandas as pd

    labels = [
        "SavedModel"
        if row.format == "saved_model"
        else f"{row.format} {row.quantize.replace('none', 'float32')}"
        for row in files.itertuples()
    ]
    shown = pd.DataFrame(
        {
            "kB": [f"{size / 1000:.1f}" for size in files["bytes"]],
            "ms": [_number(one, ".3f") for one in files["milliseconds"]],
            "equal": [_number(100 * one, ".2f") for one in files["equal"]],
            "difference": [_number(one, ".1e") for one in files["largest_difference"]],
        },
        labels,
    )
    print(
        f"\n{name} on {images}\n\n"
        "Size, median time of one image on one thread of this CPU, percent of the images with the\n"
        "SavedModel's answer, and the largest difference of a probability\n"
    )
    print(shown.to_string())
    label = dict(zip(trials["run"].unique(), labels))
    of_files = {"strategy": trials["run"].map(label), "train_perturb": "none"}
    print(f"\nAccuracy in percent, mean ± standard deviation\n{app.IN_BRACKETS}\n")
    app.print_accuracies(trials.assign(**of_files))


def _number(value: float, form: str) -> str:
    return "" if math.isnan(value) else format(value, form)


def cli(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    groups = {
        "What is converted": some(Model),
        "To what": [*some(Files), *some(Target, _OF_TARGETS)],
        **measuring(eval=("all",)),
    }
    app.launch(main, groups, argv, check=check)


if __name__ == "__main__":
    cli()
