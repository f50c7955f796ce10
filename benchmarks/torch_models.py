"""The paper's two networks in PyTorch, layer by layer those of `robust_tf.models`."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn


def build(name: str) -> nn.Module:
    """The network of that name, from standardised [B, C, H, W] to logits; channels-last."""
    if name == "mnist_cnn":
        layers = [*_convolution(1, 10, 7, 3, 0), nn.MaxPool2d(2), nn.Dropout(0.2)]
        features = 160
    else:
        layers, channels = [], 3
        for filters in (64, 128, 256, 512):
            layers += _convolution(channels, filters, 3, 1, 1)
            layers += _convolution(filters, filters, 3, 1, 1)
            layers += [nn.MaxPool2d(2), nn.Dropout(0.2)]
            channels = filters
        features = 2048
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, 10))
    return model.to(memory_format=torch.channels_last)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, images, labels) -> torch.Tensor:
    """One training step; what Keras logs, loss and correct answers, is computed too."""
    optimizer.zero_grad()
    logits = model(images)
    loss = nn.functional.cross_entropy(logits, labels)
    loss.backward()
    optimizer.step()
    return loss.detach() + 0 * (logits.argmax(1) == labels).sum()


def prepared(
    what: str, name: str, shape: list[int], batch_size: int, steps: int
) -> Callable[[], object]:
    """Steps of "training" or "inference", over and over the batch that `steps.measure` has."""
    model = build(name).train(what == "training")
    rng = np.random.default_rng(0)
    batch = torch.from_numpy(rng.random((batch_size, *shape), np.float32)).permute(0, 3, 1, 2)
    batch = batch.contiguous(memory_format=torch.channels_last)
    target = torch.from_numpy(rng.integers(0, 10, batch_size))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)

    def infer() -> object:
        with torch.inference_mode():
            return [model(batch).numpy() for _ in range(steps)]

    def train() -> object:
        return [step(model, optimizer, batch, target) for _ in range(steps)]

    return train if what == "training" else infer


def _convolution(channels: int, filters: int, kernel: int, stride: int, padding: int) -> list:
    return [
        nn.Conv2d(channels, filters, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(filters),
        nn.ReLU(),
    ]
