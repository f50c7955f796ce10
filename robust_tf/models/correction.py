"""Keras layers that correct defective pixels, to stand in front of a network.

What they compute is in `sensors.correction`; a network with one is exported like any other.
"""

import math
from collections.abc import Iterable, Sequence

import keras
import numpy as np

from robust_tf.errors import InvalidArgument
from robust_tf.models.keras_settings import keras_defaults
from robust_tf.sensors import correction
from robust_tf.sensors.correction import GoodNeighbours
from robust_tf.sensors.names import HOW, THRESHOLD


class Correction(keras.layers.Layer):
    """A layer that corrects defective pixels.

    Input shape: float32 [B, H, W, C], values in [0, 1].
    Output shape: float32 [B, H, W, C], values in [0, 1].
    """

    kind: str  # as flags and tables have it


@keras.saving.register_keras_serializable("robust_tf")
class MedianFilter(Correction):
    """Every pixel becomes the median of itself and its 8 neighbours; see `correction.median`."""

    kind = "median"

    def call(self, images):
        """Filters a batch."""
        return correction.median(images)

    def __str__(self) -> str:
        """As in tables: "median"."""
        return self.kind


@keras.saving.register_keras_serializable("robust_tf")
class OutlierCorrection(Correction):
    """Pixels far from the median of their 8 neighbours become it; see `correction.outlier`.

    Args:
        threshold: how far, from 0 to 1; what differs by more is an outlier.

    Raises:
        InvalidArgument: if the threshold is out of range.
    """

    kind = "outlier"

    def __init__(self, threshold: float = THRESHOLD, **kwargs):
        """See the class."""
        super().__init__(**kwargs)
        if not (math.isfinite(threshold) and 0 <= threshold <= 1):
            raise InvalidArgument("threshold", threshold, "a number from 0 to 1")
        self.threshold = float(threshold)

    def call(self, images):
        """Corrects a batch."""
        return correction.outlier(images, self.threshold)

    def get_config(self) -> dict:
        """The arguments that make an equal layer."""
        return {**super().get_config(), "threshold": self.threshold}

    def __str__(self) -> str:
        """As in tables: "outlier 0.5"."""
        return f"{self.kind} {self.threshold:g}"


@keras.saving.register_keras_serializable("robust_tf")
class ListCorrection(Correction):
    """Known defects become the median or mean of good neighbours; see `correction.by_list`.

    Args:
        defects: row, column and channel of each, from 0 on; channel -1 for all channels.
        how: "median" or "mean".

    Raises:
        InvalidArgument: if there is no such way; when it is built, if a defect is outside the
            images or a channel has no good pixel.
    """

    kind = "list"

    def __init__(self, defects: Iterable[Sequence[int]], how: str = "median", **kwargs):
        """See the class."""
        super().__init__(**kwargs)
        self.defects = [list(map(int, one)) for one in defects]
        if how not in HOW:
            raise InvalidArgument("how", how, " or ".join(HOW))
        self.how = how

    def build(self, input_shape: tuple) -> None:
        """Finds the good neighbours of each defect."""
        shape = tuple(input_shape[1:])
        mask = np.zeros(shape, bool)
        for defect in self.defects:
            low = (0, 0, -1)
            if len(defect) != 3 or not all(
                least <= place < size for least, place, size in zip(low, defect, shape)
            ):
                expected = f"row, column and channel (-1 for all) within images of shape {shape}"
                raise InvalidArgument("defects", defect, expected)
            row, column, channel = defect
            mask[row, column, slice(None) if channel < 0 else channel] = True
        self.good = GoodNeighbours.of(mask)

    def call(self, images):
        """Corrects a batch."""
        return correction.by_list(images, self.good, self.how)

    def get_config(self) -> dict:
        """The arguments that make an equal layer."""
        return {**super().get_config(), "defects": self.defects, "how": self.how}

    def __str__(self) -> str:
        """As in tables: "median list of 3"."""
        return f"{self.how} {self.kind} of {len(self.defects)}"


# By kind.
CORRECTIONS: dict[str, type[Correction]] = {
    kind.kind: kind for kind in (MedianFilter, OutlierCorrection, ListCorrection)
}


@keras_defaults()
def corrected(model: keras.Model, layer: Correction) -> keras.Model:
    """A model with a correction in front, which shares the model's other layers.

    Args:
        model: a functional model from images to logits, as of `models.build` or
            `saved_models.load`.
        layer: the correction.

    Returns:
        A functional model of the same form.
    """
    images = keras.Input(model.input_shape[1:], name="images")
    dense = model.get_layer("logits")
    network = keras.Model(model.input, dense.input, name="network")
    last = keras.layers.Dense.from_config(dense.get_config())
    result = keras.Model(images, last(network(layer(images))), name=model.name)
    last.set_weights(dense.get_weights())
    return result
