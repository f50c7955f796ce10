"""Readings of the paper as overrides: what its text and its figures do not have in common."""

from collections.abc import Callable, Mapping
from typing import Any

from robust_tf.training.strategies import counts_pixels

# Settings of a run by name. A function is called with all settings that are known by then.
PRESETS: dict[str, Mapping[str, Any | Callable[[Mapping[str, Any]], Any]]] = {
    # As the text says, which the defaults of all settings are.
    "text": {},
    # As the published figures were made.
    "published": {
        "beta_1": 0.9,
        "channel_blur": True,
        "extra_pixels": lambda known: 1 if counts_pixels(known["perturbation"]) else None,
        "shuffle": False,
        "drop_remainder": True,
        "ramp_start": 0.0,
        # Epoch e from 0 of E has the fraction e/E.
        "ramp_end": lambda known: 1.0 - 1.0 / known["epochs"],
    },
}
# By preset and dataset: how the training images are presented, as arguments of `data.load`.
DATA: dict[str, dict[str, dict[str, Any]]] = {
    "text": {},
    "published": {"mnist": {"divisor": 256, "most_train_examples": 50_000}},
}
