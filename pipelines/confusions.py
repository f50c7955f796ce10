"""Shows which classes a saved classifier takes perturbed images for, and which images go first.

Each kind is tested at the levels of the paper's figures 4, 6 and 8.

Example:
  python -m pipelines.confusions --model=saved_models/<run>
"""

from collections.abc import Sequence

import pandas as pd

from pipelines import app, flags
from pipelines.shared_flags import Dataset, Model, Outputs, Tests, some
from robust_tf import results, settings
from robust_tf.errors import InvalidArgument
from robust_tf.evaluation import measures
from robust_tf.evaluation.suites import conditions_at
from robust_tf.paper.experiments import IMPACT_LEVELS
from robust_tf.perturbations import KINDS
from robust_tf.runs.declaration import Run
from robust_tf.runs.sources import Sources
from robust_tf.studies import confusions

# How many flows between classes are printed of each kind.
_SHOWN = 5


def main(values: flags.Values) -> None:
    """Measures the confusions and writes them."""
    tests = settings.make(Tests, {"eval": values.eval} | values.given)
    kinds = tests.kinds(None)
    if not kinds or tests.asks_for_other_images:
        expected = "kinds of perturbation, which have levels"
        raise InvalidArgument("eval", ",".join(tests.eval), expected)
    levels = ((kind, IMPACT_LEVELS.get(kind, KINDS[kind].test_levels)) for kind in kinds)
    _, *conditions = conditions_at(levels, values.channel_blur)
    classifier = settings.make(Model, values.given).load()
    dataset = app.load_data(values, classifier)
    with app.local(settings.make(Outputs, values.given)) as folders:
        folder, found = confusions.write(
            classifier, dataset, conditions, trials=tests.trials, seed=values.seed, **folders
        )
    print(
        f"\nThe largest flows between classes, {classifier.name}, {app.images_of(dataset)}\n"
        "Share in percent of the class [95 % interval for other test images]\n"
    )
    table = confusions.largest(found.changes, _SHOWN)
    ends = measures.interval(table["share"], table["images"] / table["share"])
    share = list(map(results.in_percent, table["share"], *ends))
    table = table.assign(images=table["images"].round(1), share=share)
    _print(table)
    by_level = ["test_perturb", "test_level"]
    counts = pd.crosstab([found.flips[name] for name in by_level], found.flips["flip"])
    counts = counts.reindex(columns=confusions.FLIPS, fill_value=0).rename_axis(columns=None)
    print("\nImages that become another class for the first time at a level (trial 0)\n")
    _print(counts.reset_index())
    print(f"\nresults  {values.output_dir}/{folder.name}")
    print(f"figures  {values.output_dir}/{folder.name}/figures")


def _print(table: pd.DataFrame) -> None:
    print(table.to_string(index=False, float_format="{:g}".format) if len(table) else "none")


def cli(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    groups = {
        "Model": some(Model),
        "Data": [*some(Dataset), *some(Sources, ["data_dir", "data_source", "test_examples"])],
        "Tests": [*some(Tests, eval=("all",)), *some(Run, ["channel_blur", "seed"])],
        "Outputs": some(Outputs),
    }
    app.launch(main, groups, argv)


if __name__ == "__main__":
    cli()
