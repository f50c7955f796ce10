"""A sensor's chain, filters and later kinds with other tools, as `peers` has the first kinds.

Only `numpy_scipy` does the whole chain; others have its noise alone, or that of one kind.
"""

import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import ndimage

from benchmarks import sensor_chain
from benchmarks.batches import Perturb, distinct, in_bytes, over

# The chain with one device for all images, or one for each; and the filter.
ONE, EACH, MEDIAN = "one device", "a device for each image", "median"


def numpy_scipy(what: str, level: dict | float) -> Perturb | None:
    """NumPy and SciPy on whole batches, as quick as we could write it."""
    if what in (ONE, EACH):
        return sensor_chain.chain(level, each=what == EACH)
    if what == MEDIAN:
        return lambda batch: ndimage.median_filter(batch, (1, 3, 3, 1), mode="reflect")
    rng = np.random.default_rng(0)

    def lines(batch: np.ndarray) -> np.ndarray:
        out = batch.copy()
        along = out if what == "row" else out.transpose(0, 2, 1, 3)
        at = distinct(rng, len(batch), along.shape[1], level)
        along[np.arange(len(batch))[:, np.newaxis], at] = 1.0
        return out

    def warm(batch: np.ndarray) -> np.ndarray:
        out = batch.copy()
        flat = out.reshape(len(batch), -1, batch.shape[-1])
        own = np.arange(len(batch))[:, np.newaxis]
        at = distinct(rng, len(flat), flat.shape[1], level)
        added = flat[own, at] + rng.random((*at.shape, flat.shape[-1]), dtype=np.float32)
        flat[own, at] = np.minimum(added, 1.0)
        return out

    def cluster(batch: np.ndarray) -> np.ndarray:
        out = batch.copy()
        flat = out.reshape(len(batch), -1, batch.shape[-1])
        rows, columns = (np.arange(size, dtype=np.float32) + 0.5 for size in batch.shape[1:3])
        down = rows - rng.random((len(batch), 1), np.float32) * len(rows)
        right = columns - rng.random((len(batch), 1), np.float32) * len(columns)
        apart = (down[:, :, np.newaxis] ** 2 + right[:, np.newaxis] ** 2).reshape(len(batch), -1)
        at = apart.argpartition(level, axis=1)[:, :level]
        flat[np.arange(len(batch))[:, np.newaxis], at] = 1.0
        return out

    def shot(batch: np.ndarray) -> np.ndarray:
        counts = rng.poisson(batch / np.float32(level**2)).astype(np.float32)
        return np.minimum(counts * np.float32(level**2), 1.0)

    def contrast(batch: np.ndarray) -> np.ndarray:
        mean = batch.mean(axis=(1, 2), keepdims=True)
        return np.clip((batch - mean) * np.float32(level) + mean, 0.0, 1.0)

    kinds: dict[str, Perturb] = {
        "warm": warm,
        "row": lines,
        "column": lines,
        "cluster": cluster,
        "shot": shot,
        "exposure": lambda batch: np.clip(batch + np.float32(level), 0.0, 1.0),
        "contrast": contrast,
    }
    return kinds.get(what)


def opencv(what: str, level: float) -> Perturb | None:
    """OpenCV's median, image by image, float32; it repeats the edge."""
    import cv2

    if what != MEDIAN:
        return None
    return lambda batch: [cv2.medianBlur(image, 3) for image in batch]


def pillow(what: str, level: int) -> Perturb | None:
    """Pillow's JPEG files in memory, image by image, uint8."""
    from PIL import Image

    if what != "jpeg":
        return None

    def jpeg(image: np.ndarray) -> np.ndarray:
        with io.BytesIO() as file:
            Image.fromarray(image).save(file, "JPEG", quality=level)
            with Image.open(file) as read:
                return np.asarray(read)

    return lambda batch: [jpeg(image) for image in in_bytes(batch)]


def albumentations(what: str, level: float) -> Perturb | None:
    """Albumentations, image by image, float32; two noises of a camera have its default levels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import albumentations as augment

    none = (0.0, 0.0)
    kinds = {
        "ISONoise": lambda: augment.ISONoise(p=1.0),
        "ShotNoise": lambda: augment.ShotNoise(p=1.0),
        "shot": lambda: augment.ShotNoise((level, level), p=1.0),
        "motion": lambda: augment.MotionBlur((int(level), int(level)), p=1.0),
        "jpeg": lambda: augment.ImageCompression(quality_range=(level, level), p=1.0),
        "exposure": lambda: augment.RandomBrightnessContrast((level, level), none, p=1.0),
        "contrast": lambda: augment.RandomBrightnessContrast(none, (level - 1, level - 1), p=1.0),
    }
    if what not in kinds:
        return None
    perturb = kinds[what]()
    return lambda batch: [perturb(image=image)["image"] for image in batch]


def nrtk(what: str, level: float) -> Perturb | None:
    """NRTK's photometric perturbers, image by image, uint8; exposure there is a factor."""
    from nrtk.impls.perturb_image.photometric import enhance, noise

    kinds = {
        "Gaussian noise": lambda: noise.GaussianNoisePerturber(mean=0.0, var=level["dark"] ** 2),
        "exposure": lambda: enhance.BrightnessPerturber(factor=1 + level),
        "contrast": lambda: enhance.ContrastPerturber(factor=level),
    }
    if what not in kinds:
        return None
    perturb = kinds[what]()
    return lambda batch: [perturb(image=image)[0] for image in in_bytes(batch)]


def imagecorruptions(what: str, level: float) -> Perturb | None:
    """imagecorruptions, image by image, uint8; severity 1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from imagecorruptions import corrupt

    names = {"shot": "shot_noise", "motion": "motion_blur", "exposure": "brightness"}
    names |= {"contrast": "contrast", "jpeg": "jpeg_compression"}
    if what not in names:
        return None
    return lambda batch: [corrupt(image, corruption_name=names[what]) for image in in_bytes(batch)]


PEERS: dict[str, Callable[[str, Any], Perturb | None]] = {
    "NumPy and SciPy": numpy_scipy,
    "OpenCV": opencv,
    "Pillow": pillow,
    "albumentations": albumentations,
    "NRTK": nrtk,
    "imagecorruptions": imagecorruptions,
}


def prepared(
    tool: str, what: str, level: dict | float, shape: list[int], batch_size: int, count: int
) -> Callable[[], None] | None:
    """A peer over some batches of random images; None where it has nothing of the kind."""
    return over(PEERS[tool](what, level), shape, batch_size, count)
