"""Conditions, the evaluator and its trials, and the field's measures."""

from robust_tf.evaluation.evaluator import (
    Condition,
    Evaluator,
    OtherImages,
    batch_size,
    by_condition,
    evaluate,
    images_of,
    number_of_trials,
)

__all__ = [
    "Condition",
    "Evaluator",
    "OtherImages",
    "batch_size",
    "by_condition",
    "evaluate",
    "images_of",
    "number_of_trials",
]
