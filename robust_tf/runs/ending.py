"""What has come of a training: the epoch whose weights count, and whether it led anywhere."""

import math
import warnings

import numpy as np
import pandas as pd

from robust_tf.data import Data
from robust_tf.errors import Unavailable
from robust_tf.evaluation import measures
from robust_tf.runs.declaration import Run

# A loss of so many times that of a guess is of no use, whatever the accuracy.
_WORST_LOSS = 100.0


def check(
    run: Run, data: Data, unanswered: int, natural_accuracy: float, history: pd.DataFrame
) -> None:
    """Warns of a training that has led nowhere.

    Args:
        run: what was trained.
        data: its dataset.
        unanswered: how many test images had scores that are not finite.
        natural_accuracy: of the natural test images.
        history: of the training.

    Raises:
        Unavailable: if the model answers nothing.
    """
    examples = len(data.test)
    if unanswered == examples:
        problem = "no score of the trained model is finite; a lower learning rate may help"
        raise Unavailable("learning_rate", run.recipe.optimizer.learning_rate, problem)
    name, classes = run.label, np.bincount(data.test.labels.numpy())
    if unanswered:
        text = f"scores of {unanswered:,} of {examples:,} natural test images are not finite"
        warnings.warn(f"{name}: {text}; these images count as wrong", stacklevel=3)
    most, loss = classes.max() / examples, kept_epoch(run, history)["loss"]
    advice = "a lower learning rate or more epochs may help"
    if loss > _WORST_LOSS * math.log(max(2, len(data.label_names))):
        text = f"ended with a loss of {loss:.3g}, and {natural_accuracy:.2%}"
    elif measures.interval(natural_accuracy, examples)[0] <= most < 1:
        text = f"ended near chance: {natural_accuracy:.2%}"
        if natural_accuracy > measures.interval(most, examples)[1]:
            text = f"is hard to judge: {natural_accuracy:.2%}"
            advice = "more test images would tell"
    else:
        return
    warnings.warn(
        f"{name}: the training {text} of the {examples:,} natural test images are right (the "
        f"most frequent class alone: {most:.2%}); {advice}",
        stacklevel=3,
    )


def kept_epoch(run: Run, history: pd.DataFrame) -> pd.Series:
    """The epoch whose weights the trained model has."""
    return history.loc[
        history["val_loss"].idxmin() if run.recipe.early_stopping else len(history) - 1
    ]
