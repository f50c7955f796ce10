"""Keras layers of image preprocessing that do to images what a sensor does.

They are used as Keras's own random layers are, `keras.layers.RandomBrightness` say, and compute
by the ops of `robust_tf.perturbations`. Training strategies and tests do not need them. All are
imported at once, so that Keras knows them when it loads a model.
"""

from robust_tf.layers.compositions import Compose, OneOf
from robust_tf.layers.sensor import (
    DeadPixels,
    GaussianBlur,
    HotPixels,
    SensorNoise,
    StuckPixels,
)

__all__ = [
    "Compose",
    "DeadPixels",
    "GaussianBlur",
    "HotPixels",
    "OneOf",
    "SensorNoise",
    "StuckPixels",
]
