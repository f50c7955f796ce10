"""Compares saved classifiers on the same perturbed images, with the field's measures.

A RUN is a run's folder or its name in --output_dir, a SavedModel's directory, or a .keras,
.tflite or .onnx file. --input_range is that of all third-party models among them.
docs/measures.md defines what is printed.

Example:
  python -m pipelines.compare results/<run> results/<run>
"""

from __future__ import annotations

import dataclasses
import itertools
import string
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

from pipelines import app, flags
from pipelines.shared_flags import Model, Outputs, Tests, measuring, some
from robust_tf import results, saved_models, settings
from robust_tf.errors import InvalidArgument
from robust_tf.evaluation.suites import standard_tests
from robust_tf.settings import Setting

if TYPE_CHECKING:
    import pandas as pd

    from robust_tf.data import Data
    from robust_tf.studies.comparison import Comparison

# No line of a table is longer.
_COLUMNS = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Baseline:
    """What the others are compared with."""

    baseline: Annotated[
        str | None,
        Setting(
            "The RUN that corruption errors are relative to.",
            expected="one of the runs",
            default="the first natural one, or else the first",
        ),
    ] = None


def check(values: flags.Values) -> None:
    """Checks all but what runs there are."""
    if len(values.others) < 2:
        raise InvalidArgument("RUN", " ".join(values.others) or None, "two runs or more")
    settings.make(Tests, {"eval": values.eval} | values.given).kinds(None)
    app.check_outputs(settings.make(Outputs, values.given))


def main(values: flags.Values) -> None:
    """Compares the runs as the flags say."""
    from robust_tf.studies import comparison

    runs = values.others
    tests = settings.make(Tests, {"eval": values.eval} | values.given)
    kinds = tests.kinds(None)
    outputs = settings.make(Outputs, values.given)
    paths = [comparison.find(run, outputs.output_dir) for run in runs]
    if len({path.resolve() for path in paths}) < len(paths):
        raise InvalidArgument("RUN", " ".join(runs), "different models")
    asked = None
    if values.baseline:
        asked = comparison.find(values.baseline, outputs.output_dir, "baseline")
        if asked not in paths:
            raise InvalidArgument("baseline", values.baseline, f"one of {', '.join(runs)}")
    load = saved_models.classifiers.load
    models = [load(path, same_classes=values.same_classes, argument="RUN") for path in paths]
    if values.input_range is not None:
        if all(model.metadata for model in models):
            expected = "no value without a third-party model"
            raise InvalidArgument("input_range", values.input_range, expected)
        # The models of this package say what their input is.
        models = [
            model if model.metadata else model.with_range(values.input_range) for model in models
        ]
    dataset = app.load_data(values, models[0], models[1:])
    conditions = (
        *standard_tests(kinds, values.channel_blur, tests.bits),
        *tests.other_images(dataset, values.data_dir, values.test_examples, values.same_classes),
    )
    if len(conditions) == 1:
        raise InvalidArgument("eval", "", "at least one test")
    with app.local(outputs) as folders:
        folder, found = comparison.write(
            models,
            dataset,
            conditions,
            baseline=comparison.baseline(models, asked),
            trials=tests.trials,
            seed=values.seed,
            **folders,
        )
    _print(found, dataset)
    print(f"\nresults  {outputs.output_dir}/{folder.name}")
    print(f"figures  {outputs.output_dir}/{folder.name}/figures")


def _print(found: Comparison, dataset: Data) -> None:
    """Prints the tables, with a letter per model."""
    import pandas as pd

    summary = found.summary
    letters = dict(zip(summary["model"], _letters(len(summary))))
    print()
    for name, training in zip(summary["model"], summary["training"]):
        print(_wrapped(f"{letters[name]}  {training} ({name})"))
    heading = f"Accuracy in percent with its 95 % interval, {app.images_of(dataset)}"
    print(f"{app.heading(heading)}\n")
    accuracies = found.tests.assign(
        column=found.tests["model"].map(letters),
        text=[
            f"{100 * row.accuracy:.2f} [{100 * row.low:.2f}, {100 * row.high:.2f}]"
            for row in found.tests.itertuples()
        ],
    )
    print(_by_test(accuracies))
    shares = summary.select_dtypes("float64")
    ends = [name for name in shares if name.endswith(("_low", "_high"))]
    columns = {
        name: [
            results.in_percent(row[name], row.get(f"{name}_low"), row.get(f"{name}_high"))
            for _, row in shares.iterrows()
        ]
        for name in shares.columns.difference(ends, sort=False)
    }
    over_all = pd.DataFrame(columns, index=pd.Index(letters.values())).T
    baseline = letters[summary["baseline"].iloc[0]]
    print(f"\nOver all perturbed tests, in percent; mCE to {baseline}\n")
    print(over_all.to_string(line_width=_COLUMNS))
    print("\nMcNemar's test: images that only one of two gets right, and p\n")
    pairs = found.pairs.assign(
        column=found.pairs["first"].map(letters) + " : " + found.pairs["second"].map(letters),
        text=[
            f"{row.only_first} : {row.only_second}, p {_number(row.p_value)}"
            for row in found.pairs.itertuples()
        ],
    )
    print(_by_test(pairs))


def _letters(count: int) -> Iterator[str]:
    """A, B, … Z, AA, AB, …."""
    lengths = itertools.count(1)
    words = (word for n in lengths for word in itertools.product(string.ascii_uppercase, repeat=n))
    return map("".join, itertools.islice(words, count))


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _COLUMNS, subsequent_indent=" " * text.index(" ") + "  ")


def _number(p_value: float) -> str:
    return f"{p_value:.2g}" if p_value else "< 1e-300"


def _by_test(table: pd.DataFrame) -> str:
    """The texts in `text`, one line per test, one column per value of `column`."""
    conditions = zip(table["test_perturb"], table["test_level"])
    table = table.assign(test=[results.condition_label(*condition) for condition in conditions])
    wide = table.pivot_table(index="test", columns="column", values="text", aggfunc="first")
    order = list(dict.fromkeys(table["test"])), list(dict.fromkeys(table["column"]))
    shown = wide.loc[order].rename_axis(index=None, columns=None)
    return shown.to_string(line_width=_COLUMNS)


def cli(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    groups = {
        "What is compared": [*some(Baseline), *some(Model, ["input_range", "same_classes"])],
        **measuring(eval=("all",)),
    }
    app.launch(main, groups, argv, arguments="RUN", check=check)


if __name__ == "__main__":
    cli()
