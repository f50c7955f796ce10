"""Strategies, augmentation, recipes, fitting and its backup."""

from typing import TYPE_CHECKING

from robust_tf.faces import on_use

if TYPE_CHECKING:
    from robust_tf.training.backup import Backup
    from robust_tf.training.batches import Training
    from robust_tf.training.callbacks import PerturbedFraction
    from robust_tf.training.fitting import compile_model, fit
    from robust_tf.training.optimizers import OPTIMIZERS, SGD, Adam, AdamW
    from robust_tf.training.ramp import RAMPS, Ramp
    from robust_tf.training.recipes import DISTRIBUTIONS, JIT_COMPILE, SCHEDULES, Recipe
    from robust_tf.training.strategies import (
        STRATEGIES,
        Constant,
        Incremental,
        Natural,
        Strategy,
        Transfer,
    )
else:
    __getattr__, __dir__ = on_use(
        __name__,
        {
            "backup": "Backup",
            "batches": "Training",
            "callbacks": "PerturbedFraction",
            "fitting": "compile_model fit",
            "optimizers": "OPTIMIZERS SGD Adam AdamW",
            "ramp": "RAMPS Ramp",
            "recipes": "DISTRIBUTIONS JIT_COMPILE SCHEDULES Recipe",
            "strategies": "STRATEGIES Constant Incremental Natural Strategy Transfer",
        },
    )

__all__ = [
    "DISTRIBUTIONS",
    "JIT_COMPILE",
    "OPTIMIZERS",
    "RAMPS",
    "SCHEDULES",
    "SGD",
    "STRATEGIES",
    "Adam",
    "AdamW",
    "Backup",
    "Constant",
    "Incremental",
    "Natural",
    "PerturbedFraction",
    "Ramp",
    "Recipe",
    "Strategy",
    "Training",
    "Transfer",
    "compile_model",
    "fit",
]
