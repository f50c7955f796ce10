"""Measures how a saved classifier, a third-party model say, holds up under sensor changes.

Example:
  python -m pipelines.evaluate --model=path/to/saved_model --dataset=mnist
"""

from collections.abc import Sequence

from pipelines import app, flags
from pipelines.shared_flags import Model, Outputs, Tests, measuring, some
from robust_tf import results, settings
from robust_tf.evaluation.suites import standard_tests


def check(values: flags.Values) -> None:
    """Checks the names of tests."""
    settings.make(Tests, values.given).kinds(None)
    settings.make(Model, values.given).check()


def main(values: flags.Values) -> None:
    """Tests the model and writes what is found."""
    from robust_tf.studies import robustness

    tests = settings.make(Tests, values.given)
    classifier = settings.make(Model, values.given).load()
    perturb = classifier.metadata.get("training", {}).get("train_perturb", "none")
    kinds = tests.kinds(None if perturb == "none" else perturb)
    dataset = app.load_data(values, classifier)
    conditions = (
        *standard_tests(kinds, values.channel_blur, tests.bits),
        *tests.other_images(dataset, values.data_dir, values.test_examples, values.same_classes),
    )
    with app.local(settings.make(Outputs, values.given)) as folders:
        folder, table = robustness.write(
            classifier, dataset, conditions, trials=tests.trials, seed=values.seed, **folders
        )
    heading = (
        f"Accuracy of {classifier.name} in percent, mean ± standard deviation over "
        f"{results.counted(tests.trials, 'trial')} on {app.images_of(dataset)}"
    )
    print(f"{app.heading(heading)}\n{app.IN_BRACKETS}\n")
    app.print_accuracies(table)
    print(f"\nresults  {values.output_dir}/{folder.name}")
    print(f"figures  {values.output_dir}/{folder.name}/figures")


def cli(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    groups = {
        "Model": some(Model),
        **measuring(),
    }
    app.launch(main, groups, argv, check=check)


if __name__ == "__main__":
    cli()
