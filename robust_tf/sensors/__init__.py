"""Cameras: defect maps of single devices, which are the same for all images, and fleets."""

from typing import TYPE_CHECKING

from robust_tf.faces import on_use

if TYPE_CHECKING:
    from robust_tf.sensors.asked import Asked
    from robust_tf.sensors.devices import Device
    from robust_tf.sensors.fleet import Fleet
    from robust_tf.sensors.imaging import SensorDevice
    from robust_tf.sensors.maps import DefectMap
    from robust_tf.sensors.names import (
        HOW,
        NAMED,
        THRESHOLD,
        defect_value,
        is_device,
        is_sensor,
        is_sensor_file,
        kinds_of_defects,
    )
    from robust_tf.sensors.specification import EXAMPLES, Sensor
    from robust_tf.sensors.tables import Defects, Growth, Input, Noise, Region, Zone
else:
    __getattr__, __dir__ = on_use(
        __name__,
        {
            "asked": "Asked",
            "devices": "Device",
            "fleet": "Fleet",
            "imaging": "SensorDevice",
            "maps": "DefectMap",
            "names": "HOW NAMED THRESHOLD defect_value is_device is_sensor is_sensor_file "
            "kinds_of_defects",
            "specification": "EXAMPLES Sensor",
            "tables": "Defects Growth Input Noise Region Zone",
        },
    )

__all__ = [
    "Asked",
    "EXAMPLES",
    "HOW",
    "NAMED",
    "THRESHOLD",
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
    "defect_value",
    "is_device",
    "is_sensor",
    "is_sensor_file",
    "kinds_of_defects",
]
