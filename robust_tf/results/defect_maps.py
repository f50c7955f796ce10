"""Defect maps as figures."""

from collections.abc import Iterable

import matplotlib.figure
import matplotlib.ticker
import numpy as np

from robust_tf.evaluation import Condition, InBits
from robust_tf.files import file_name
from robust_tf.results import figures
from robust_tf.sensors import DefectMap, Device

# Markers of a sensor of few pixels are as large as these, of others not smaller than visible.
_LARGEST, _SMALLEST = 120.0, 8.0


def figure(
    defects: DefectMap, image_shape: tuple[int, int, int], name: str = ""
) -> matplotlib.figure.Figure:
    """Where the defects of a device are, in the shape of the sensor.

    Args:
        defects: the map.
        image_shape: (H, W, C).
        name: of the device.

    Returns:
        The figure: hot pixels as triangles, dead ones as squares, others as circles, those with
        an offset as crosses.

    Raises:
        InvalidArgument: if a defect is outside.
    """
    defects.check(image_shape)
    height, width, _ = image_shape
    offset = np.isnan(defects.values)
    shown = {
        "hot": (defects.values == 1, "^"),
        "dead": (defects.values == 0, "s"),
        "another value": (~offset & ~np.isin(defects.values, (0, 1)), "o"),
        "offset": (offset, "x"),
    }
    drawn = figures.blank(4.6, max(2.4, min(8.0, 4.0 * height / width)) + 0.8)
    axes = drawn.subplots()
    size = np.clip((200 / max(height, width)) ** 2, _SMALLEST, _LARGEST)
    for place, (label, (chosen, marker)) in enumerate(shown.items()):
        if chosen.any():
            own = defects.part(chosen)
            label = f"{label}: {own.pixels:,}"
            axes.scatter(own.columns, own.rows, size, f"C{place}", marker=marker, label=label)
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xlabel="column", ylabel="row")
    axes.set_aspect("equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    if len(defects):
        drawn.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    counted = f"{defects.pixels:,} defective of {height * width:,} pixels"
    figures.title(drawn, f"{figures.short(name)}: {counted}" if name else counted)
    return drawn


def of_devices(
    conditions: Iterable[Condition], image_shape: tuple[int, int, int]
) -> dict[str, matplotlib.figure.Figure]:
    """A figure for each device among conditions, by the name of its file."""
    plain = (one.condition if isinstance(one, InBits) else one for one in conditions)
    return {
        file_name(one.kind): figure(one.defects, image_shape, one.name)
        for one in plain
        if isinstance(one, Device)
    }
