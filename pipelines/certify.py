"""Writes one page on a model and the devices that it will run on: accepted or not, and why.

The devices are those of a sensor, or have a number of defective pixels. The exit code is 0 where
they are accepted and 3 where they are not; see docs/certify.md.

Example:
  python -m pipelines.certify --model=saved_models/<run> --sensor=FILE.toml --accept=0.95
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pipelines import app, flags
from pipelines.fleet import Verdict
from pipelines.remedies import Remedies
from pipelines.shared_flags import TEST_DATA, Dataset, Model, Outputs, some
from robust_tf import models, results, sensors, settings
from robust_tf.errors import InvalidArgument
from robust_tf.perturbations import Mixture, Perturbation, mixtures
from robust_tf.runs.declaration import Run
from robust_tf.runs.sources import Sources
from robust_tf.sensors import Asked
from robust_tf.settings import Setting, ages, names, whole
from robust_tf.studies.plan import Plan

if TYPE_CHECKING:
    from robust_tf.studies.populations import Population


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
    devices: Annotated[int, whole("How many devices are drawn.")] = Plan.devices
    years: Annotated[
        tuple[float, ...],
        ages("Ages of the devices besides new, for a sensor with a law of growth."),
    ] = Plan.years
    limit: Annotated[
        tuple[str, ...],
        names("Kinds of defective pixels of which the largest number is looked for."),
    ] = Plan.limit_kinds
    limit_most: Annotated[int, whole("The largest number that is tried, if there are so many.")] = (
        Plan.limit_most
    )

    def perturbation(self) -> Perturbation | Mixture | None:
        """The defective pixels; None with a sensor.

        Raises:
            InvalidArgument: if neither or both are given.
        """
        if (self.sensor is None) == (self.perturb is None):
            expected = "a sensor's file, or perturb and level in place of one"
            raise InvalidArgument("sensor", self.sensor, expected)
        if self.sensor is not None:
            if self.level is not None:
                raise InvalidArgument("level", self.level, "no value with sensor")
            return None
        assert self.perturb is not None
        mixture = mixtures.parse(self.perturb, self.level)
        return mixture or Perturbation(self.perturb, self.level or 1)

    def population(self, image_shape: tuple[int, int, int]) -> Population:
        """The devices, for images of shape (H, W, C).

        Raises:
            InvalidArgument: as `perturbation`, or if the sensor's file is none.
            Unavailable: if it cannot be read.
        """
        from robust_tf.studies.populations import OfKind, OfSensor

        perturbation = self.perturbation()
        if perturbation is None:
            return OfSensor(sensors.Sensor.read(self.sensor))
        return OfKind(perturbation, image_shape)

    def plan(self, values: flags.Values) -> Plan:
        """What is measured with them, but for corrections."""
        return Plan(
            asked=Asked(values.accept, values.accept_share),
            devices=self.devices,
            years=self.years,
            limit_kinds=self.limit,
            limit_most=self.limit_most,
            seed=values.seed,
        )


def check(values: flags.Values) -> None:
    """Checks the verdict that is asked for, and the devices but for a sensor's file."""
    devices = settings.make(Devices, values.given)
    if values.accept is None:
        raise InvalidArgument("accept", None, "the accuracy that a device must have, such as 0.95")
    devices.plan(values)
    devices.perturbation()
    settings.make(Model, values.given).check()


def main(values: flags.Values) -> None:
    """Measures and writes the page."""
    from robust_tf.studies import certificate, certificate_page

    devices = settings.make(Devices, values.given)
    corrections = (models.MedianFilter(), models.OutlierCorrection(values.threshold))
    plan = dataclasses.replace(devices.plan(values), corrections=corrections)
    devices.population((1, 1, 1))  # sees before a model is loaded whether it is one
    classifier = settings.make(Model, values.given).load()
    dataset = app.load_data(values, classifier)
    population = devices.population(dataset.image_shape)
    with app.local(settings.make(Outputs, values.given)) as folders:
        folder, found = certificate.write(classifier, dataset, population, plan, **folders)
    own = found["fleet"]
    heading = f"{classifier.name} on {plan.devices:,} devices of {population.name}"
    print(f"{app.heading(f'{heading}, {app.images_of(dataset)}, in percent')}\n")
    mean = results.in_percent(own["mean_accuracy"], own["mean_low"], own["mean_high"])
    low, high = map(results.in_percent, found["other_images"]["mean"])
    print(f"mean {mean} for other devices, [{low}, {high}] for other test images")
    low = results.in_percent(own["quantile_low"])
    share = f"{100 * values.accept_share:g} %"
    print(f"{share} quantile of all devices at least {low} (95 % confidence)")
    below = results.in_percent(own["share_below"], own["share_low"], own["share_high"])
    bound = results.in_percent(own["share_bound"])
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
    app.launch(main, groups, argv, check=check)


if __name__ == "__main__":
    cli()
