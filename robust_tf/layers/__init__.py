"""Keras layers of image preprocessing that do to images what a sensor does.

They are used as Keras's own random layers are, `keras.layers.RandomBrightness` say, and compute
by the ops of `robust_tf.perturbations`. Training strategies and tests do not need them.
"""

from typing import TYPE_CHECKING

from robust_tf.faces import on_use

if TYPE_CHECKING:
    from robust_tf.layers.compositions import Compose, OneOf
    from robust_tf.layers.sensor import (
        DeadPixels,
        GaussianBlur,
        HotPixels,
        SensorNoise,
        StuckPixels,
    )
else:
    __getattr__, __dir__ = on_use(
        __name__,
        {
            "compositions": "Compose OneOf",
            "sensor": "DeadPixels GaussianBlur HotPixels SensorNoise StuckPixels",
        },
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
