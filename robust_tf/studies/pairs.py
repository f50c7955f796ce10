"""Whether two defective pixels make an image another class: all pairs of positions, none left out.

The order of the search comes from what single defects do, and does not decide what is found.
"""

import dataclasses
import functools
import itertools
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from robust_tf import evaluation, results, saved_models
from robust_tf.data import Data, Split
from robust_tf.errors import InvalidArgument
from robust_tf.files import digest, file_name, locked, prepare_directory, writing_to
from robust_tf.models.layers import BatchNormalization, Standardization
from robust_tf.progress import Bar
from robust_tf.results.labelling import model_names, training_of
from robust_tf.saved_models import Classifier, answering, matched
from robust_tf.sensors import defect_value

IMAGE_COLUMNS = [
    "index",
    "label",
    "natural",
    "flipped_by_one",
    "flipped_by_two",
    "row_1",
    "column_1",
    "row_2",
    "column_2",
    "towards",
    "pairs",
    "classified",
]
SUMMARY_COLUMNS = [
    "model",
    "training",
    "dataset",
    "data_source",
    "defect",
    "n_examples",
    "natural_accuracy",
    "flipped_by_one",
    "searched",
    "flipped_by_two",
    "flipped_by_one_or_two",
    "classified",
]
# Pixels of the largest images: the pairs of an image are all held at once.
_MOST = 4096
# Images that go through the model together, at first and then.
_FIRST, _BATCH = 100, 1000
# A pair is left out where its margin is surely above so much of the largest logit, or of 1. What
# float32 rounds is less than a hundredth of that.
_SLACK = 1e-3
# How far two ways to compute probabilities of one model may be apart.
_SAME = 1e-3
_LINEAR = keras.activations.linear
# Activations that never fall, and never rise faster than what they get.
_GENTLE = (
    _LINEAR,
    keras.activations.relu,
    keras.activations.tanh,
    keras.activations.sigmoid,
    keras.activations.elu,
)
# Layers that pass on in inference what they get.
_IDLE = (keras.layers.InputLayer, keras.layers.Dropout, keras.layers.Flatten)


@dataclasses.dataclass(frozen=True, eq=False)
class Bounds:
    """What a network tells of pairs of defects without classifying them.

    A second defect changes what arrives at each layer by something between two bounds that hold
    whatever the first one is: convolutions and dense layers add, pooling and activations that
    never rise faster than their inputs do not amplify. So the bounds of one defect, taken
    through the layers once, hold for all pairs that it belongs to.

    Attributes:
        network: a chain of standardisation, convolutions, batch norm, activations, pooling and
            dense layers, from images to logits.
    """

    network: keras.Model

    @classmethod
    def of(cls, network: keras.Model) -> "Bounds | None":
        """Those of a network in float32; None for one that has other layers, or is no chain."""
        layers = network.layers
        chain = all(one.input is before.output for before, one in itertools.pairwise(layers))
        known = all(type(one) in _IDLE or _change_of(one) for one in layers)
        usual = all(
            one.compute_dtype == "float32"
            and getattr(one, "data_format", "channels_last") == "channels_last"
            and getattr(one, "axis", -1) in (-1, 3)
            for one in layers
        )
        last = layers[-1]
        ends = type(last) is keras.layers.Dense and last.activation is _LINEAR
        return cls(network) if chain and known and usual and ends else None

    def unsure(self, images: tf.Tensor, scores: np.ndarray) -> np.ndarray | None:
        """Which pairs may be of another class than the natural image.

        Args:
            images: as they are, then with a defect at each position, float32 [1 + P, H, W, C].
            scores: what the classifier returns for them, [1 + P, classes].

        Returns:
            bool array [P, P], false where a pair surely is of the same class; None where
            the network is not the function that is classified with.
        """
        logits = self.network(images).numpy()
        shares = tf.nn.softmax(logits).numpy()
        if shares.shape != scores.shape or not np.allclose(shares, scores, atol=_SAME):
            return None
        low = high = images[1:] - images[:1]
        *body, last = self.network.layers
        for layer in body:
            change = _change_of(layer)
            if change:
                low, high = change(low, high)
            elif isinstance(layer, keras.layers.Flatten):
                low, high = layer(low), layer(high)
        own = int(np.argmax(logits[0]))
        gaps = last.kernel[:, own : own + 1] - last.kernel  # [F, classes]
        least, _ = _linear(low, high, gaps, tf.matmul)
        # [P, classes]: the margins with one defect, and how much a second may take away.
        margin, least = logits[1:, own, np.newaxis] - logits[1:], least.numpy()
        bound = np.full([len(margin)] * 2, np.inf, np.float32)
        for other in range(logits.shape[1]):
            if other != own:
                np.minimum(bound, margin[:, other, np.newaxis] + least[:, other], out=bound)
        slack = _SLACK * max(1.0, np.abs(logits).max())
        return ~(np.maximum(bound, bound.T) > slack)


