"""A sensor's chain in NumPy and SciPy, on whole batches, as quick as we could write it."""

import numpy as np
from scipy import ndimage

from benchmarks.batches import Perturb

# Neighbours of which a missing colour is the mean, from Bayer's mosaic: green, red and blue.
_CROSS = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]], np.float32) / 4
_SQUARE = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 4


def chain(numbers: dict, each: bool) -> Perturb:
    """RGGB mosaic, EMVA 1288's noise, hot photosites, bilinear demosaicing, eight bits.

    Args:
        numbers: of the sensor, in the words of its file; hot, the expected number of photosites.
        each: whether each image is taken by a device of its own.
    """
    rng = np.random.default_rng(0)
    size = numbers["height"], numbers["width"]
    red, blue = np.zeros((2, *size), bool)
    red[::2, ::2] = blue[1::2, 1::2] = True
    colours = [(red, _SQUARE), (~(red | blue), _CROSS), (blue, _SQUARE)]

    def device(devices: int) -> tuple[np.ndarray, ...]:
        """Which photosites are hot, gains and offsets, [devices, H, W]."""
        shape = devices, *size
        hot = np.zeros((devices, red.size), bool)
        count = rng.poisson(numbers["hot"], devices)
        at = rng.integers(0, red.size, count.sum())
        hot[np.repeat(np.arange(devices), count), at] = True
        normal = rng.standard_normal((2, *shape), np.float32)
        gain = np.maximum(1.0 + np.float32(0.01 * numbers["PRNU_1288"]) * normal[0], 0.0)
        return hot.reshape(shape), gain, np.float32(numbers["DSNU_1288"]) * normal[1]

    common = device(1)
    full_well, gain_of_all = (np.float32(numbers[name]) for name in ("full_well", "K"))
    highest = np.float32(2 ** numbers["bits"] - 1)
    white = min(full_well, highest / gain_of_all)

    def take(batch: np.ndarray) -> np.ndarray:
        hot, gain, offset = device(len(batch)) if each else common
        light = np.where(red, batch[..., 0], np.where(blue, batch[..., 2], batch[..., 1]))
        charge = rng.poisson(light * gain * white).astype(np.float32)
        dark = rng.standard_normal(light.shape, np.float32) * np.float32(numbers["sigma_d"])
        electrons = np.minimum(charge, full_well) + offset + dark
        read = np.clip(np.round(electrons * gain_of_all), 0.0, highest)
        read = np.where(hot, np.float32(1), np.minimum(read / (gain_of_all * white), 1.0))
        image = [
            ndimage.convolve(read * mask, kernel[np.newaxis], mode="mirror")
            for mask, kernel in colours
        ]
        return np.round(np.stack(image, axis=-1) * 255) / np.float32(255)

    return take
