"""Cameras: defect maps of single devices, which are the same for all images, and fleets."""

from robust_tf.sensors.devices import Device
from robust_tf.sensors.fleet import Fleet
from robust_tf.sensors.imaging import SensorDevice
from robust_tf.sensors.maps import DefectMap
from robust_tf.sensors.specification import EXAMPLES, Sensor
from robust_tf.sensors.tables import Defects, Growth, Input, Noise, Region, Zone

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
]
