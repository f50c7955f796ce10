"""A sensor's chain, corrections and the later kinds, beside the tools that come closest.

Peers run in processes of their own; `sensor_peers` says what they do. Columns with `cpu` count
the processor's time, which a busy machine changes less than the clock's.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import tensorflow as tf

from benchmarks import perturbations, sensor_peers
from benchmarks.isolated import Isolated, speeds
from benchmarks.sensor_peers import EACH, MEDIAN, ONE
from robust_tf import machine
from robust_tf.perturbations import KINDS, example_seeds
from robust_tf.sensors import Defects, Noise, Sensor, SensorDevice, correction

SHAPE = (32, 32, 3)
# Of the ar0134 of `sensors.EXAMPLES`, whose data sheet has no nonuniformity, and as many photosites
# as CIFAR-10 has pixels.
NUMBERS = {"K": 0.566, "full_well": 7240.0, "sigma_d": 4.6, "DSNU_1288": 5.0, "PRNU_1288": 1.0}
BITS, HOT = 12, 2.0
SENSOR = Sensor(
    height=SHAPE[0],
    width=SHAPE[1],
    filter="RGGB",
    bits=BITS,
    kinds=(Defects(name="hot", expected=HOT),),
    noise=Noise(**NUMBERS),
)
FOR_PEERS = NUMBERS | {"height": SHAPE[0], "width": SHAPE[1], "bits": BITS, "hot": HOT}
# Images per measurement of the chain and the corrections; of the kinds, which are many.
_IMAGES, _IMAGES_OF_KINDS = 5_000, 1_000
# Tools that go image by image are slow: they get a part of the images.
_WHOLE, _SLOW_PART = "NumPy and SciPy", 10
# The kinds that came after the paper's five.
LATER = ("warm", "row", "column", "cluster", "shot", "motion", "exposure", "jpeg", "contrast")
_LISTED = 5
_FUNCTION, _TF_DATA = "robust_tf, function", "robust_tf, tf.data"
Compared = tuple[list[tuple], list[str]]


def measure(rounds: int, share: int) -> tuple[pd.DataFrame, list[str]]:
    """Times chain, corrections and kinds.

    Args:
        rounds: timed rounds.
        share: the part of the images that is used: 1 of this many.

    Returns:
        One row per setting, tool and what it does: images_per_s and images_per_cpu_s, by the
        clock and by the processor's time; ratio and cpu_ratio, those of the setting's first row
        divided by it; and what was left out, with the reason.
    """
    few = _few(share)
    parts = [chain(rounds, batch_size, share) for batch_size in (100, 1000)[:few]]
    parts += [corrections(rounds, *one, share) for one in ((SHAPE, 100), ((28, 28, 1), 1500))[:few]]
    parts += [kind(rounds, one, share) for one in LATER[:few]]
    columns = ["setting", "tool", "what", "images_per_s", "images_per_cpu_s"]
    columns += ["ratio", "cpu_ratio"]
    rows, left_out = (sum(one, []) for one in zip(*parts))
    return pd.DataFrame(rows, columns=columns), left_out


def _few(share: int) -> int | None:
    """How many of each: one for a quick look, None for all."""
    return 1 if share > 1 else None


def chain(rounds: int, batch_size: int, share: int) -> Compared:
    """The way of an image from the scene to eight bits, with one device and with many."""
    batches = _batches(SHAPE, batch_size, _IMAGES // share)
    ours = {}
    for what, device in ((ONE, 0), (EACH, None)):
        taken = SensorDevice(SENSOR, device)
        ours[_TF_DATA, what] = perturbations.pipeline(batches, _mapped(taken))
        ours[_FUNCTION, what] = perturbations.function(batches, _with_seeds(taken))
    peers = [(_WHOLE, ONE), (_WHOLE, EACH), ("albumentations", "ISONoise")]
    peers += [("albumentations", "ShotNoise"), ("NRTK", "Gaussian noise")]
    dark = FOR_PEERS | {"dark": NUMBERS["sigma_d"] / NUMBERS["full_well"]}
    setting = f"sensor, batches of {batch_size}"
    return compared(setting, batches, ours, peers[: _few(share)], dark, rounds)


def _with_seeds(taken: SensorDevice) -> Callable[[tf.Tensor], tf.Tensor]:
    return lambda images: taken(images, example_seeds([0, 0], tf.range(tf.shape(images)[0])))


def _mapped(taken: SensorDevice) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    return lambda dataset: dataset.map(_with_seeds(taken), num_parallel_calls=machine.cores())


def corrections(rounds: int, shape: tuple[int, int, int], batch_size: int, share: int) -> Compared:
    """Median, outlier and list, in a `tf.function`."""
    batches = _batches(shape, batch_size, _IMAGES // share)
    mask = np.zeros(shape, bool)
    places = np.random.default_rng(0).choice(mask[..., 0].size, _LISTED, replace=False)
    mask.reshape(-1, shape[-1])[places] = True
    good = correction.GoodNeighbours.of(mask)
    how: dict[str, Callable] = {
        MEDIAN: correction.median,
        "outlier": correction.outlier,
        f"list of {_LISTED}": lambda images: correction.by_list(images, good),
    }
    ours = {(_FUNCTION, name): perturbations.function(batches, op) for name, op in how.items()}
    setting = f"corrections, {' x '.join(map(str, shape))}"
    peers = [(_WHOLE, MEDIAN), ("OpenCV", MEDIAN)]
    return compared(setting, batches, ours, peers[: _few(share)], 0, rounds)


def kind(rounds: int, name: str, share: int) -> Compared:
    """One of the later kinds at the highest of its levels in tests."""
    batches = _batches(SHAPE, 100, _IMAGES_OF_KINDS // share)
    level = KINDS[name].test_levels[-1]
    ours = perturbations.ours(batches, name, level)
    named = {(tool, name): run for tool, run in ours.items()}
    peers = [(tool, name) for tool in sensor_peers.PEERS]
    return compared("kinds, batches of 100", batches, named, peers[: _few(share)], level, rounds)


def _batches(shape: tuple[int, int, int], batch_size: int, images: int) -> list[np.ndarray]:
    count = max(1, images // batch_size)
    drawn = np.random.default_rng(0).random((count * batch_size, *shape), np.float32)
    return np.split(drawn, count)


def compared(
    setting: str,
    batches: list[np.ndarray],
    ours: dict[tuple[str, str], tuple],
    peers: list[tuple[str, str]],
    level: dict | float,
    rounds: int,
) -> Compared:
    """Rows of `measure`, and what was left out; `ours` is as of `speeds`."""
    size, shape = batches[0].shape[0], batches[0].shape[1:]
    isolated = {}
    for tool, what in peers:
        count = len(batches) if tool == _WHOLE else max(1, len(batches) // _SLOW_PART)
        process = Isolated("benchmarks.sensor_peers:prepared")
        arguments = [tool, what, level, shape, size, count]
        isolated[tool, what] = process, arguments, count * size
    found, failed = speeds(ours, isolated, rounds)
    for process, *_ in isolated.values():
        process.close()
    first = found[next(iter(ours))]
    rows = [(setting, *name, *speed, *(first / speed)) for name, speed in found.items()]
    return rows, [f"{tool}, {what}, {setting}: {why}" for (tool, what), why in failed.items()]


def goals(table: pd.DataFrame) -> list[tuple]:
    """(number, what, goal, figure, whether it is met) of the README's table."""
    rows = []
    for row in table[table["setting"].str.startswith("sensor")].itertuples():
        if row.tool in (_FUNCTION, _TF_DATA):
            words = f"{row.setting}, {row.what}: images/s of {row.tool}"
            rows.append((11, words, 100_000, row.images_per_s, row.images_per_s >= 100_000))
    return rows
