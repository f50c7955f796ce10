"""What perturbations cost in training: epochs of every strategy beside natural ones."""

import statistics
import time

import pandas as pd

from benchmarks.timing import medians
from robust_tf import models, settings
from robust_tf.data import Split
from robust_tf.perturbations import KINDS, Perturbation
from robust_tf.runs.defaults import default_network
from robust_tf.training import (
    Constant,
    Incremental,
    Natural,
    Ramp,
    Recipe,
    Strategy,
    Training,
    compile_model,
)
from robust_tf.training.callbacks import Throughput
from robust_tf.training.recipes import recipe_of

# Epochs of a timed fit; the first, in which Keras and tf.data start, is not counted.
_EPOCHS = 4


def measure(split: Split, rounds: int, kinds: tuple[str, ...]) -> pd.DataFrame:
    """Times epochs of constant and incremental training, perturbed once and afresh.

    Args:
        split: the training images.
        rounds: timed rounds.
        kinds: kinds of perturbation, each at its default level in training.

    Returns:
        One row per training: setup_s, seconds until it can begin; epoch_s, seconds per epoch;
        ratio, to an epoch of natural training; input_s, seconds that the images of an epoch
        take without a model.
    """
    name = default_network(split.image_shape)
    values = recipe_of(name, "constant", len(split), split.image_shape)
    recipe = settings.make(Recipe, values | {"epochs": _EPOCHS})
    trainings: dict[str, Training] = {}
    setup = {}
    for label, strategy in _variants(kinds):
        start = time.perf_counter()
        training = strategy.prepare(
            split, lambda: models.build(name, split.image_shape, 10), recipe
        )
        setup[label] = time.perf_counter() - start
        compile_model(training.model, recipe, steps_per_epoch=training.steps_per_epoch)
        trainings[label] = training
    epochs = medians({label: lambda t=t: _epoch(t) for label, t in trainings.items()}, rounds)
    inputs = medians({label: lambda t=t: _input(t) for label, t in trainings.items()}, rounds)
    table = pd.DataFrame({"training": list(trainings)})
    table["setup_s"] = table["training"].map(setup)
    table["epoch_s"] = table["training"].map(epochs)
    table["ratio"] = table["epoch_s"] / epochs["natural"]
    table["input_s"] = table["training"].map(inputs)
    table["images_per_s"] = len(split) / table["epoch_s"]
    return table


def _variants(kinds: tuple[str, ...]) -> list[tuple[str, Strategy]]:
    variants: list[tuple[str, Strategy]] = [("natural", Natural())]
    half = Ramp(0.5, 0.5)  # the mean of the ramp, in every epoch
    for kind in kinds:
        perturbation = Perturbation(kind, KINDS[kind].train_level)
        for fresh in (False, True) if perturbation.random else (False,):
            own = {"perturbation": perturbation, "fresh": fresh}
            words = f"{kind}, fresh" if fresh else kind
            variants.append((f"constant {words}", Constant(**own)))
            variants.append((f"incremental {words}", Incremental(**own, ramp=half)))
    return variants


def _epoch(training: Training) -> float:
    history = training.model.fit(
        training.batches,
        epochs=_EPOCHS,
        steps_per_epoch=training.steps_per_epoch,
        callbacks=[Throughput(training.examples)],
        shuffle=False,
        verbose=0,
    ).history
    return statistics.mean(history["seconds"][1:])


def _input(training: Training) -> float:
    start = time.perf_counter()
    batches = sum(1 for _ in training.batches)
    return (time.perf_counter() - start) / batches * training.steps_per_epoch


def goals(setting: str, table: pd.DataFrame) -> list[tuple]:
    """(number, what, goal, figure, whether it is met) of the README's table."""
    rows = []
    for row in table[table["training"] != "natural"].itertuples():
        slow = row.training.startswith("incremental") or row.training.endswith("fresh")
        limit = 1.01 if setting == "cifar10" else 1.15 if slow else 1.05
        what = f"{setting}: epoch of {row.training}, to a natural one"
        rows.append((2, what, limit, row.ratio, row.ratio <= limit))
    return rows
