"""One model on several devices, through `tf.distribute`."""

import functools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from robust_tf.errors import InvalidArgument, Unavailable

DISTRIBUTIONS = ("none", "mirrored", "multiworker")

# How long the other workers wait for the first to export a trained model.
_EXPORT_SECONDS = 600.0


@functools.cache  # a process can have one of several workers only
def create(name: str) -> tf.distribute.Strategy:
    """The strategy of TensorFlow that a name stands for.

    Args:
        name: "none": one device. "mirrored": all GPUs of this machine, or all logical CPUs
            where it has none. "multiworker": likewise on several machines, each of which
            runs the same command with its own `TF_CONFIG`; this must then be called before
            TensorFlow computes anything.

    Raises:
        InvalidArgument: if `TF_CONFIG` does not say which of some workers this is.
    """
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    if name == "multiworker":
        try:
            config = json.loads(os.environ.get("TF_CONFIG", "{}"))
            ((job, workers),) = config["cluster"].items()
            task = config["task"]
            known = job == task["type"] == "worker" and 0 <= task["index"] < len(workers)
        except (ValueError, LookupError, TypeError, AttributeError):
            known = False
        if not known:
            expected = "TF_CONFIG to name workers, no other jobs, and which of them this is"
            raise InvalidArgument("distribute", name, expected)
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


def is_chief(distribution: tf.distribute.Strategy) -> bool:
    """Whether this process writes the results; one of several workers does."""
    resolver = distribution.cluster_resolver
    return resolver is None or resolver.task_id in (None, 0)


def wait_for(folder: Path) -> None:
    """Waits until the worker that writes the results has made a folder.

    Raises:
        Unavailable: if it takes too long.
    """
    deadline = time.monotonic() + _EXPORT_SECONDS
    while not folder.is_dir():
        if time.monotonic() > deadline:
            problem = f"the first worker has not written {folder.name} where this one sees it"
            raise Unavailable("distribute", "multiworker", problem)
        time.sleep(0.5)


def on_one_device(model: keras.Model, build_model: Callable[[], keras.Model]) -> keras.Model:
    """A model that has nothing to do with the devices that it was trained on.

    Args:
        model: the trained model.
        build_model: makes one of the same architecture.
    """
    plain = build_model()
    for variable, trained in zip(plain.variables, model.variables, strict=True):
        variable.assign(trained.numpy())
    return plain


def synchronize(model: keras.Model) -> None:
    """Has batch norm take its statistics over the batches of all devices together.

    Training then has the same result on any number of devices, but for rounding and for
    dropout, whose masks are drawn a device.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True
