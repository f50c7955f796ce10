"""How many defects a device may have: fleets of ever more defects, until one is not accepted."""

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from robust_tf import results
from robust_tf.data import Data
from robust_tf.errors import InvalidArgument
from robust_tf.files import locked, writing_to
from robust_tf.perturbations import KINDS, Perturbation
from robust_tf.saved_models import Classifier, matched
from robust_tf.sensors import Fleet, Sensor
from robust_tf.sensors import fleet as fleets
from robust_tf.studies import fleet

COLUMNS = ["model", "training", "kind", "level", *fleet.SUMMARY_COLUMNS[3:], "limit"]


def write(
    classifier: Classifier,
    data: Data,
    kinds: Sequence[str],
    devices: int,
    output_dir: str | os.PathLike,
    *,
    asked: fleets.Asked,
    sensor: Sensor | None = None,
    seed: int = 0,
    progress: bool = True,
) -> tuple[Path, pd.DataFrame]:
    """Finds how many defects devices may have, by kind, and writes what was measured.

    The limit is the largest level at which a fleet is accepted and beyond which it is not: levels
    are doubled until a fleet is not accepted, then halved in between. Accuracy need not fall with
    every further defect; a fleet beyond the limit that is accepted again is not looked for.

    Args:
        classifier: as in `write`, like `data`, `output_dir` and `progress`.
        data: the dataset.
        kinds: kinds of defective pixels.
        devices: devices per level.
        output_dir: where a folder for the results is made.
        asked: what is asked of a fleet, with an accuracy.
        sensor: of whose photosites so many are defective, instead of whatever its file says of
            defects; by default the pixels of the images are.
        seed: what devices are drawn with.
        progress: show a progress bar.

    Returns:
        The folder, with `limits.csv`; and its table, a row a kind and level that was measured.
        `limit` is that of the kind: 0 where one defect is too many, missing where the model
        has not the accuracy even without.

    Raises:
        InvalidArgument: as `write`; if a level of a kind is no number of pixels; or if there are
            too few devices for any fleet to be accepted.
        Unavailable: if the folder cannot be written.
    """
    if asked.accept is None:
        raise InvalidArgument("accept", None, "the accuracy that the limit is about")
    asked.check_number(devices)
    classifier = matched(classifier, data)
    shape = data.image_shape if sensor is None else (sensor.height, sensor.width, 1)
    identity = (*fleet.identity_of(classifier, data), kinds, devices, seed, asked)
    name = f"{classifier.name} limit {','.join(kinds)}"
    if sensor is not None:
        name, identity = f"{name} {sensor.name}", (*identity, sensor.digest)
    folder = fleet.folder_for(output_dir, name, identity)
    rows: list[dict[str, Any]] = []

    def is_accepted(kind: str, level: int) -> bool:
        drawn = Fleet.drawn(Perturbation(kind, level), shape, seed, devices, sensor)
        found = tester.answers(drawn)
        own = {"kind": kind, "level": level, "seed": seed, **fleet.summary_of(found, drawn, asked)}
        rows.append({**fleet.columns_of(classifier, data), **own})
        return bool(own["accepted"])

    with locked(folder):
        tester = fleet.ClassifierTester(classifier, data, progress)
        limits = {}
        for kind in kinds:
            _, most = KINDS[kind].bounds(*shape[:2])
            limits[kind] = largest(functools.partial(is_accepted, kind), int(most))
        table = pd.DataFrame(rows)
        table["limit"] = table["kind"].map(limits)
        without = fleets.is_below(table["natural_accuracy"], asked.accept, table["n_examples"])
        table["limit"] = table["limit"].mask(without)
        table = table.sort_values(["kind", "level"], kind="stable", ignore_index=True)
        with writing_to("output_dir", output_dir):
            results.write(table, folder / "limits.csv", COLUMNS)
    return folder, table[COLUMNS]


def largest(holds: Callable[[int], bool], most: int) -> int:
    """The level up to which something holds, from 1 to `most`; 0 where it does not hold at 1.

    Args:
        holds: asked of few levels: of 1, 2, 4, … until it does not hold, then in between.
        most: the highest level.

    Returns:
        A level at which it holds; at the next it does not, unless that is beyond `most`.
    """
    low, high = 0, 1
    while high <= most and holds(high):
        low, high = high, min(2 * high, max(most, high + 1))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
