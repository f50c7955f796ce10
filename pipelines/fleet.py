"""Tests a saved classifier on each device of a fleet, each with defects of its own.

The exit code is 3 where the fleet is not accepted; see docs/fleet.md for when it is. A search for
limits is no verdict.

Example:
  python -m pipelines.fleet --model=saved_models/<run> --perturb=hot --level=2 --accept=0.95
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pipelines import app, flags
from pipelines.shared_flags import TEST_DATA, Dataset, Model, Outputs, some
from robust_tf import evaluation, results, sensors, settings
from robust_tf.errors import InvalidArgument
from robust_tf.perturbations import Perturbation, mixtures
from robust_tf.runs.declaration import Run
from robust_tf.runs.sources import Sources
from robust_tf.sensors import NAMED, Asked, kinds_of_defects
from robust_tf.settings import Setting, ages, number, switch

if TYPE_CHECKING:
    import pandas as pd

    from robust_tf.data import Data
    from robust_tf.saved_models import Classifier
    from robust_tf.sensors import Fleet

# How many positions are printed.
_SHOWN = 5
_KINDS = kinds_of_defects()


def _count(text: Any) -> Any:
    return int(text) if isinstance(text, str) and text.isdecimal() else text


@dataclasses.dataclass(frozen=True, kw_only=True)
class Devices:
    """Which devices there are."""

    perturb: Annotated[
        str,
        Setting(
            f"The kind of defective pixels, one of {', '.join(_KINDS)}; or several, separated by "
            "commas, of which each device has one."
        ),
    ] = "hot"
    level: Annotated[
        str | None,
        Setting(
            "The number of defects per device; or a range such as 1:5, of which each device has "
            "a number.",
            default="1",
        ),
    ] = None
    devices: Annotated[
        int | str,
        Setting(
            "How many devices; or all: one defect, at each position in turn.",
            expected="a whole number from 1 on, or all",
            allows=lambda value: value == "all" or (isinstance(value, int) and value > 0),
            parse=_count,
        ),
    ] = 1000
    defects: Annotated[
        list[str] | None,
        Setting(
            "Files with defect maps, one per device, or folders of such files, separated by "
            "commas: a fleet that there is, in place of one that is drawn.",
            list,
            "one file or folder, or more",
            bool,
        ),
    ] = None
    sensor: Annotated[
        str | None,
        Setting("A sensor's TOML file, which devices are drawn of, in place of --perturb."),
    ] = None
    years: Annotated[
        tuple[float, ...],
        ages("The age of the sensor's devices; or several, or a range such as 0:10."),
    ] = (0.0,)

    def fleet(self, image_shape: tuple[int, int, int], seed: int) -> Fleet:
        """The devices, for images of shape (H, W, C)."""
        if self.defects:
            return sensors.Fleet.read(self.defects)
        if self.sensor is not None:
            assert not isinstance(self.devices, str)
            sensor = sensors.Sensor.read(self.sensor)
            if self.years != (0.0,) and sensor.growth is None:
                raise InvalidArgument("years", self.years, "0, as the sensor has no [growth]")
            return sensors.Fleet.of_sensor(sensor, seed, self.devices, *self.years)
        level = self.level or "1"
        if "," in self.perturb and level.isdecimal():
            level = f"{level}:{level}"
        perturbation = mixtures.parse(self.perturb, level)
        if perturbation is None:
            perturbation = Perturbation(self.perturb, level)
        if self.devices == "all":
            return sensors.Fleet.at_every_position(perturbation, image_shape)
        return sensors.Fleet.drawn(perturbation, image_shape, seed, self.devices)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is asked of them."""

    accept: Annotated[
        float | None,
        number(
            "The accuracy that a device must have, a share of the images.",
            above=0,
            at_most=1,
            noun="a share",
            default="no verdict",
        ),
    ] = None
    accept_share: Annotated[
        float,
        number(
            "The share of devices that may have less. It is also the quantile of the devices' "
            "accuracies that is printed.",
            above=0,
            below=1,
        ),
    ] = Asked.accept_share
    find_limit: Annotated[
        bool,
        switch(
            "Find the largest number of defects at which the fleet is accepted, for each kind of "
            "--perturb."
        ),
    ] = False


def main(values: flags.Values) -> None:
    """Measures the fleet and writes what is found."""
    asked = Asked(values.accept, values.accept_share)
    devices = settings.make(Devices, values.given)
    classifier = settings.make(Model, values.given).load()
    dataset = app.load_data(values, classifier)
    question = _limits if values.find_limit else _ages if len(devices.years) > 1 else _fleet
    with app.local(settings.make(Outputs, values.given)) as folders:
        accepted = question(classifier, dataset, devices, values, asked=asked, **folders)
    if asked.accept is not None and not accepted:
        sys.exit(app.NOT_ACCEPTED)


