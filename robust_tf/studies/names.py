"""What studies call the classifiers that they are about."""

from collections.abc import Sequence

from robust_tf.results import training_label
from robust_tf.saved_models import Classifier


def names(models: Sequence[Classifier]) -> list[str]:
    """The models' names, or their paths where two have one name."""
    short = [model.name for model in models]
    return short if len(set(short)) == len(short) else [str(model.path) for model in models]


def training_of(model: Classifier) -> str:
    """How a model was trained, in words: "constant hot 6"; "external" for a third-party model."""
    training = model.metadata.get("training", {})
    return training_label(
        training.get("strategy", "external"),
        training.get("train_perturb", "none"),
        training.get("train_level"),
    )
