"""The paper's constant training and its trials in PyTorch and NumPy.

A script as one would write it, the peer of `pipelines.run --strategy=constant --perturb=hot`.

Arguments: an .npz file with uint8 images and labels, a directory for the results,
`channels_last` or `contiguous`, and the batch size.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import torch

from benchmarks import torch_models

EPOCHS, TRIALS = 50, 25
TRAIN_PIXELS, TEST_PIXELS = 6, 2


def perturb(images: np.ndarray, kind: str, pixels: int, rng: np.random.Generator) -> np.ndarray:
    """Distinct random pixels of each image become hot, dead or stuck."""
    images = images.copy()
    flat = images.reshape(len(images), -1)
    at = rng.integers(0, flat.shape[1], (len(flat), pixels))
    while (twice := (np.diff(np.sort(at, axis=1), axis=1) == 0).any(axis=1)).any():
        at[twice] = rng.integers(0, flat.shape[1], (twice.sum(), pixels))
    values = {"hot": 1.0, "dead": 0.0, "stuck": rng.random(at.shape, dtype=np.float32)}[kind]
    flat[np.arange(len(flat))[:, np.newaxis], at] = values
    return images


def main(data: str, output: str, memory_format: str, batch_size: str) -> None:
    """Trains, saves, tests and writes the trials."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    layouts = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
    layout = layouts[memory_format]
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    with np.load(data) as arrays:
        train = arrays["train_images"] / np.float32(255)
        test = arrays["test_images"] / np.float32(255)
        train_labels, test_labels = arrays["train_labels"], arrays["test_labels"]

    train = perturb(train, "hot", TRAIN_PIXELS, rng)
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 0)

    def tensor(images: np.ndarray) -> torch.Tensor:
        standardized = torch.from_numpy((images - mean) * scale)
        return standardized.permute(0, 3, 1, 2).contiguous(memory_format=layout)

    model = torch_models.build("mnist_cnn").to(memory_format=layout)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    inputs, targets = tensor(train), torch.from_numpy(train_labels)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(inputs))
        loss = torch.zeros(())
        for index in order.split(int(batch_size)):
            loss += torch_models.step(model, optimizer, inputs[index], targets[index])
        print(f"epoch {epoch + 1}: loss {loss / len(order.split(int(batch_size))):.4f}")
    torch.save(model.state_dict(), folder / "model.pt")

    model.eval()
    with (
        torch.inference_mode(),
        open(folder / "trials.csv", "w", encoding="utf-8", newline="") as file,
    ):
        rows = csv.writer(file)
        rows.writerow(["test_perturb", "trial", "accuracy"])
        for kind in ("natural", "stuck", "dead", "hot"):
            for trial in range(1 if kind == "natural" else TRIALS):
                images = test if kind == "natural" else perturb(test, kind, TEST_PIXELS, rng)
                batches = tensor(images).split(1000)
                predicted = torch.cat([model(batch).argmax(1) for batch in batches]).numpy()
                accuracy = (predicted == test_labels).mean()
                rows.writerow([kind, trial, accuracy])
        print(f"hot: {accuracy:.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