def _fleet(
    classifier: Classifier, dataset: Data, devices: Devices, values: flags.Values, **more: Any
) -> bool:
    """Measures and prints one fleet; returns whether it is accepted."""
    from robust_tf.studies import fleet as study

    fleet = devices.fleet(dataset.image_shape, values.seed)
    seed = values.seed if fleet.sample else None
    folder, table, positions, summary = study.write(classifier, dataset, fleet, seed=seed, **more)
    own = summary.iloc[0]
    of_fleet = f"{results.counted(len(fleet), 'device')} ({fleet.name})"
    heading = f"Accuracy of {classifier.name} in percent on each of {of_fleet}"
    print(f"{app.heading(f'{heading}, {app.images_of(dataset)}')}\n")
    for name, text in _lines(own, table, fleet.sample):
        print(f"{name:16s} {text}")
    worst = positions.nlargest(_SHOWN, "cost")
    worst = worst[worst["cost"] > 0].drop(columns=["model", "fleet"])
    print("\nThe positions whose devices lose most against the others, in percent\n")
    worst[["drop", "drop_of_others", "cost"]] *= 100
    print(worst.round(2).to_string(index=False) if len(worst) else "none costs anything")
    print(f"\nresults  {values.output_dir}/{folder.name}")
    print(f"figure   {values.output_dir}/{folder.name}/figures/fleet.png")
    return bool(own["accepted"])


def _limits(
    classifier: Classifier, dataset: Data, devices: Devices, values: flags.Values, **more: Any
) -> bool:
    """Finds and prints the largest numbers of defects; that is no verdict on a fleet."""
    from robust_tf.studies import limits

    kinds = devices.perturb.split(",")
    sensor = devices.sensor and sensors.Sensor.read(devices.sensor)
    folder, levels = limits.write(
        classifier, dataset, kinds, devices.devices, sensor=sensor, seed=values.seed, **more
    )
    share, accept = 100 * values.accept_share, 100 * values.accept
    most = f"Most defects before more than {share:g} % of devices are below {accept:g} %"
    print(f"{app.heading(f'{most}: {classifier.name}, {app.images_of(dataset)}')}\n")
    _print_limits(levels, share)
    print(f"\nlimits  {values.output_dir}/{folder.name}/limits.csv")
    return True


def _ages(
    classifier: Classifier, dataset: Data, devices: Devices, values: flags.Values, **more: Any
) -> bool:
    """Measures and prints a fleet at several ages; returns whether it is accepted at each."""
    from robust_tf.studies import ageing

    sensor = sensors.Sensor.read(devices.sensor)
    folder, ages = ageing.write(
        classifier, dataset, sensor, devices.years, devices.devices, seed=values.seed, **more
    )
    of_fleet = f"{results.counted(devices.devices, 'device')} of {sensor.kind}"
    heading = f"Accuracy of {classifier.name} in percent on {of_fleet}"
    print(f"{app.heading(f'{heading}, {app.images_of(dataset)}')}\n")
    _print_ages(ages)
    print(f"\nresults  {values.output_dir}/{folder.name}")
    print(f"figure   {values.output_dir}/{folder.name}/figures/ageing.png")
    return bool(ages["accepted"].eq(True).all())


# What does not go together, by the flag that decides.
_WITHOUT = {
    "find_limit": ("level", "defects", "years"),
    "defects": ("perturb", "level", "devices", "sensor", "years"),
    "sensor": ("perturb", "level"),
}


def check(values: flags.Values) -> None:
    """Raises `InvalidArgument` for flags that do not go together."""
    for name, others in _WITHOUT.items():
        for other in values.of(others) if getattr(values, name) else ():
            if other == "perturb" and values.find_limit:
                continue  # which kinds, also of a sensor's photosites
            raise InvalidArgument(other, values.given[other], f"no value with {name}")
    if "years" in values.given and values.sensor is None:
        raise InvalidArgument("years", values.years, "no value without sensor")
    for name in ("sensor", "find_limit"):
        if values.devices == "all" and getattr(values, name):
            raise InvalidArgument("devices", "all", f"a number with {name}")
    kinds = values.perturb.split(",")
    for kind in kinds:
        if kind not in _KINDS:
            raise InvalidArgument("perturb", kind, f"some of {', '.join(_KINDS)}")
    if len(set(kinds)) < len(kinds):
        raise InvalidArgument("perturb", kinds, "different kinds")
    if values.devices == "all":
        if values.perturb not in NAMED:
            raise InvalidArgument("perturb", kinds, f"{' or '.join(NAMED)} with devices=all")
        if values.level not in (None, "1"):
            raise InvalidArgument("level", values.level, "1 with devices=all")
    if values.find_limit:
        if values.accept is None:
            raise InvalidArgument("accept", None, "the accuracy that find_limit is about")
        Asked(values.accept, values.accept_share).check_number(values.devices)
    settings.make(Model, values.given).check()