Change = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def _change_of(layer: keras.layers.Layer) -> Change | None:
    """What a layer makes of the bounds of a change of its input; None if that is not known."""
    if type(layer) is Standardization:
        return lambda low, high: (low * layer.scale, high * layer.scale)
    if type(layer) in (keras.layers.Conv2D, keras.layers.Dense):
        if layer.activation not in _GENTLE:
            return None
        if type(layer) is keras.layers.Dense:
            apply = tf.matmul
        else:
            how = {"strides": layer.strides, "padding": layer.padding.upper()}
            apply = functools.partial(tf.nn.conv2d, dilations=layer.dilation_rate, **how)
        return lambda low, high: _gentle(layer.activation, *_linear(low, high, layer.kernel, apply))
    if type(layer) in (keras.layers.BatchNormalization, BatchNormalization):
        scale = tf.math.rsqrt(layer.moving_variance + layer.epsilon)
        scale = scale * layer.gamma if layer.scale else scale
        return lambda low, high: (
            tf.minimum(low * scale, high * scale),
            tf.maximum(low * scale, high * scale),
        )
    if type(layer) is keras.layers.Activation:
        known = layer.activation in _GENTLE
        return functools.partial(_gentle, layer.activation) if known else None
    if type(layer) is keras.layers.MaxPooling2D:
        pool = functools.partial(
            tf.nn.max_pool2d,
            ksize=layer.pool_size,
            strides=layer.strides,
            padding=layer.padding.upper(),
        )
        return lambda low, high: (-pool(-low), pool(high))
    return None


def _linear(
    low: tf.Tensor, high: tf.Tensor, kernel: tf.Tensor, apply: Callable
) -> tuple[tf.Tensor, tf.Tensor]:
    up, down = tf.maximum(kernel, 0.0), tf.minimum(kernel, 0.0)
    return apply(low, up) + apply(high, down), apply(high, up) + apply(low, down)


