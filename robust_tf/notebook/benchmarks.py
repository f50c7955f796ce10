"""How robust a model is, in one call."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf

from robust_tf import data as data_lib
from robust_tf.data import Data
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.evaluation import Condition, foreign, libraries
from robust_tf.evaluation.suites import TRIALS, standard_tests
from robust_tf.notebook.loading import arrays, check_names, class_names, classifier_of, usual_range
from robust_tf.notebook.scorecard import Scorecard
from robust_tf.perturbations import KINDS, all_kinds
from robust_tf.saved_models import Classifier
from robust_tf.studies import robustness


def benchmark(
    model: str | os.PathLike | keras.Model | Classifier | Callable,
    images: Any,
    labels: Any,
    *,
    tests: str | Condition | Iterable[str | Condition] = "all",
    trials: int = TRIALS,
    seed: int = 0,
    value_range: tuple[float, float] | None = None,
    input_range: tuple[float, float] | None = None,
    label_names: Sequence[str] | None = None,
    progress: bool = True,
) -> Scorecard:
    """Tests a model with natural and with perturbed images.

    Args:
        model: a Keras model; a function from a batch of images to scores [B, classes] that
            TensorFlow can trace; a `Classifier` of `load_model`; or the path of a model: an export
            of this package, any SavedModel that takes images, or a `.keras` file. Scores are
            probabilities or logits; a single one is that of the second of two classes.
        images: test images, shape [N, H, W, C] or [N, H, W].
        labels: one per image: whole numbers from 0 on, or texts, the names of the classes.
        tests: kinds of perturbation, "all" or as in "hot,noise", at the levels of the paper; also
            names of other libraries' perturbations ("imagecorruptions:fog"), and conditions such
            as `Perturbation("hot", 3)`. Natural images are always tested.
        trials: passes over the images for each random test.
        seed: the experiment's seed.
        value_range: the values of black and white in the images; by default (0, 255) for whole
            numbers, (0, 1) for floats and bool. Images that are not of bytes are rounded to bytes.
        input_range: the values that the model takes for black and white; by default those of the
            images, or those that a model of this package says itself.
        label_names: the names of the classes in the order of the scores; by default those that a
            model of this package has, or numbers. Of labels that are other texts it is these,
            sorted (as numbers where all are numbers).
        progress: show a progress bar.

    Returns:
        The scorecard.

    Raises:
        InvalidArgument: if an argument is not allowed, or the model does not fit the images.
        Unavailable: if there is no such model, or it raises on the images.

    Examples:
        >>> images = np.zeros((4, 8, 8, 1), np.float32)
        >>> card = benchmark(lambda x: x[:, 0, :2, 0], images, [0, 1, 0, 1], tests="blur",
        ...                  progress=False)
        >>> card.table["mean"].tolist()
        [0.5, 0.5, 0.5, 0.5]
    """
    images, labels = arrays(images, labels)
    values = usual_range(images) if value_range is None else value_range
    classifier = classifier_of(model, values, input_range)
    if images.ndim in (3, 4):
        shape = (*images.shape[1:3], images.shape[3] if images.ndim == 4 else 1)
        classifier = classifier.counted(tf.zeros([2, *shape]))
    known = classifier.metadata.get("label_names")
    names = class_names(labels, classifier.classes, label_names, known)
    if names and classifier.classes:
        check_names(names, classifier.classes)
    data = data_lib.from_arrays(
        images, labels, images[:1], labels[:1], label_names=names, value_range=values
    )
    data = dataclasses.replace(data, test=data.train)
    found = robustness.measure(
        classifier, data, _conditions(tests, data), trials=trials, seed=seed, progress=progress
    )
    return Scorecard(classifier.name, found)


def _conditions(tests: str | Condition | Iterable[str | Condition], data: Data) -> list[Condition]:
    if isinstance(tests, str):
        tests = [one.strip() for one in tests.split(",")]
    asked = list(tests) if isinstance(tests, Iterable) else [tests]
    for one in asked:
        if not isinstance(one, str | Condition):
            expected = "all, kinds, or conditions; [] for natural images alone"
            raise InvalidArgument("tests", one, expected)
    names = [one for one in asked if isinstance(one, str)]
    kinds = [name for name in names if not libraries.is_name(name)]
    for kind in kinds:
        if kind not in ("all", *KINDS):
            others = "".join(f", {library}:…" for library in libraries.LIBRARIES)
            expected = f"all, some of {', '.join(KINDS)}{others}, or conditions"
            raise InvalidArgument("tests", kind, expected)
    try:
        of_libraries = foreign.load_all(filter(libraries.is_name, names), data)
    except (InvalidArgument, Unavailable) as error:
        raise error.of("tests") from error
    found = [
        *standard_tests([*kinds, *(all_kinds() if "all" in kinds else ())]),
        *of_libraries,
        *(one for one in asked if not isinstance(one, str)),
    ]
    return list({one.key: one for one in found}.values())
