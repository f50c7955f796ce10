"""The declaration of a run, carrying one out, and carrying many out."""

from typing import TYPE_CHECKING

from robust_tf.faces import on_use

if TYPE_CHECKING:
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
else:
    __getattr__, __dir__ = on_use(
        __name__,
        {
            "declaration": "RUN_COLUMNS Run",
            "defaults": "resolve",
            "stages": "completed_epochs draw folders is_finished load_model test train "
            "trained_with",
        },
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
