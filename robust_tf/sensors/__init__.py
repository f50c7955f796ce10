"""Cameras: defect maps of single devices, which are the same for all images, and fleets."""

from typing import TYPE_CHECKING

from robust_tf.faces import on_use

if TYPE_CHECKING:
    from robust_tf.sensors.devices import Device
    from robust_tf.sensors.fleet import Fleet
    from robust_tf.sensors.imaging import SensorDevice
    from robust_tf.sensors.maps import DefectMap
    from robust_tf.sensors.names import is_device, is_sensor, is_sensor_file
    from robust_tf.sensors.specification import EXAMPLES, Sensor
    from robust_tf.sensors.tables import Defects, Growth, Input, Noise, Region, Zone
else:
    __getattr__, __dir__ = on_use(
        __name__,
        {
            "devices": "Device",
            "fleet": "Fleet",
            "imaging": "SensorDevice",
            "maps": "DefectMap",
            "names": "is_device is_sensor is_sensor_file",
            "specification": "EXAMPLES Sensor",
            "tables": "Defects Growth Input Noise Region Zone",
        },
    )

__all__ = [
    "EXAMPLES",
    "DefectMap",
    "Defects",
    "Device",
    "Fleet",
    "Growth",
    "Input",
    "Noise",
    "Region",
    "Sensor",
    "SensorDevice",
    "Zone",
    "is_device",
    "is_sensor",
    "is_sensor_file",
]
