"""Correct or retrain? Sets corrections of defective pixels beside training, and both.

Example:
  python -m pipelines.remedies --model=saved_models/<natural> --robust=saved_models/<robust>
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

from pipelines import app, flags
from pipelines.shared_flags import Model, ModelOutputs, Tests, measuring, some
from robust_tf import models, results, saved_models, sensors, settings
from robust_tf.errors import InvalidArgument
from robust_tf.evaluation.suites import conditions_at
from robust_tf.files import file_name
from robust_tf.perturbations import KINDS
from robust_tf.sensors import HOW, THRESHOLD
from robust_tf.settings import Setting, choice, names, number, wholes

if TYPE_CHECKING:
    import pandas as pd

    from robust_tf.evaluation import Condition
    from robust_tf.models.correction import Correction
    from robust_tf.sensors import DefectMap


@dataclasses.dataclass(frozen=True, kw_only=True)
class Remedies:
    """What is compared with the model alone."""

    robust: Annotated[
        str | None,
        Setting(
            "A model that was trained on perturbed images, which --signature, --output and "
            "--input_range also hold for."
        ),
    ] = None
    corrections: Annotated[
        tuple[str, ...],
        names(
            "Corrections in front of the models: median (of 3 x 3 pixels), outlier (pixels far "
            "from their neighbours become the median of these), list (the defects of --defects).",
            models.CORRECTION_KINDS,
        ),
    ] = ()
    threshold: Annotated[
        float,
        number("What differs by more from the median of its 8 neighbours is an outlier.", 0, 1),
    ] = THRESHOLD
    how: Annotated[
        str,
        choice(
            "What a defect of the list becomes, the median or the mean of its good neighbours.",
            HOW,
        ),
    ] = "median"
    pixels: Annotated[
        tuple[int, ...], wholes("How many defective pixels are tested, for each kind of them.")
    ] = (1, 2, 5)
    export: Annotated[
        tuple[str, ...],
        names(
            "Corrections that are exported inside the model of --model.", models.CORRECTION_KINDS
        ),
    ] = ()

    def layers(self, chosen: Iterable[str], defects: DefectMap | None) -> list[Correction]:
        """The corrections of some kinds.

        Raises:
            InvalidArgument: if one needs a list of defects and there is none.
        """
        import numpy as np

        made: dict[str, Callable[[], Correction]] = {
            "median": models.MedianFilter,
            "outlier": lambda: models.OutlierCorrection(self.threshold),
        }
        if defects is not None:
            places = np.stack([defects.rows, defects.columns, defects.channels], axis=1)
            made["list"] = lambda: models.ListCorrection(places.tolist(), self.how)
        elif "list" in chosen:
            raise InvalidArgument("defects", None, "one file, with the defects that list corrects")
        return [made[one]() for one in chosen]


def check(values: flags.Values) -> None:
    """Checks the tests and the places of outputs."""
    settings.make(Tests, {"eval": values.eval} | values.given).kinds(None)
    app.check_outputs(settings.make(ModelOutputs, values.given))
    settings.make(Model, values.given).check()


def main(values: flags.Values) -> None:
    """Measures the remedies, writes what is found and exports what is asked for."""
    from robust_tf.studies import remedies

    tests = settings.make(Tests, {"eval": values.eval} | values.given)
    asked = settings.make(Remedies, values.given)
    kinds = tests.kinds(None)
    outputs = settings.make(ModelOutputs, values.given)
    device = sensors.Device.read(tests.defects[0]) if len(tests.defects) == 1 else None
    usual = ("median", "outlier") if device is None else ("median", "outlier", "list")
    defects = device.defects if device else None
    layers = asked.layers(asked.corrections or usual, defects)
    exported = asked.layers(asked.export, defects)
    model = settings.make(Model, values.given)
    classifier = model.load()
    robust = None
    if asked.robust:
        robust = dataclasses.replace(model, model=asked.robust).load("robust")
    dataset = app.load_data(values, classifier, [robust])
    levels = [
        (kind, asked.pixels if KINDS[kind].unit == "number of pixels" else KINDS[kind].test_levels)
        for kind in kinds
    ]
    conditions: tuple[Condition, ...] = (
        *conditions_at(levels, values.channel_blur, tests.bits),
        *tests.other_images(dataset, values.data_dir, values.test_examples, values.same_classes),
    )
    with app.local(outputs) as folders:
        # First: a model that cannot be changed is then seen before the work.
        made = []
        for layer in exported:
            path = classifier.path.resolve()
            name = f"{path.stem if path.suffix else path.parent.name} {layer}"
            if device and isinstance(layer, models.ListCorrection):
                name += device.kind.removeprefix("defects")
            folder = saved_models.export_corrected(
                path,
                folders["saved_models_dir"] / file_name(name),
                layer,
                label_names=dataset.label_names,
                value_range=classifier.input_range,
            )
            made.append(f"{outputs.saved_models_dir}/{file_name(name)}/{folder.name}")
        folder, table, pairs = remedies.write(
            classifier,
            layers,
            dataset,
            conditions,
            robust=robust,
            trials=tests.trials,
            seed=values.seed,
            output_dir=folders["output_dir"],
        )
    _print(table, pairs, app.images_of(dataset))
    print(f"\nresults  {outputs.output_dir}/{folder.name}")
    print(f"figures  {outputs.output_dir}/{folder.name}/figures")
    for place in made:
        print(f"exported {place}")


def _print(table: pd.DataFrame, pairs: pd.DataFrame, images: str) -> None:
    """Prints accuracies, where a correction does as well as training, and times."""
    from robust_tf.studies import remedies

    print(f"{app.heading(f'Accuracy in percent, {images}')}\n{app.IN_BRACKETS}\n")
    shown = table.assign(
        test=[
            results.condition_label(*row) for row in zip(table["test_perturb"], table["test_level"])
        ],
        text=[results.in_percent(row.accuracy, row.low, row.high) for row in table.itertuples()],
    )
    order = [list(dict.fromkeys(shown[name])) for name in ("test", "remedy")]
    wide = shown.pivot_table(index="test", columns="remedy", values="text", aggfunc="first")
    app.print_table(wide.loc[order[0], order[1]].rename_axis(index=None, columns=None))
    said = (
        "McNemar's exact test of remedies on the same images. A difference is shown where p times "
        "the number of tests in its line is below 0.05: of each line, not of all lines together."
    )
    print(f"{app.heading(said)}\n")
    for line in remedies.verdicts(pairs):
        print(app.heading(line).lstrip("\n"))
    print("\nMedian time per image on this CPU, in milliseconds, measured in turn\n")
    taken = table.drop_duplicates("remedy").set_index("remedy").rename_axis(None)
    size = taken["batch_size"].iloc[0]
    taken = taken[["milliseconds", "batch_milliseconds"]].round(4)
    print(taken.set_axis(["alone", f"in a batch of {size:,}"], axis=1).to_string())


def cli(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    groups = {
        "What is compared": [*some(Model), *some(Remedies)],
        **measuring(eval=("all",)),
        "Outputs": some(ModelOutputs),
    }
    app.launch(main, groups, argv, check=check)


if __name__ == "__main__":
    cli()
