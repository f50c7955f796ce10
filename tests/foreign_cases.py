"""Configurations of other libraries, and images to perturb with them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from robust_tf.data import Data, Split
from robust_tf.evaluation import foreign, libraries

NOISE = {"__class_fullname__": "GaussNoise", "p": 1.0, "std_range": [0.1, 0.3]}
RAIN = {"__class_fullname__": "RandomRain", "p": 1.0, "rain_type": "drizzle"}
MOVED = {"__class_fullname__": "MotionBlur", "p": 0.5}
INVERTED = {"__class_fullname__": "InvertImg", "p": 1.0}


def composed(*transforms: dict, by: str = "Compose") -> dict:
    return {"__class_fullname__": by, "p": 1.0, "transforms": list(transforms)}


def module(name: str):
    """A module of another library; without it the test is skipped."""
    return libraries.imported(name) if pytest.importorskip(name, exc_type=ImportError) else None


def coloured() -> Data:
    """Thirty images of 32 x 32 pixels in colour, smooth ones, of three classes."""
    coarse = np.random.default_rng(5).random((30, 4, 4, 3), np.float32)
    images = tf.cast(tf.image.resize(coarse, [32, 32], "bicubic") * 200 + 20, tf.uint8).numpy()
    split = Split.of_arrays(images, np.arange(30) % 3)
    return Data("photos", "tfds", split, split, ("a", "b", "c"))


def writer(folder: Path) -> Callable[..., str]:
    """Writes a configuration to a folder, and says how `--eval` names it."""

    def write(name: str, config: object, library: str = "albumentations") -> str:
        path = folder / name
        if library == "albumentations":
            config = {"__version__": "2.0.8", "transform": config}
        dump = json.dumps if path.suffix == ".json" else module("yaml").safe_dump
        path.write_text(dump(config))
        return f"{library}:{path}"

    return write


def perturber(kind: str, **settings) -> dict:
    """NRTK's configuration of a perturber."""
    kind = f"nrtk.impls.perturb_image.{kind}"
    return {"type": kind, kind: settings}


def factory(kind: str, **settings) -> dict:
    kind = f"nrtk.impls.perturb_factory.{kind}"
    return {"type": kind, kind: settings}


def images_of(condition, data: Data, index, seed=3, trial=2) -> np.ndarray:
    """What a model sees, as bytes."""
    seen = condition.images(data.test, tf.constant(index), seed, trial).numpy()
    bytes_ = seen * data.test.divisor
    np.testing.assert_array_equal(bytes_, np.rint(bytes_))
    return bytes_.astype(np.uint8)


def by_hand(data: Data, index, perturb, seed=3, trial=2) -> np.ndarray:
    """The same by a function of an image and a seed."""
    seeds = foreign.image_seeds(seed, trial, index)
    return np.stack([perturb(data.test.images[i].numpy(), int(n)) for i, n in zip(index, seeds)])


@pytest.fixture(scope="module")
def photos() -> Data:
    return coloured()


@pytest.fixture
def written(tmp_path):
    return writer(tmp_path)
