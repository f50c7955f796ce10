"""Conditions, the evaluator and its trials, example images, and the field's measures."""

from typing import TYPE_CHECKING

from robust_tf.faces import on_use

if TYPE_CHECKING:
    from robust_tf.evaluation import examples, foreign, measures
    from robust_tf.evaluation.conditions import (
        Condition,
        InBits,
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
else:
    __getattr__, __dir__ = on_use(
        __name__,
        {
            "conditions": "Condition InBits Natural Recorded condition_key condition_label",
            "evaluator": "NO_ANSWER Evaluator batch_size by_condition evaluate number_of_trials "
            "predicted",
        },
    )

__all__ = [
    "Condition",
    "Evaluator",
    "InBits",
    "NO_ANSWER",
    "Natural",
    "Recorded",
    "batch_size",
    "by_condition",
    "condition_key",
    "condition_label",
    "evaluate",
    "examples",
    "foreign",
    "measures",
    "number_of_trials",
    "predicted",
]
