"""Shows which classes a saved classifier takes perturbed images for, and which images go first.

Each kind is tested at the levels of the paper's figures 4, 6 and 8.

Example:
  python -m pipelines.confusions --model=saved_models/<run>
"""

from collections.abc import Sequence

from pipelines import app, flags
from pipelines.shared_flags import Dataset, Model, Outputs, Tests, some
from robust_tf import settings
from robust_tf.errors import InvalidArgument
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
        f"\nThe largest flows between classes, {classifier.name}, "
        f"{app.images_of(dataset)}; share in percent of the class\n"
    )
    table = confusions.largest(found.changes, _SHOWN)
    table = table.assign(images=table["images"].round(1), share=table["share"].mul(100).round(2))
    print(table.to_string(index=False, float_format="{:g}".format))
    counts = found.flips.groupby(["test_perturb", "test_level"], sort=False).size()
    print("\nImages that become another class for the first time at a level (trial 0)\n")
    counts = counts.rename("images").reset_index()
    print(counts.to_string(index=False, float_format="{:g}".format))
    print(f"\nresults  {values.output_dir}/{folder.name}")
    print(f"figures  {values.output_dir}/{folder.name}/figures")


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
