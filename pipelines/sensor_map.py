"""Maps which defective pixel hurts a classifier: one defect at every position in turn.

Example:
  python -m pipelines.sensor_map --model=saved_models/<run> --defect=hot
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated

from pipelines import app, flags
from pipelines.shared_flags import TEST_DATA, Dataset, Model, Outputs, some
from robust_tf import evaluation, results, settings
from robust_tf.runs.sources import Sources
from robust_tf.sensors import defect_value
from robust_tf.settings import Setting

# How many positions are printed.
_SHOWN = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Defect:
    """What is mapped."""

    defect: Annotated[
        str, Setting("What the pixel shows: hot (1), dead (0), or a value from 0 to 1.")
    ] = "hot"
    baseline: Annotated[
        str | None,
        Setting(
            "Another model, which --signature, --output and --input_range also hold for; its map "
            "is drawn beside, in the same colours."
        ),
    ] = None


def check(values: flags.Values) -> None:
    """Checks the defect."""
    defect_value(values.defect)
    settings.make(Model, values.given).check()


def main(values: flags.Values) -> None:
    """Measures the map and writes it."""
    from robust_tf.studies import sensor_map

    model = settings.make(Model, values.given)
    classifier = model.load()
    baseline = None
    if values.baseline:
        baseline = dataclasses.replace(model, model=values.baseline).load("baseline")
    dataset = app.load_data(values, classifier, [baseline])
    with app.local(settings.make(Outputs, values.given)) as folders:
        folder, positions, summary = sensor_map.write(
            classifier, dataset, values.defect, baseline=baseline, **folders
        )
    places = results.counted(len(positions) // len(summary), "position")
    heading = f"One {values.defect} pixel at each of {places}, {app.images_of(dataset)}, in percent"
    print(f"{app.heading(heading)}\n[95 % interval for other test images]\n")
    shown = summary.set_index("training" if summary["training"].is_unique else "model")[
        [name for name in summary if "_" in name]
    ]
    shown = shown.drop(columns=["data_source", "n_examples"]).rename_axis(None)
    print(shown.map(_with_interval, examples=len(dataset.test)).T.to_string())
    own = positions[positions["model"] == summary["model"].iloc[-1]]
    natural = summary["natural_accuracy"].iloc[-1]
    worst = own[own["accuracy"] < natural].nsmallest(_SHOWN, "accuracy").drop(columns="model")
    worst["accuracy"] = worst["accuracy"].map(lambda one: _with_interval(one, len(dataset.test)))
    percent = ["flipped", "towards_share"]
    worst[percent] = worst[percent].mul(100).round(2)
    print(f"\nThe positions that cost {classifier.name} most\n")
    print(worst.to_string(index=False) if len(worst) else "none costs anything")
    print(f"\npositions  {values.output_dir}/{folder.name}/positions.csv")
    print(f"figure     {values.output_dir}/{folder.name}/figures/sensor-map.png")


def _with_interval(share: float, examples: int) -> str:
    """A share of the test images in percent; that over all positions as of one of them."""
    return results.in_percent(share, *evaluation.measures.interval(share, examples))


def cli(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    groups = {
        "What is mapped": [*some(Model), *some(Defect)],
        "Data": [*some(Dataset), *some(Sources, TEST_DATA)],
        "Outputs": some(Outputs),
    }
    app.launch(main, groups, argv, check=check)


if __name__ == "__main__":
    cli()
