"""The perturbations, or what comes closest, with other tools as their users write them.

Each factory takes (kind, level) and returns a function of a float32 batch [B, H, W, C],
or None where the tool has no such perturbation. Tools that know only single images get
them one after another, and those that know only uint8 get that, conversion included. They
differ slightly: PyTorch mirrors at the border without the edge, NRTK derives sigma from the
size of the kernel, imagecorruptions has severities, of which it gets 1.
"""

import warnings
from collections.abc import Callable

import numpy as np
from scipy import ndimage

from benchmarks.batches import Perturb, distinct, in_bytes, over, tensor

_PIXELS = {"stuck": None, "dead": 0.0, "hot": 1.0}


def numpy_usual(kind: str, level: float) -> Perturb | None:
    """NumPy as most write it: float64 noise; positions by `choice`, image by image."""
    rng = np.random.default_rng(0)
    if kind == "noise":
        return lambda batch: np.clip(batch + rng.normal(0.0, level, batch.shape), 0.0, 1.0).astype(
            np.float32
        )
    if kind not in _PIXELS:
        return None

    def pixels(batch: np.ndarray) -> np.ndarray:
        out = batch.copy()
        flat = out.reshape(len(batch), -1, batch.shape[-1])
        for image in flat:
            at = rng.choice(len(image), level, replace=False)
            value = _PIXELS[kind]
            image[at] = rng.random((level, image.shape[-1])) if value is None else value
        return out

    return pixels


def numpy_quickest(kind: str, level: float) -> Perturb | None:
    """NumPy as quick as we could write it: float32, in place, whole batches.

    Positions are drawn with replacement, and again for the images that have one twice.
    """
    rng = np.random.default_rng(0)
    if kind == "noise":

        def noise(batch: np.ndarray) -> np.ndarray:
            out = rng.standard_normal(batch.shape, dtype=np.float32)
            out *= np.float32(level)
            out += batch
            return np.clip(out, 0.0, 1.0, out=out)

        return noise
    if kind not in _PIXELS:
        return None

    def pixels(batch: np.ndarray) -> np.ndarray:
        out = batch.copy()
        flat = out.reshape(len(batch), -1, batch.shape[-1])
        at = distinct(rng, len(flat), flat.shape[1], level)
        value = _PIXELS[kind]
        shape = (*at.shape, flat.shape[-1])
        values = rng.random(shape, dtype=np.float32) if value is None else value
        flat[np.arange(len(flat))[:, np.newaxis], at] = values
        return out

    return pixels


def scipy_batch(kind: str, level: float) -> Perturb | None:
    """`scipy.ndimage.gaussian_filter` of the whole batch."""
    if kind != "blur":
        return None
    return lambda batch: ndimage.gaussian_filter(batch, (0, level, level, 0), mode="reflect")


def scipy_image(kind: str, level: float) -> Perturb | None:
    """`scipy.ndimage.gaussian_filter` image by image."""
    if kind != "blur":
        return None
    sigma = (level, level, 0)
    return lambda batch: [ndimage.gaussian_filter(image, sigma, mode="reflect") for image in batch]


def torch(kind: str, level: float) -> Perturb | None:
    """PyTorch on the CPU, whole batches, all threads."""
    import torch

    if kind == "noise":
        return lambda batch: torch.randn(batch.shape).mul_(level).add_(tensor(batch)).clamp_(0, 1)
    if kind == "blur":
        radius = int(4 * level + 0.5)
        weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / level) ** 2)
        weights /= weights.sum()

        def blur(batch: np.ndarray) -> object:
            x = tensor(batch).permute(0, 3, 1, 2).contiguous()
            channels = x.shape[1]
            x = torch.nn.functional.pad(x, [radius] * 4, mode="reflect")
            kernel = weights.expand(channels, 1, 1, -1)
            x = torch.nn.functional.conv2d(x, kernel, groups=channels)
            return torch.nn.functional.conv2d(x, kernel.transpose(2, 3), groups=channels)

        return blur

    def pixels(batch: np.ndarray) -> object:
        out = tensor(batch).clone()
        flat = out.view(len(batch), -1, batch.shape[-1])
        at = torch.rand(flat.shape[:2]).topk(level, dim=1).indices
        shape = (*at.shape, flat.shape[-1])
        value = _PIXELS[kind]
        values = torch.rand(shape) if value is None else torch.full(shape, value)
        flat.scatter_(1, at.unsqueeze(-1).expand(shape), values)
        return out

    return pixels


def kornia(kind: str, level: float) -> Perturb | None:
    """Kornia's augmentations on the CPU, whole batches, all threads."""
    import kornia.augmentation as augmentation

    if kind == "noise":
        perturb = augmentation.RandomGaussianNoise(std=level, p=1.0)
        return lambda batch: perturb(tensor(batch).permute(0, 3, 1, 2)).clamp_(0, 1)
    if kind == "blur":
        side = 2 * int(4 * level + 0.5) + 1
        perturb = augmentation.RandomGaussianBlur((side, side), (level, level), p=1.0)
        return lambda batch: perturb(tensor(batch).permute(0, 3, 1, 2))
    return None  # it erases rectangles only


def albumentations(kind: str, level: float) -> Perturb | None:
    """Albumentations, image by image; pixels as holes of side 1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import albumentations as augment

    if kind == "noise":
        perturb = augment.GaussNoise(std_range=(level, level), p=1.0)
    elif kind == "blur":
        perturb = augment.GaussianBlur(blur_limit=0, sigma_limit=(level, level), p=1.0)
    else:
        fill = "random" if _PIXELS[kind] is None else _PIXELS[kind]
        one = (1, 1)
        perturb = augment.CoarseDropout((level, level), one, one, fill=fill, p=1.0)
    return lambda batch: [perturb(image=image)["image"] for image in batch]


def nrtk(kind: str, level: float) -> Perturb | None:
    """NRTK's photometric perturbers, image by image, uint8."""
    from nrtk.impls.perturb_image.photometric import blur, noise

    if kind == "noise":
        perturb = noise.GaussianNoisePerturber(mean=0.0, var=level**2)
    elif kind == "blur":
        perturb = blur.GaussianBlurPerturber(ksize=2 * int(4 * level + 0.5) + 1)
    else:
        return None  # it draws a share of the pixels, not a number
    return lambda batch: [perturb(image=image)[0] for image in in_bytes(batch)]


def imagecorruptions(kind: str, level: float) -> Perturb | None:
    """imagecorruptions, image by image, uint8; severity 1; images from 32 pixels on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from imagecorruptions import corrupt

    name = {"noise": "gaussian_noise", "blur": "gaussian_blur"}.get(kind)
    if name is None:
        return None
    return lambda batch: [corrupt(image, corruption_name=name) for image in in_bytes(batch)]


PEERS: dict[str, Callable[[str, float], Perturb | None]] = {
    "NumPy, usual": numpy_usual,
    "NumPy, quickest": numpy_quickest,
    "SciPy, whole batch": scipy_batch,
    "SciPy, per image": scipy_image,
    "PyTorch": torch,
    "kornia": kornia,
    "albumentations": albumentations,
    "NRTK": nrtk,
    "imagecorruptions": imagecorruptions,
}


def prepared(
    name: str, kind: str, level: float, shape: list[int], batch_size: int, count: int
) -> Callable[[], None] | None:
    """A peer over some batches of random images; None where it has no such perturbation."""
    return over(PEERS[name](kind, level), shape, batch_size, count)