def _lines(own: pd.Series, devices: pd.DataFrame, sample: bool) -> Iterator[tuple[str, str]]:
    """The distribution over the devices, and what of it is below what is asked for."""
    import pandas as pd

    percent, mean = results.in_percent, own["mean_accuracy"]
    ends = evaluation.measures.interval(mean, own["n_examples"])
    of_images = percent(mean, *ends).partition(" ")[2]
    of_devices = percent(mean, own["mean_low"], own["mean_high"]).partition(" ")[2]
    of_devices = f"{of_devices} for other devices, " if sample and of_devices else ""
    yield "without defects", percent(own["natural_accuracy"])
    yield "mean", f"{percent(mean)}, {of_devices}{of_images} for other test images"
    yield "median", percent(own["median_accuracy"])
    bound = ""
    if own["quantile_rank"] > 0:
        low, rank = percent(own["quantile_low"]), f"{own['quantile_rank']:.0f}"
        bound = f"; that of all devices is at least {low} (95 % confidence; rank {rank})"
    elif sample:
        bound = "; too few devices to bound that of all"
    share = f"{100 * own['accept_share']:g} %"
    yield f"{share} quantile", percent(own["quantile_accuracy"]) + bound
    worst = devices.loc[devices["accuracy"].idxmin()]
    description = f": {worst['description']}" if worst["description"] else ""
    yield "worst", f"{percent(worst['accuracy'])}, device {worst['device']}{description}"
    if pd.isna(own["accept"]):
        return
    ends = (own["share_low"], own["share_high"]) if sample else ()
    bound = f", at most {percent(own['share_bound'])} (95 % confidence)" if sample else ""
    count, below = results.counted(int(own["below"]), "device"), percent(own["share_below"], *ends)
    yield f"below {100 * own['accept']:g}", f"{count}, {below} %{bound}"
    verdict = "accepted" if own["accepted"] else "not accepted"
    yield verdict, f"at most {share} of all devices may be below"


def _print_limits(levels: pd.DataFrame, share: float) -> None:
    """Prints the limits, and the levels that they were found by."""
    import pandas as pd

    for kind, own in levels.groupby("kind", sort=False):
        limit = own["limit"].iloc[0]
        found = "the accuracy is lower without defects" if pd.isna(limit) else f"{limit:.0f}"
        print(f"{kind}: {found}")
    shown = pd.DataFrame(
        {
            "kind": levels["kind"],
            "level": levels["level"],
            "mean": levels["mean_accuracy"].map(results.in_percent),
            f"{share:g} % quantile": [
                f"{results.in_percent(found)}, at least {results.in_percent(low)}"
                for found, low in zip(levels["quantile_accuracy"], levels["quantile_low"])
            ],
            "accepted": levels["accepted"].map({True: "yes", False: "no"}),
        }
    )
    print("\n" + shown.to_string(index=False))


def _print_ages(ages: pd.DataFrame) -> None:
    """Prints a line per age."""
    import pandas as pd

    first, percent = ages.iloc[0], results.in_percent
    shown = {
        "years": ages["years"].map("{:g}".format),
        "defects": ages["defects"].map("{:.4g}".format),
        "mean": [*map(percent, ages["mean_accuracy"], ages["mean_low"], ages["mean_high"])],
        f"{100 * first['accept_share']:g} % quantile": ages["quantile_accuracy"].map(percent),
        "worst": ages["lowest_accuracy"].map(percent),
        "without defects": ages["natural_accuracy"].map(percent),
    }
    if pd.notna(first["accept"]):
        below = map(percent, ages["share_below"], ages["share_low"], ages["share_high"])
        shown[f"below {100 * first['accept']:g}"] = [*below]
        shown["accepted"] = ages["accepted"].map({True: "yes", False: "no"})
    print(pd.DataFrame(shown).to_string(index=False))


def cli(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    groups = {
        "What is tested": some(Model),
        "Devices": [*some(Devices), *some(Run, ["seed"])],
        "Verdict": some(Verdict),
        "Data": [*some(Dataset), *some(Sources, TEST_DATA)],
        "Outputs": some(Outputs),
    }
    app.launch(main, groups, argv, check=check)


if __name__ == "__main__":
    cli()
