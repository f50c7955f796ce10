"""Compares saved classifiers on the same perturbed images, with the field's measures.

A RUN is a run's folder or its name in --output_dir, a SavedModel's directory, or a .keras
file. docs/measures.md defines what is printed.

Example:
  python -m pipelines.compare results/<run> results/<run>
"""

import dataclasses
from collections.abc import Sequence
from typing import Annotated

import pandas as pd

from pipelines import app, flags
from pipelines.shared_flags import Dataset, Model, Outputs, Tests, some
from robust_tf import results, settings
from robust_tf.errors import InvalidArgument
from robust_tf.evaluation.suites import standard_tests
from robust_tf.runs.declaration import Run
from robust_tf.runs.sources import Sources
from robust_tf.saved_models import classifiers
from robust_tf.settings import Setting
from robust_tf.studies import comparison


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


def main(values: flags.Values) -> None:
    """Compares the runs as the flags say."""
    runs = values.others
    if len(runs) < 2:
        raise InvalidArgument("RUN", " ".join(runs) or None, "two runs or more")
    tests = settings.make(Tests, {"eval": values.eval} | values.given)
    kinds = tests.kinds(None)
    outputs = settings.make(Outputs, values.given)
    app.check_outputs(outputs)
    paths = [comparison.find(run, outputs.output_dir) for run in runs]
    asked = None
    if values.baseline:
        asked = comparison.find(values.baseline, outputs.output_dir, "baseline")
        if asked not in paths:
            raise InvalidArgument("baseline", values.baseline, f"one of {', '.join(runs)}")
    models = [
        classifiers.load(path, same_classes=values.same_classes, argument="RUN") for path in paths
    ]
    dataset = app.load_data(values, models[0])
    conditions = (
        *standard_tests(kinds, values.channel_blur),
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
    table = found.tests
    print(
        f"\nAccuracy in percent with its 95 % interval, {len(dataset.test):,} test images of "
        f"{dataset.name} ({dataset.source})\n"
    )
    table["text"] = [
        f"{100 * row.accuracy:.2f} [{100 * row.low:.2f}, {100 * row.high:.2f}]"
        for row in table.itertuples()
    ]
    print(_by_test(table, "model"))
    summary = found.summary.set_index("model")
    columns = [name for name in summary if summary[name].dtype == "float64"]
    summary[columns] = summary[columns].mul(100).round(2)
    shown = ["training", *columns]
    print(f"\nOver all perturbed tests, in percent; mCE to {summary['baseline'].iloc[0]}\n")
    print(summary[shown].T.to_string())
    print("\nMcNemar's test: images that only one of two gets right, and p\n")
    pairs = found.pairs
    pairs["pair"] = pairs["first"] + " : " + pairs["second"]
    pairs["text"] = [
        f"{row.only_first} : {row.only_second}, p {_number(row.p_value)}"
        for row in pairs.itertuples()
    ]
    print(_by_test(pairs, "pair"))
    print(f"\nresults  {outputs.output_dir}/{folder.name}")
    print(f"figures  {outputs.output_dir}/{folder.name}/figures")


def _number(p_value: float) -> str:
    return f"{p_value:.2g}" if p_value else "< 1e-300"


def _by_test(table: pd.DataFrame, columns: str) -> str:
    """The column `text`, one line per test."""
    conditions = zip(table["test_perturb"], table["test_level"])
    table = table.assign(test=[results.condition_label(*condition) for condition in conditions])
    wide = table.pivot_table(index="test", columns=columns, values="text", aggfunc="first")
    order = list(dict.fromkeys(table["test"])), list(dict.fromkeys(table[columns]))
    return wide.loc[order].rename_axis(index=None, columns=None).to_string()


def cli(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    groups = {
        "What is compared": [*some(Baseline), *some(Model, ["same_classes"])],
        "Data": [*some(Dataset), *some(Sources, ["data_dir", "data_source", "test_examples"])],
        "Tests": [*some(Tests, eval=("all",)), *some(Run, ["channel_blur", "seed"])],
        "Outputs": some(Outputs),
    }
    app.launch(main, groups, argv, arguments="RUN")


if __name__ == "__main__":
    cli()
