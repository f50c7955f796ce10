"""Shows which classes a saved classifier takes perturbed images for, and which images go first.

Each kind is tested at the levels of the paper's figures 4, 6 and 8.

Example:
  python -m pipelines.confusions --model=saved_models/<run>
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines import app, flags
from pipelines.shared_flags import Model, Outputs, Tests, measuring, some
from robust_tf import evaluation, results, settings
from robust_tf.errors import InvalidArgument
from robust_tf.evaluation.suites import conditions_at
from robust_tf.paper.experiments import IMPACT_LEVELS
from robust_tf.perturbations import KINDS

if TYPE_CHECKING:
    import pandas as pd

# How many flows between classes are printed of each kind.
_SHOWN = 5


def check(values: flags.Values) -> None:
    """Checks the tests."""
    tests = settings.make(Tests, {"eval": values.eval} | values.given)
    tests.kinds(None)
    if not (tests.eval or tests.defects) or tests.asks_for_other_images:
        raise InvalidArgument("eval", ",".join(tests.eval), "perturbations of the test images")
    settings.make(Model, values.given).check()


def main(values: flags.Values) -> None:
    """Measures the confusions and writes them."""
    from robust_tf.studies import confusions

    tests = settings.make(Tests, {"eval": values.eval} | values.given)
    kinds = tests.kinds(None)
    levels = ((kind, IMPACT_LEVELS.get(kind, KINDS[kind].test_levels)) for kind in kinds)
    _, *conditions = conditions_at(levels, values.channel_blur, tests.bits)
    classifier = settings.make(Model, values.given).load()
    dataset = app.load_data(values, classifier)
    conditions += [*tests.devices(dataset.image_shape), *tests.of_other_libraries(dataset)]
    with app.local(settings.make(Outputs, values.given)) as folders:
        folder, found = confusions.write(
            classifier, dataset, conditions, trials=tests.trials, seed=values.seed, **folders
        )
    heading = f"The largest flows between classes, {classifier.name}, {app.images_of(dataset)}"
    print(app.heading(heading))
    print("Share in percent of the class [95 % interval for other test images]\n")
    table = confusions.largest(found.changes, _SHOWN)
    ends = evaluation.measures.interval(table["share"], table["images"] / table["share"])
    share = list(map(results.in_percent, table["share"], *ends))
    table = table.assign(images=table["images"].round(1), share=share)
    _print(table)
    by_level = ["test_perturb", "test_level"]
    of_flip = {flip: found.flips["flip"] == flip for flip in confusions.FLIPS}
    counts = found.flips[by_level].assign(**of_flip).groupby(by_level, dropna=False).sum()
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
        **measuring(eval=("all",)),
    }
    app.launch(main, groups, argv, check=check)


if __name__ == "__main__":
    cli()