def _gentle(activation: Callable, low: tf.Tensor, high: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """A change may be lost on the way, as where relu gives 0, but not turned around."""
    if activation is _LINEAR:
        return low, high
    return tf.minimum(low, 0.0), tf.maximum(high, 0.0)


def margins(scores: np.ndarray) -> np.ndarray:
    """The margins of all pairs, if the effects of single defects on the scores added up.

    Args:
        scores: of the natural image, then with a defect at each position, [1 + P, classes].

    Returns:
        float32 array [P, P]: by how much the score of the natural image's class is above the
        highest other one.
    """
    natural, single = scores[0], scores[1:]
    own = int(np.argmax(natural))
    lowest = np.full((len(single), len(single)), np.inf, np.float32)
    for other in range(len(natural)):
        if other != own:
            gap = (single[:, own] - single[:, other]).astype(np.float32)
            here = gap[:, np.newaxis] + gap - np.float32(natural[own] - natural[other])
            np.minimum(lowest, here, out=lowest)
    return lowest


def measure(
    model: Callable[[tf.Tensor], tf.Tensor],
    split: Split,
    defect: str = "hot",
    bounds: Bounds | None = None,
    label: str | None = None,
) -> pd.DataFrame:
    """Looks for one defect, then for two, that make each image another class.

    Args:
        model: a function that TensorFlow can trace without AutoGraph, from float32 images
            [B, H, W, C] in [0, 1] to scores [B, classes], logits or probabilities.
        split: the images.
        defect: see `sensors.defect_value`; all channels of a pixel get the value.
        bounds: those of the model's network; without them all pairs go through the model.
        label: the progress bar's label; no bar without one.

    Returns:
        One row per image, with the columns of `IMAGE_COLUMNS`: classes as numbers, -1 for no
        answer (see `evaluation.predicted`); flipped_by_two is missing where one defect is
        enough; row and column, of one or of two defects that are, from 0 at the upper left;
        towards, the class that they lead to; pairs, how many there are where they are searched;
        and classified, how many of these went through the model: all but those that bounds
        exclude, or those up to the first that is found.

    Raises:
        InvalidArgument: if the defect is none, or images have more than 4,096 pixels.
    """
    value = defect_value(defect)
    height, width, channels = split.image_shape
    places = height * width
    if places > _MOST:
        expected = f"images of at most {_MOST:,} pixels: all pairs are searched"
        raise InvalidArgument("dataset", f"{split.image_shape}", expected)
    first, second = np.triu_indices(places, 1)

    @tf.function(reduce_retracing=True, autograph=False)
    def classified(image: tf.Tensor, positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Images with a defect at each of some positions [B, k], and their scores."""
        count = tf.shape(positions)[0]
        hit = tf.reduce_any(positions[:, :, tf.newaxis] == tf.range(places), axis=1)
        flat = tf.reshape(image, [1, places, channels])
        changed = tf.where(hit[:, :, tf.newaxis], value, flat)
        images = tf.reshape(changed, [count, height, width, channels])
        return images, model(images)

    def answers(image: tf.Tensor, positions: np.ndarray, size: int) -> np.ndarray:
        padded = np.resize(positions, (size, 2))  # one shape, which is compiled once
        _, scores = classified(image, tf.constant(padded, tf.int32))
        return evaluation.predicted(scores).numpy()[: len(positions)]

    rows = []
    for index in Bar(range(len(split)), desc=label, unit="image", disable=label is None):
        image = split.images_at(tf.constant([index]))[0]
        # The first is beyond the sensor: none has a defect.
        alone = tf.range(-1, places)[:, tf.newaxis]
        images, scores = classified(image, alone)
        natural, *single = evaluation.predicted(scores).numpy()
        row = {"index": index, "label": int(split.labels[index]), "natural": natural}
        flipping = np.flatnonzero(np.asarray(single) != natural)
        row["flipped_by_one"] = len(flipping) > 0
        rows.append(row)
        if len(flipping):
            row |= _at((flipping[0],), width) | {"towards": single[flipping[0]]}
            continue
        unsure = bounds.unsure(images, scores.numpy()) if bounds else None
        chosen = np.flatnonzero(np.ones(len(first)) if unsure is None else unsure[first, second])
        estimates = margins(_logarithms(scores.numpy()))[first[chosen], second[chosen]]
        chosen = chosen[np.argsort(estimates, kind="stable")]
        row |= {"flipped_by_two": False, "pairs": len(first), "classified": len(chosen)}
        start = 0
        while start < len(chosen):
            size = _BATCH if start else _FIRST
            some = chosen[start : start + size]
            found = answers(image, np.stack([first[some], second[some]], axis=1), size)
            flipping = np.flatnonzero(found != natural)
            if len(flipping):
                pair = some[flipping[0]]
                row |= {"flipped_by_two": True, "classified": start + len(some)}
                row |= _at((first[pair], second[pair]), width) | {"towards": found[flipping[0]]}
                break
            start += size
    table = pd.DataFrame(rows, columns=IMAGE_COLUMNS)
    whole = ["row_1", "column_1", "row_2", "column_2", "towards", "pairs", "classified"]
    return table.astype(dict.fromkeys(whole, "Int64") | {"flipped_by_two": "boolean"})


def _at(places: tuple[int, ...], width: int) -> dict[str, int]:
    found = {}
    for number, place in enumerate(places, start=1):
        found[f"row_{number}"], found[f"column_{number}"] = divmod(int(place), width)
    return found


def _logarithms(scores: np.ndarray) -> np.ndarray:
    """Logits, as far as probabilities tell them; other scores as they are."""
    shares = (scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=_SAME)
    return np.log(np.maximum(scores, 1e-30)) if shares else scores


def bounds_of(classifier: Classifier) -> Bounds | None:
    """Those of the network of a run's export; None for any other model."""
    ours = classifier.metadata.get("training") and classifier.output == "probabilities"
    if not ours or classifier.order is not None:
        return None
    return Bounds.of(saved_models.load(classifier.path, classifier.argument))


def summary_of(table: pd.DataFrame) -> dict[str, float]:
    """The columns of `SUMMARY_COLUMNS` that the rows of `measure` decide.

    Returns:
        flipped_by_one, the share of the images that some defect makes another class; searched,
        how many no single one does; flipped_by_two, the share of these that some pair does,
        missing where there are none; flipped_by_one_or_two, the share of all images; and
        classified, how many pairs of a searched image went through the model, on average.
    """
    searched = table[~table["flipped_by_one"]]
    by_two = searched["flipped_by_two"].astype(bool)
    either = table["flipped_by_one"].sum() + by_two.sum()
    return {
        "n_examples": len(table),
        "natural_accuracy": float((table["natural"] == table["label"]).mean()),
        "flipped_by_one": float(table["flipped_by_one"].mean()),
        "searched": len(searched),
        "flipped_by_two": float(by_two.mean()) if len(searched) else np.nan,
        "flipped_by_one_or_two": float(either / len(table)),
        "classified": float(searched["classified"].mean()) if len(searched) else np.nan,
    }


def write(
    classifier: Classifier,
    data: Data,
    defect: str,
    output_dir: str | os.PathLike,
    progress: bool = True,
) -> tuple[Path, pd.DataFrame, pd.DataFrame]:
    """Searches the pairs of a saved classifier and writes what is found.

    Args:
        classifier: from `classifiers.load`.
        data: the dataset; its test split is used.
        defect: see `sensors.defect_value`.
        output_dir: where a folder for the results is made.
        progress: show a progress bar.

    Returns:
        The folder, with `images.csv` and `summary.csv`; then the two tables, which have the
        columns `IMAGE_COLUMNS`, with classes by their names, and `SUMMARY_COLUMNS`.

    Raises:
        InvalidArgument: if the classifier does not fit the images, they have more than 4,096
            pixels, or the defect is none.
        Unavailable: if the folder cannot be written.
    """
    value = defect_value(defect)
    classifier = matched(classifier, data)
    (name,) = model_names([classifier])
    of_data = (data.name, data.source, *data.test.identity, data.label_names)
    identity = digest(classifier.identity, of_data, value)
    folder = Path(output_dir) / file_name(f"{classifier.name} pairs {defect} {identity}")
    with locked(prepare_directory("output_dir", folder)):
        label = f"searching pairs for {name}" if progress else None
        with answering(classifier):
            table = measure(classifier, data.test, defect, bounds_of(classifier), label)
        unanswered = int((table[["natural", "towards"]] == evaluation.NO_ANSWER).sum().sum())
        if unanswered:
            warnings.warn(
                f"{name}: scores of {unanswered:,} of the {len(table):,} images, natural or with "
                "defects, are not finite; these have no class",
                stacklevel=2,
            )
        about = {
            "model": name,
            "training": training_of(classifier),
            "dataset": data.name,
            "data_source": data.source,
            "defect": value,
        }
        summary = pd.DataFrame([about | summary_of(table)], columns=SUMMARY_COLUMNS)
        names = {evaluation.NO_ANSWER: "no answer", **dict(enumerate(data.label_names))}
        for column in ("label", "natural", "towards"):
            table[column] = table[column].map(names)
        with writing_to("output_dir", output_dir):
            results.write(table, folder / "images.csv", IMAGE_COLUMNS)
            results.write(summary, folder / "summary.csv", SUMMARY_COLUMNS)
    return folder, table, summary
