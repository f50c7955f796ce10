"""The declaration of a run, carrying one out, and carrying many out."""

from robust_tf.runs.stages import (
    completed_epochs,
    draw,
    folders,
    is_finished,
    load_model,
    test,
    train,
)

__all__ = [
    "completed_epochs",
    "draw",
    "folders",
    "is_finished",
    "load_model",
    "test",
    "train",
]
