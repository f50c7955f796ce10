"""Strategies, augmentation, recipes, fitting and its backup."""

from robust_tf.training.backup import Backup
from robust_tf.training.batches import Training
from robust_tf.training.fit import JIT_COMPILE, compile_model, fit
from robust_tf.training.optimizers import OPTIMIZERS, SGD, Adam, AdamW
from robust_tf.training.ramp import RAMPS, PerturbedFraction, Ramp
from robust_tf.training.recipes import SCHEDULES, Recipe
from robust_tf.training.strategies import (
    STRATEGIES,
    Constant,
    Incremental,
    Natural,
    Strategy,
    Transfer,
)

__all__ = [
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
