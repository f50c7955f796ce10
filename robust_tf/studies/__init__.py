"""Questions to finished models.

Each study measures (`measure`, no files) and writes what it finds to a folder (`write`).
"""

from robust_tf.studies import comparison, confusions, robustness, sensor_map, standardization

__all__ = ["comparison", "confusions", "robustness", "sensor_map", "standardization"]
