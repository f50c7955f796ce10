"""Questions to finished models.

Each study measures (`measure`, no files) and writes what it finds to a folder (`write`).
"""

from typing import TYPE_CHECKING

from robust_tf.faces import on_use

if TYPE_CHECKING:
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
else:
    __getattr__, __dir__ = on_use(__name__, {})

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
