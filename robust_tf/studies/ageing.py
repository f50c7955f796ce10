"""How a fleet ages: the same devices of a sensor at several ages."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import pandas as pd
import seaborn as sns

from robust_tf import results
from robust_tf.data import Data
from robust_tf.errors import InvalidArgument
from robust_tf.files import locked, writing_to
from robust_tf.results import figures
from robust_tf.saved_models import Classifier, matched
from robust_tf.sensors import Fleet, Sensor
from robust_tf.sensors import fleet as fleets
from robust_tf.studies import fleet

COLUMNS = ["model", "training", "sensor", "years", "defects", *fleet.SUMMARY_COLUMNS[3:]]


def measure(
    tester: fleet.ClassifierTester, of_ages: dict[float, Fleet], asked: fleets.Asked
) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Tests a classifier on devices at each age.

    Args:
        tester: the classifier and the images.
        of_ages: the devices, by their age in years.
        asked: what is asked of the fleet.

    Yields:
        For each age years, defects (defective pixels of a device, on average) and the columns
        of `fleets.summarize`; and a row a device, as of `Answers.devices`, with years.
    """
    for years, devices in of_ages.items():
        found = tester.answers(devices)
        defects = float(np.mean([own.pixels for own in devices.maps.values()]))
        summary = fleet.summary_of(found, devices, asked)
        yield {"years": years, "defects": defects, **summary}, found.devices(devices)


def figure(ages: pd.DataFrame) -> matplotlib.figure.Figure:
    """Accuracy by age: the mean, the quantile that is asked about and the worst device.

    Args:
        ages: a row an age, `COLUMNS`.

    Returns:
        The figure, with the accuracy without defects (dotted) and the one that is asked for.
    """
    drawn = figures.blank(5.6, 4.2)
    axes = drawn.subplots()
    share = 100 * ages["accept_share"].iloc[0]
    lines = {
        "mean of the devices": ("mean_accuracy", "-o"),
        f"{share:g} % quantile": ("quantile_accuracy", "--s"),
        "worst device": ("lowest_accuracy", "-.v"),
    }
    for (label, (column, style)), color in zip(lines.items(), sns.color_palette(figures.PALETTE)):
        axes.plot(ages["years"], 100 * ages[column], style, color=color, label=label, markersize=4)
    axes.plot(ages["years"], 100 * ages["natural_accuracy"], ":k", label="without defects")
    if ages["accept"].notna().all():
        accept = 100 * ages["accept"].iloc[0]
        axes.axhline(accept, color="black", linewidth=1, label=f"asked for: {accept:g} %")
    count, training = ages["devices"].iloc[0], figures.short(ages["training"].iloc[0])
    axes.set(xlabel="age [years]", ylabel="accuracy [%]", title=f"{training}, {count:,} devices")
    if len(ages) <= 12:
        axes.set_xticks(ages["years"])
    axes.legend(fontsize=8)
    sns.despine(drawn)
    return drawn


def write(
    classifier: Classifier,
    data: Data,
    sensor: Sensor,
    years: Sequence[float],
    devices: int,
    output_dir: str | os.PathLike,
    *,
    asked: fleets.Asked,
    seed: int = 0,
    progress: bool = True,
) -> tuple[Path, pd.DataFrame]:
    """Measures a saved classifier on the same devices at several ages and writes what is found.

    Args:
        classifier: from `classifiers.load`.
        data: the dataset; its test split is used.
        sensor: what the devices are of, with a law of growth.
        years: their ages.
        devices: their number.
        output_dir: where a folder for the results is made.
        asked: what is asked of the fleet, at each age.
        seed: what devices are drawn with.
        progress: show a progress bar.

    Returns:
        The folder, with `ages.csv`, `devices.csv` (a row a device and age) and
        `figures/ageing.png`; and the table of ages, a row each, `COLUMNS`.

    Raises:
        InvalidArgument: if the classifier or the sensor does not fit the images, or the sensor
            has no law of growth.
        Unavailable: if the folder cannot be written.
    """
    if sensor.growth is None:
        raise InvalidArgument("years", list(years), "0, as the sensor has no [growth]")
    classifier = matched(classifier, data)
    of_ages = {age: Fleet.of_sensor(sensor, seed, devices, age) for age in years}
    digests = tuple(own.digest for own in of_ages.values())
    identity = (*fleet.identity_of(classifier, data), digests, asked)
    folder = fleet.folder_for(output_dir, f"{classifier.name} ages {sensor.name}", identity)
    with locked(folder):
        tester = fleet.ClassifierTester(classifier, data, progress)
        found = [*measure(tester, of_ages, asked)]
        own = {**fleet.columns_of(classifier, data), "sensor": sensor.kind, "seed": seed}
        ages = pd.DataFrame([{**own, **summary} for summary, _ in found]).reindex(columns=COLUMNS)
        tables = [table.assign(years=summary["years"]) for summary, table in found]
        rows = pd.concat(tables, ignore_index=True).assign(model=classifier.name)
        with writing_to("output_dir", output_dir):
            results.write(ages, folder / "ages.csv", COLUMNS)
            columns = [*fleet.DEVICE_COLUMNS[:2], "years", *fleet.DEVICE_COLUMNS[2:]]
            results.write(rows, folder / "devices.csv", columns)
        figures.save({"ageing": figure(ages)}, folder / "figures")
    return folder, ages
