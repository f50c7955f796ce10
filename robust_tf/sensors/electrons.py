"""Electrons and digital numbers: EMVA 1288's linear model of a sensor's noise.

Symbols and units are those of the standard (*EMVA Standard 1288, Release 4.0 Linear*, 2021).
Where photosites have filters or defects is not known here.
"""

import tensorflow as tf

from robust_tf.perturbations import photons
from robust_tf.sensors.tables import Noise


def pattern(noise: Noise, words: tf.Tensor) -> tf.Tensor:
    """A device's fixed pattern; for use in compiled functions.

    Args:
        noise: the sensor's.
        words: two uniform words for each photosite, uint32 [2, …].

    Returns:
        float32 tensor of that shape: what each photosite's response is multiplied with, of which
        the deviation is PRNU_1288; and the electrons that it adds, of which it is DSNU_1288.
    """
    normal = photons.quantiles(words)
    gain = tf.maximum(1.0 + 0.01 * noise.PRNU_1288 * normal[0], 0.0)
    return tf.stack([gain, noise.DSNU_1288 * normal[1]])


def digitised(
    light: tf.Tensor,
    words: tf.Tensor,
    pattern: tf.Tensor,
    noise: Noise,
    bits: int,
) -> tf.Tensor:
    """What a sensor reads; for use in compiled functions.

    The charge of a photosite is a Poisson number, whose mean is light and dark current times
    exposure time; it is at most the full well. The dark signal nonuniformity and the normal
    temporal dark noise are added; times the gain, plus the black level, it is rounded and
    limited to so many bits. The black level is subtracted again, and white divides.

    Args:
        light: float32, in [0, 1].
        words: two uniform words for each photosite, uint32 [2, …].
        pattern: of `pattern`, [2, …].
        noise: the sensor's.
        bits: of each number.

    Returns:
        float32 tensor of the shape of `light`, values in [0, 1].
    """
    at_white = noise.at_white(bits)
    means = light * pattern[0] * at_white + noise.dark_current * noise.exposure
    charge = tf.minimum(photons.counts(means, words[0]), noise.full_well)
    electrons = charge + pattern[1]
    if noise.sigma_d:
        electrons += noise.sigma_d * photons.quantiles(words[1])
    read = tf.round(noise.K * electrons + noise.black_level)
    read = tf.clip_by_value(read, 0.0, 2.0**bits - 1.0)
    return tf.clip_by_value((read - noise.black_level) / (noise.K * at_white), 0.0, 1.0)


def rounded(light: tf.Tensor, bits: int) -> tf.Tensor:
    """What a sensor without noise reads."""
    steps = 2.0**bits - 1.0
    return tf.round(light * steps) / steps
