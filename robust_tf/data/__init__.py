"""Examples by index: images, labels, names of classes, and where they came from.

Nothing here perturbs or shuffles.
"""

from robust_tf.data.datasets import (
    DATA_SOURCES,
    Data,
    Split,
    load,
    load_test,
    prepared_corruptions,
    without_autotuning,
)

__all__ = [
    "DATA_SOURCES",
    "Data",
    "Split",
    "load",
    "load_test",
    "prepared_corruptions",
    "without_autotuning",
]
