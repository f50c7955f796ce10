"""Writes one page on a model and the devices that it will run on: accepted or not, and why.

The devices are those of a sensor, or have a number of defective pixels. The exit code is 0 where
they are accepted and 3 where they are not; see docs/certify.md.

Example:
  python -m pipelines.certify --model=saved_models/<run> --sensor=FILE.toml --accept=0.95
"""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Annotated

from pipelines import app, flags
from pipelines.fleet import Verdict
from pipelines.remedies import Remedies
from pipelines.shared_flags import TEST_DATA, Dataset, Model, Outputs, some
from robust_tf import models, settings
from robust_tf.errors import InvalidArgument
from robust_tf.perturbations import Perturbation, mixtures
from robust_tf.results import in_percent
from robust_tf.runs.declaration import Run
from robust_tf.runs.sources import Sources
from robust_tf.sensors import Sensor
from robust_tf.sensors.fleet import Asked
from robust_tf.settings import Setting, ages, names, whole
from robust_tf.studies import certificate, certificate_page
from robust_tf.studies.populations import OfKind, OfSensor, Population


@dataclasses.dataclass(frozen=True, kw_only=True)
class Devices:
    """Which devices there are, and what is looked for."""

    sensor: Annotated[str | None, Setting("A sensor's TOML file.")] = None
    perturb: Annotated[
        str | None,
        Setting(
            "Without a sensor: the kind of defective pixels, or several of which each has one."
        ),
    ] = None
    level: Annotated[
        str | None,
        Setting("With perturb: how many per device; or a range such as 1:5.", default="1"),
    ] = None
    devices: Annotated[int, whole("How many devices are drawn.")] = certificate.Plan.devices
    years: Annotated[
        tuple[float, ...],
        ages("Ages of the devices besides new, for a sensor with a law of growth."),
    ] = certificate.Plan.years
    limit: Annotated[
        tuple[str, ...],
        names("Kinds of defective pixels of which the largest number is looked for."),
    ] = certificate.Plan.limit_kinds
    limit_most: Annotated[int, whole("The largest number that is tried, if there are so many.")] = (
        certificate.Plan.limit_most
    )

    def population(self, image_shape: tuple[int, int, int]) -> Population:
        """The devices, for images of shape (H, W, C).

        Raises:
            InvalidArgument: if neither or both are given, or they do not fit.
            Unavailable: if the sensor's file cannot be read.
        """
        if (self.sensor is None) == (self.perturb is None):
            expected = "a sensor's file, or perturb and level in place of one"
            raise InvalidArgument("sensor", self.sensor, expected)
        if self.sensor is not None:
            if self.level is not None:
                raise InvalidArgument("level", self.level, "no value with sensor")
            return OfSensor(Sensor.read(self.sensor))
        assert self.perturb is not None
        perturbation = mixtures.parse(self.perturb, self.level)
        return OfKind(perturbation or Perturbation(self.perturb, self.level or 1), image_shape)


def main(values: flags.Values) -> None:
    """Measures and writes the page."""
    devices = settings.make(Devices, values.given)
    if values.accept is None:
        raise InvalidArgument("accept", None, "the accuracy that a device must have, such as 0.95")
    plan = certificate.Plan(
        asked=Asked(values.accept, values.accept_share),
        devices=devices.devices,
        years=devices.years,
        limit_kinds=devices.limit,
        limit_most=devices.limit_most,
        corrections=(models.MedianFilter(), models.OutlierCorrection(values.threshold)),
        seed=values.seed,
    )
    devices.population((1, 1, 1))  # sees before a model is loaded whether it is one
    classifier = settings.make(Model, values.given).load()
    dataset = app.load_data(values, classifier)
    population = devices.population(dataset.image_shape)
    with app.local(settings.make(Outputs, values.given)) as folders:
        folder, found = certificate.write(classifier, dataset, population, plan, **folders)
    own = found["fleet"]
    heading = f"{classifier.name} on {plan.devices:,} devices of {population.name}"
    print(f"{app.heading(f'{heading}, {app.images_of(dataset)}, in percent')}\n")
    mean = in_percent(own["mean_accuracy"], own["mean_low"], own["mean_high"])
    low, high = map(in_percent, found["other_images"]["mean"])
    print(f"mean {mean} for other devices, [{low}, {high}] for other test images")
    low = in_percent(own["quantile_low"])
    share = f"{100 * values.accept_share:g} %"
    print(f"{share} quantile of all devices at least {low} (95 % confidence)")
    below = in_percent(own["share_below"], own["share_low"], own["share_high"])
    bound = in_percent(own["share_bound"])
    print(f"below {100 * values.accept:g}: {below} of devices, at most {bound} (95 % confidence)")
    print("accepted" if found["accepted"] else "not accepted")
    if unsure := certificate_page.doubt(found):
        print(app.heading(unsure))
    print(f"\npage  {values.output_dir}/{folder.name}/certificate.html")
    if not found["accepted"]:
        sys.exit(app.NOT_ACCEPTED)


def cli(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    groups = {
        "What is certified": some(Model),
        "Devices": [*some(Devices), *some(Run, ["seed"])],
        "Verdict": some(Verdict, ["accept", "accept_share"]),
        "Remedies": some(Remedies, ["threshold"]),
        "Data": [*some(Dataset), *some(Sources, TEST_DATA)],
        "Outputs": some(Outputs),
    }
    app.launch(main, groups, argv)


if __name__ == "__main__":
    cli()
