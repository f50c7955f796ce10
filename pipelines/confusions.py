"""Shows which classes a saved classifier takes perturbed images for, and which images go first.

Each kind is tested at the levels of the paper's figures 4, 6 and 8.

Example:
  python -m pipelines.confusions --model=saved_models/<run>
"""

from absl import flags

from pipelines import app
from robust_tf.errors import InvalidArgument
from robust_tf.paper import experiments
from robust_tf.perturbations import KINDS
from robust_tf.studies import confusions

app.define_model_flags()
app.define_data_flags()
app.define_test_flags("all")

# How many flows between classes are printed of each kind.
_SHOWN = 5


def main() -> None:
    """Runs what the flags say."""
    values = flags.FLAGS
    kinds = app.kinds_to_test(None)
    if not kinds or app.asks_for_other_images():
        expected = "kinds of perturbation, which have levels"
        raise InvalidArgument("eval", ",".join(values.eval), expected)
    levels = (
        (kind, experiments.IMPACT_LEVELS.get(kind, KINDS[kind].test_levels)) for kind in kinds
    )
    _, *conditions = experiments.conditions(levels, bool(values.channel_blur))
    classifier = app.load_classifier()
    dataset = app.load_data_of(classifier)
    with app.outputs() as folders:
        folder, found = confusions.write(
            classifier, dataset, conditions, trials=values.trials, seed=values.seed, **folders
        )
    print(
        f"\nThe largest flows between classes, {classifier.name}, {len(dataset.test):,} test "
        f"images of {dataset.name} ({dataset.source}); share in percent of the class\n"
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


if __name__ == "__main__":
    app.launch(main)
