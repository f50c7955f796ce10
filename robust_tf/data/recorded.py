"""Recorded test images: those of another dataset, to test models of a dataset with."""

import dataclasses

import numpy as np
import tensorflow_datasets as tfds

from robust_tf.data.classes import check_labels, numbered, places
from robust_tf.data.splits import Data, Split
from robust_tf.data.tfds import name_of_test_split, open_builder, prepare, read_split
from robust_tf.errors import InvalidArgument, Unavailable


def load_test(
    name: str,
    like: Data,
    *,
    data_dir: str | None = None,
    test_examples: int | None = None,
    same_classes: bool = False,
) -> Split:
    """Loads the test images of another dataset, to test models of `like` with.

    Args:
        name: as in `load`.
        like: the dataset that the models were trained for.
        data_dir: as in `load`.
        test_examples: use at most this many, the first; by default all.
        same_classes: its classes are those of `like` in the same order, whatever their names.

    Returns:
        The test split, with the divisor of that of `like` and the labels that its classes have
        there: classes in another order are matched by name, with a warning. Where one of the two
        has only numbers for names they are taken in order, with a warning, but for TFDS's
        corrupted variant of `like`.

    Raises:
        InvalidArgument: if the name is unknown, or the images have another shape than those
            of `like`, or it has other classes, or a label is no class.
        Unavailable: if it is neither prepared nor can be downloaded.
    """
    try:
        builder = open_builder(name, data_dir)
    except InvalidArgument as error:
        raise error.of("eval") from error
    image, label = builder.info.features["image"], builder.info.features["label"]
    if tuple(image.shape) != like.image_shape or label.num_classes != len(like.label_names):
        expected = f"a dataset of {len(like.label_names)} classes and images {like.image_shape}"
        raise InvalidArgument("eval", f"{name} ({label.num_classes}, {image.shape})", expected)
    if problem := prepare(builder, data_dir):
        raise Unavailable("eval", name, f"{problem}; prepare it by `tfds build {name}`")
    test = name_of_test_split(builder)
    if test is None:
        raise InvalidArgument("eval", name, "a TFDS dataset with a split test")
    split = read_split(builder, test, data_dir)
    check_labels(split.labels.numpy(), label.num_classes, argument="eval", value=name)
    corrupted = builder.name == _corrupted(like) and numbered(label.names)
    if not (same_classes or corrupted):
        named = {"argument": "eval", "value": name, "other": f"the dataset {like.name}"}
        order = places(like.label_names, label.names, **named)
        if order is not None:
            split = Split.of_arrays(split.images.numpy(), np.take(order, split.labels.numpy()))
    split = dataclasses.replace(split, divisor=like.test.divisor)
    return split if test_examples is None else split.first(test_examples)


def _corrupted(like: Data) -> str:
    """What TFDS calls the corrupted variant of a dataset."""
    return f"{like.name.partition(':')[0]}_corrupted"


def prepared_corruptions(like: Data, data_dir: str | None = None) -> list[str]:
    """The prepared configurations of TFDS's corrupted variant of a dataset.

    Args:
        like: the dataset, "mnist" or "cifar10".
        data_dir: as in `load`.

    Returns:
        Names of datasets, such as "mnist_corrupted/fog", in TFDS's order.

    Raises:
        InvalidArgument: if TFDS has no such variant.
        Unavailable: if none of them is prepared.
    """
    variant = _corrupted(like)
    try:
        names = [config.name for config in tfds.builder_cls(variant).BUILDER_CONFIGS]
    except (tfds.core.DatasetNotFoundError, ValueError):
        expected = f"no value with dataset={like.name}: TFDS has no {variant}"
        raise InvalidArgument("eval", "corrupted", expected) from None
    configurations = [f"{variant}/{name}" for name in names if name != "identity"]  # no change
    prepared = [name for name in configurations if open_builder(name, data_dir).is_prepared()]
    if not prepared:
        raise Unavailable(
            "eval",
            "corrupted",
            f"no part of {variant} is prepared in {data_dir or tfds.core.constants.DATA_DIR}; "
            f"prepare some where there is a network, such as `tfds build {configurations[0]}`",
        )
    return prepared
