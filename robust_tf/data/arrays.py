"""Datasets of arrays: images and labels that are in memory already."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from robust_tf.data.classes import check_labels, in_order, listed
from robust_tf.data.names import TEST_FRACTION
from robust_tf.data.pictures import Pictures
from robust_tf.data.splits import Data, Split
from robust_tf.data.splitting import UNDRAWN, stratified
from robust_tf.errors import InvalidArgument, one_line


def from_arrays(
    images: Any,
    labels: Any,
    test_images: Any = None,
    test_labels: Any = None,
    *,
    label_names: Sequence[str] | None = None,
    value_range: tuple[float, float] | None = None,
    test_fraction: float | None = None,
    seed: int | None = None,
    name: str = "arrays",
) -> Data:
    """A dataset of images and labels in memory.

    Args:
        images: whole numbers from 0 to 255, shape [N, H, W, C] or, for one channel, [N, H, W].
        labels: one per image, shape [N] or [N, 1]: whole numbers, the places of the classes from
            0 on, or texts, their names.
        test_images: the test split; by default a share of each class is drawn for it.
        test_labels: its labels.
        label_names: the names of the classes, in order. By default the texts of the labels,
            sorted (as numbers where all are numbers), or the numbers 0, 1, 2, ….
        value_range: the values of black and white in images of other numbers, such as (0, 1);
            they become bytes, to the nearest.
        test_fraction: share of each class for testing, above 0 and at most 1; by default 0.2.
        seed: decides which images these are; by default 0.
        name: what tables call the dataset.

    Returns:
        The dataset, in order of the arrays.

    Raises:
        InvalidArgument: if an array has another form or other values.

    Examples:
        >>> import numpy as np
        >>> photos = np.zeros((10, 8, 8, 3), np.uint8)
        >>> data = from_arrays(photos, ["cat", "dog"] * 5)
        >>> len(data.train), len(data.test), data.label_names
        (8, 2, ('cat', 'dog'))
    """
    if (test_images is None) != (test_labels is None):
        missing = "test_images" if test_images is None else "test_labels"
        raise InvalidArgument(missing, None, "test_images and test_labels, or neither")
    drawn = Pictures(test_fraction=test_fraction, split_seed=seed)
    parts = [("images", images, "labels", labels)]
    if test_images is not None:
        for argument, value in (("test_fraction", test_fraction), ("seed", seed)):
            if value is not None:
                raise InvalidArgument(argument, value, "no value with test_images")
        parts.append(("test_images", test_images, "test_labels", test_labels))
    bytes_of, labels_of = [], []
    for images_name, own_images, labels_name, own_labels in parts:
        bytes_of.append(_bytes(images_name, own_images, value_range))
        labels_of.append(_labels(labels_name, own_labels, len(bytes_of[-1])))
    if bytes_of[0].shape[1:] != bytes_of[-1].shape[1:]:
        expected = f"images of shape {bytes_of[0].shape[1:]}"
        raise InvalidArgument("test_images", f"shape {bytes_of[-1].shape}", expected)
    names = _names(labels_of, label_names)
    places = [_places(argument, own, names) for (_, _, argument, _), own in zip(parts, labels_of)]
    if test_images is None:
        (all_images,), (all_labels,) = bytes_of, places
        keys = [str(place) for place in range(len(all_labels))]
        fraction = TEST_FRACTION if test_fraction is None else test_fraction
        for_test = stratified(all_labels, keys, fraction, drawn.split_seed or 0)
        if not for_test.any():
            expected = UNDRAWN.format("image") + "; or test_images"
            raise InvalidArgument(
                "images", f"{len(for_test):,} of {len(names):,} classes", expected
            )
        bytes_of = [all_images[~for_test], all_images[for_test]]
        places = [all_labels[~for_test], all_labels[for_test]]
    train, test = (Split.of_arrays(*both) for both in zip(bytes_of, places))
    return Data(name=name, source="arrays", train=train, test=test, label_names=names)


def _array(argument: str, values: Any) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise InvalidArgument(argument, None, f"an array ({one_line(error)})") from error


def _bytes(argument: str, images: Any, value_range: tuple[float, float] | None) -> np.ndarray:
    images = _array(argument, images)
    shown = f"{images.dtype.name} of shape {images.shape}"
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise InvalidArgument(argument, shown, "images of shape [N, H, W, C] or [N, H, W]")
    if images.ndim == 4 and images.shape[-1] > 4:
        raise InvalidArgument(argument, shown, "channels last, at most 4 of them")
    if images.dtype.kind not in "biuf":
        raise InvalidArgument(argument, shown, "numbers")
    if value_range is None:
        if images.dtype.kind not in "iu":
            expected = "bytes, or value_range=(black, white), such as (0, 1)"
            raise InvalidArgument(argument, shown, expected)
        low, high = 0.0, 255.0
    else:
        try:
            low, high = map(float, value_range)
        except (TypeError, ValueError):
            low, high = np.nan, np.nan
        if not -np.inf < low < high < np.inf:
            raise InvalidArgument("value_range", value_range, "two numbers, the lower first")
    least, most = images.min(), images.max()
    if not low <= least <= most <= high:  # NaN neither
        expected = f"values from {low:g} to {high:g}, not from {least:g} to {most:g}"
        way_out = "; value_range=(black, white) says what they are" if value_range is None else ""
        raise InvalidArgument(argument, shown, expected + way_out)
    if images.dtype == np.uint8 and (low, high) == (0, 255):
        return images.reshape(*images.shape[:3], -1)
    stored = np.empty(images.shape, np.uint8)
    for image, place in zip(images, stored):  # one by one, which takes less memory
        place[:] = np.rint((image.astype(np.float64) - low) * (255 / (high - low)))
    return stored.reshape(*images.shape[:3], -1)


def _labels(argument: str, labels: Any, examples: int) -> np.ndarray:
    labels = _array(argument, labels)
    shown = f"{labels.dtype.name} of shape {labels.shape}"
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and len(labels) == examples:
        expected = "one class per image; of one-hot labels take labels.argmax(axis=-1)"
        raise InvalidArgument(argument, shown, expected)
    if labels.shape != (examples,):
        raise InvalidArgument(argument, shown, f"one class per image, shape ({examples},)")
    if labels.dtype.kind == "O" and all(isinstance(label, str) for label in labels):
        labels = labels.astype(str)
    if labels.dtype.kind not in "biuU":
        raise InvalidArgument(argument, shown, "whole numbers from 0 on, or texts")
    return labels if labels.dtype.kind == "U" else labels.astype(np.int64)


def _names(labels: list[np.ndarray], label_names: Sequence[str] | None) -> tuple[str, ...]:
    """The names of the classes."""
    texts = {own.dtype.kind == "U" for own in labels}
    if len(texts) > 1:
        raise InvalidArgument("test_labels", labels[-1].dtype.name, "what labels have, too")
    if label_names is not None:
        names = tuple(map(str, label_names))
        if len(set(names)) < max(2, len(names)):
            raise InvalidArgument("label_names", listed(names), "two names or more, each once")
        return names
    known = np.unique(labels[0])
    if True in texts:
        names = tuple(in_order(map(str, known)))
    else:
        if known[0] != 0 or known[-1] != len(known) - 1:
            expected = "all numbers from 0 on, or label_names"
            raise InvalidArgument("labels", listed(list(map(str, known))), expected)
        names = tuple(map(str, range(len(known))))
    if len(names) < 2:
        raise InvalidArgument("labels", names[0], "two classes or more, or label_names")
    return names


def _places(argument: str, labels: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Where the classes of labels are in their names."""
    if labels.dtype.kind != "U":
        check_labels(labels, len(names), argument=argument)
        return labels
    if unknown := sorted(set(labels.tolist()) - set(names)):
        expected = f"some of the classes {listed(names)}"
        raise InvalidArgument(argument, listed(unknown), expected)
    place = {name: place for place, name in enumerate(names)}
    return np.array([place[label] for label in labels.tolist()], np.int64)
