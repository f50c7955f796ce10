"""Conditions, the evaluator and its trials, example images, and the field's measures."""

from robust_tf.evaluation import examples, measures
from robust_tf.evaluation.conditions import (
    Condition,
    Natural,
    Recorded,
    condition_key,
    condition_label,
)
from robust_tf.evaluation.evaluator import (
    NO_ANSWER,
    Evaluator,
    batch_size,
    by_condition,
    evaluate,
    number_of_trials,
    predicted,
)

__all__ = [
    "Condition",
    "Evaluator",
    "NO_ANSWER",
    "Natural",
    "Recorded",
    "batch_size",
    "by_condition",
    "condition_key",
    "condition_label",
    "evaluate",
    "examples",
    "measures",
    "number_of_trials",
    "predicted",
]
