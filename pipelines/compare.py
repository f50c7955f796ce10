"""Compares saved classifiers on the same perturbed images, with the field's measures.

A RUN is a run's folder or its name in --output_dir, a SavedModel's directory, or a .keras
file. docs/measures.md defines what is printed.

Example:
  python -m pipelines.compare results/<run> results/<run>
"""

import pandas as pd
from absl import flags

from pipelines import app
from robust_tf import results
from robust_tf.errors import InvalidArgument
from robust_tf.paper import experiments
from robust_tf.saved_models import classifiers
from robust_tf.studies import comparison

_BASELINE = flags.DEFINE_string(
    "baseline",
    None,
    "The RUN that corruption errors are relative to. By default the first natural one, or else "
    "the first.",
)
app.define_data_flags(default="that of the first RUN, or mnist")
app.define_test_flags("all")


def main(runs: list[str]) -> None:
    """Compares the runs as the flags say."""
    values = flags.FLAGS
    if len(runs) < 2:
        raise InvalidArgument("RUN", " ".join(runs) or None, "two runs or more")
    kinds = app.kinds_to_test(None)
    conditions = experiments.test_conditions(kinds, bool(values.channel_blur))
    app.check_outputs()
    paths = [comparison.find(run, values.output_dir) for run in runs]
    asked = None
    if _BASELINE.value:
        asked = comparison.find(_BASELINE.value, values.output_dir)
        if asked not in paths:
            raise InvalidArgument("baseline", _BASELINE.value, f"one of {', '.join(runs)}")
    models = [classifiers.load(path, argument="RUN") for path in paths]
    dataset = app.load_data_of(models[0])
    conditions = (*conditions, *app.other_images(dataset))
    if len(conditions) == 1:
        raise InvalidArgument("eval", "", "at least one test")
    with app.outputs() as folders:
        folder, found = comparison.write(
            models,
            dataset,
            conditions,
            baseline=comparison.baseline(models, asked),
            trials=values.trials,
            seed=values.seed,
            **folders,
        )
    tests = found.tests
    print(
        f"\nAccuracy in percent with its 95 % interval, {len(dataset.test):,} test images of "
        f"{dataset.name} ({dataset.source})\n"
    )
    tests["text"] = [
        f"{100 * row.accuracy:.2f} [{100 * row.low:.2f}, {100 * row.high:.2f}]"
        for row in tests.itertuples()
    ]
    print(_by_test(tests, "model"))
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
    print(f"\nresults  {values.output_dir}/{folder.name}")
    print(f"figures  {values.output_dir}/{folder.name}/figures")


def _number(p_value: float) -> str:
    return f"{p_value:.2g}" if p_value else "< 1e-300"


def _by_test(table: pd.DataFrame, columns: str) -> str:
    """The column `text`, a line a test."""
    conditions = zip(table["test_perturb"], table["test_level"])
    table = table.assign(test=[results.condition_label(*condition) for condition in conditions])
    wide = table.pivot_table(index="test", columns=columns, values="text", aggfunc="first")
    order = list(dict.fromkeys(table["test"])), list(dict.fromkeys(table[columns]))
    return wide.loc[order].rename_axis(index=None, columns=None).to_string()


if __name__ == "__main__":
    app.launch(main, arguments="RUN")
