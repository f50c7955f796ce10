"""What devices and sensors are called: in flags, and in columns such as `train_perturb`."""

# What names of devices with a defect map begin with, those of sensors, and those of their files.
DEVICE, SENSOR, SENSOR_FILE = "defects/", "sensor/", "sensor:"


def is_device(kind: str) -> bool:
    """Whether it is the name of a device in tables."""
    return kind.startswith(DEVICE)


def is_sensor(kind: str) -> bool:
    """Whether it is the name of a sensor or its device in tables."""
    return kind.startswith(SENSOR)


def is_sensor_file(name: str) -> bool:
    """Whether a text names a sensor's file: "sensor:FILE"."""
    return name.startswith(SENSOR_FILE)
