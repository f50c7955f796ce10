"""Questions to finished models.

Each study measures (`measure`, no files) and writes what it finds to a folder (`write`).
"""

from robust_tf.studies import (
    ageing,
    certificate,
    comparison,
    confusions,
    device,
    fleet,
    limits,
    pairs,
    remedies,
    robustness,
    sensor_map,
    standardization,
)

__all__ = [
    "ageing",
    "certificate",
    "comparison",
    "confusions",
    "device",
    "fleet",
    "limits",
    "pairs",
    "remedies",
    "robustness",
    "sensor_map",
    "standardization",
]
