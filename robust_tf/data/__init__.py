"""Examples by index: images, labels, names of classes, and where they came from.

Nothing here perturbs or shuffles.
"""

from robust_tf.data.recorded import load_test, prepared_corruptions
from robust_tf.data.sample import Sample
from robust_tf.data.sources import DIGESTS, SOURCES, Auto, Source, load
from robust_tf.data.splits import Data, Split, without_autotuning
from robust_tf.data.tfds import Tfds

__all__ = [
    "DIGESTS",
    "SOURCES",
    "Auto",
    "Data",
    "Sample",
    "Source",
    "Split",
    "Tfds",
    "load",
    "load_test",
    "prepared_corruptions",
    "without_autotuning",
]
