"""Strategies, augmentation, recipes, fitting and its backup."""

from robust_tf.training.fit import (
    JIT_COMPILE,
    LEARNING_RATES,
    OPTIMIZERS,
    SCHEDULES,
    Recipe,
    compile_model,
    fit,
)

__all__ = [
    "JIT_COMPILE",
    "LEARNING_RATES",
    "OPTIMIZERS",
    "SCHEDULES",
    "Recipe",
    "compile_model",
    "fit",
]
