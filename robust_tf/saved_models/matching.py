"""A saved classifier for the images and classes of a dataset: checked, its classes in order.

What a third-party model does not say, its answers to the first test images tell.
"""

import dataclasses
import math
import warnings

import numpy as np
import tensorflow as tf

from robust_tf.data import Data, classes
from robust_tf.errors import Unavailable
from robust_tf.saved_models.classifiers import Classifier

# Usual values of black and white.
_RANGES = ((0.0, 1.0), (0.0, 255.0), (-1.0, 1.0))
# How many test images a third-party model is looked at with.
_FIRST = 256
# What share of them two scores that are nearly equal may change.
_ROUNDING = 0.01


def matched(classifier: Classifier, data: Data) -> Classifier:
    """The classifier with one score for each class of a dataset, in the dataset's order.

    Where the model names its classes, they are compared with the dataset's, unless it was loaded
    with `same_classes`. One score on a dataset of two classes is taken as that of the second: a
    probability p, so that the scores are 1 - p and p, or a logit where the layer that makes
    it says so or else where a score of the first test images is outside [0, 1].

    A warning says if a third-party model classifies the first 256 natural test images far better
    with other values of black and white than with `input_range`, or if it gives other answers
    when it is asked again, since layers that belong to training are on.

    Args:
        classifier: from `classifiers.load`.
        data: the dataset.

    Raises:
        InvalidArgument: if it takes images of another shape or has other classes.
        Unavailable: if it raises on them.
    """
    classifier.check(data)
    classifier = classifier.counted(data.test.images_at(tf.range(1)))
    if classifier.classes == 1 and len(data.label_names) == 2:
        classifier = _two_classes(classifier, data)
    names = classifier.metadata.get("label_names")
    if not classifier.metadata:
        _check_answers(classifier, data)
        _check_range(classifier, data)
    elif names and not classifier.same_classes:
        chosen = {"argument": "dataset", "value": data.name, "other": f"model {classifier.name}"}
        order = classes.places(names, data.label_names, **chosen)
        if order is not None:
            return _reordered(classifier, order, data.label_names)
    return classifier


def _reordered(
    classifier: Classifier, order: list[int], label_names: tuple[str, ...]
) -> Classifier:
    before = classifier.function
    return dataclasses.replace(
        classifier,
        function=lambda images: tf.gather(before(images), order, axis=-1),
        metadata=classifier.metadata | {"label_names": list(label_names)},
        order=tuple(order),
    )


def _two_classes(classifier: Classifier, data: Data) -> Classifier:
    before, logit = classifier.function, classifier.logit
    if logit is None:
        first = classifier.scores(_first(data))
        logit = bool(((first < 0) | (first > 1)).any())

    def function(images: tf.Tensor) -> tf.Tensor:
        second = before(images)
        return tf.concat([tf.zeros_like(second) if logit else 1 - second, second], axis=-1)

    return dataclasses.replace(classifier, function=function, classes=2)


def _first(data: Data) -> tf.Tensor:
    return data.test.images_at(tf.range(min(_FIRST, len(data.test))))


def _check_answers(classifier: Classifier, data: Data) -> None:
    images = _first(data)
    first, second = (classifier.scores(images).argmax(axis=-1) for _ in range(2))
    changed = float((first != second).mean())
    if changed > _ROUNDING:
        warnings.warn(
            f"{classifier.name} classifies {changed:.0%} of {len(first)} natural test images "
            "otherwise when it is asked again: dropout or augmentation may be on in it, as "
            "layers.RandomFlip is where training=False was not said when it was exported",
            stacklevel=3,
        )


def _check_range(classifier: Classifier, data: Data) -> None:
    images = _first(data)
    labels = data.test.labels.numpy()[:_FIRST]

    def right(model: Classifier) -> float:
        scores = model.scores(images).astype(np.float32)
        return float(((scores.argmax(axis=-1) == labels) & np.isfinite(scores).all(axis=-1)).mean())

    # Four standard errors of the difference of two accuracies, whatever these are.
    far = 4 * math.sqrt(0.5 / len(labels))
    own = right(classifier)
    if own + far > 1:
        return
    others = {}
    for ends in _RANGES:
        if ends != classifier.input_range and classifier.takes(ends):
            try:
                others[ends] = right(dataclasses.replace(classifier, input_range=ends))
            except Unavailable:  # a model may check the values of its input
                continue
    best = max(others, key=lambda ends: others[ends], default=None)
    if best is not None and others[best] >= own + far:
        asked, better = ("{:g},{:g}".format(*ends) for ends in (classifier.input_range, best))
        warnings.warn(
            f"{classifier.name} classifies {own:.0%} of {len(labels)} natural test images "
            f"correctly with input_range={asked} and {others[best]:.0%} with {better}: it may be "
            f"made for --input_range={better}",
            stacklevel=3,
        )
