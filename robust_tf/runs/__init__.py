"""The declaration of a run, carrying one out, and carrying many out."""

from robust_tf.runs.declaration import RUN_COLUMNS, Run
from robust_tf.runs.defaults import resolve
from robust_tf.runs.stages import (
    completed_epochs,
    draw,
    folders,
    is_finished,
    load_model,
    test,
    train,
    trained_with,
)

__all__ = [
    "RUN_COLUMNS",
    "Run",
    "completed_epochs",
    "draw",
    "folders",
    "is_finished",
    "load_model",
    "resolve",
    "test",
    "train",
    "trained_with",
]
