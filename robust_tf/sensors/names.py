"""What devices, sensors and what corrects them are called, in flags and in tables."""

from robust_tf.errors import InvalidArgument
from robust_tf.perturbations import KINDS

# What names of devices with a defect map begin with, those of sensors, and those of their files.
DEVICE, SENSOR, SENSOR_FILE = "defects/", "sensor/", "sensor:"
# Values of a defective pixel that have a name.
NAMED = {"hot": 1.0, "dead": 0.0}
# What a defect that is known becomes: of its good neighbours.
HOW = ("median", "mean")
# What differs by more from its neighbours is an outlier; docs/remedies.md says how it was found,
# on training images.
THRESHOLD = 0.45


def is_device(kind: str) -> bool:
    """Whether it is the name of a device in tables."""
    return kind.startswith(DEVICE)


def is_sensor(kind: str) -> bool:
    """Whether it is the name of a sensor or its device in tables."""
    return kind.startswith(SENSOR)


def is_sensor_file(name: str) -> bool:
    """Whether a text names a sensor's file: "sensor:FILE"."""
    return name.startswith(SENSOR_FILE)


def defect_value(defect: str) -> float:
    """The value in [0, 1] of a defect: "hot", "dead" or a number.

    Raises:
        InvalidArgument: if it is none.
    """
    try:
        value = NAMED[defect] if defect in NAMED else float(defect)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise InvalidArgument("defect", defect, "hot, dead, or a value from 0 to 1")
    return value


def kinds_of_defects() -> list[str]:
    """The kinds of perturbation that are so many defects, at random places."""
    return [name for name, kind in KINDS.items() if kind.random and kind.whole]
