"""PyTorch's loader over folders of photos, as one would write it; for a process of its own."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image


class Photos(torch.utils.data.Dataset):
    """As `torchvision.datasets.ImageFolder` with `ToTensor`.

    Args:
        folder: that of the classes.
    """

    def __init__(self, folder: str):
        """See the class."""
        self.paths = sorted(Path(folder).glob("*/*.jpg"))

    def __len__(self) -> int:
        """The number of photos."""
        return len(self.paths)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        """A photo [C, H, W] in [0, 1], and its label."""
        with Image.open(self.paths[place]) as image:
            pixels = torch.from_numpy(np.array(image.convert("RGB")))
        label = int(self.paths[place].parent.name.rpartition("_")[2])
        return pixels.permute(2, 0, 1).contiguous().float().div(255), label


def prepared(folder: str, batch_size: int, workers: int) -> Callable[[], None]:
    """A pass over all photos, shuffled, after one in which the workers start.

    Args:
        folder: that of the classes.
        batch_size: photos per batch.
        workers: the loader's processes.
    """
    loader = torch.utils.data.DataLoader(
        Photos(folder),
        batch_size=batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=True,
    )

    def run() -> None:
        for _ in loader:
            pass

    run()
    return run
