"""Measures how any saved classifier holds up under sensor changes.

Example:
  python -m pipelines.evaluate --model=path/to/saved_model --dataset=mnist
"""

from absl import flags

from pipelines import app
from robust_tf.paper import experiments
from robust_tf.studies import robustness

app.define_model_flags()
app.define_data_flags()
app.define_test_flags()


def main() -> None:
    """Runs what the flags say."""
    values = flags.FLAGS
    classifier = app.load_classifier()
    perturb = classifier.metadata.get("training", {}).get("train_perturb", "none")
    kinds = app.kinds_to_test(None if perturb == "none" else perturb)
    conditions = experiments.test_conditions(kinds, bool(values.channel_blur))
    dataset = app.load_data_of(classifier)
    conditions = (*conditions, *app.other_images(dataset))
    with app.outputs() as folders:
        folder, table = robustness.write(
            classifier, dataset, conditions, trials=values.trials, seed=values.seed, **folders
        )
    print(
        f"\nAccuracy of {classifier.name} in percent, mean ± standard deviation over "
        f"{values.trials} trials on {len(dataset.test):,} test images of {dataset.name} "
        f"({dataset.source})\n"
    )
    app.print_accuracies(table)
    print(f"\nresults  {values.output_dir}/{folder.name}")
    print(f"figures  {values.output_dir}/{folder.name}/figures")


if __name__ == "__main__":
    app.launch(main)
