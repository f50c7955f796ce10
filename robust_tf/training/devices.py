"""One model on several devices, through `tf.distribute`."""

from collections.abc import Callable

import keras
import tensorflow as tf

from robust_tf import models


def create(name: str) -> tf.distribute.Strategy:
    """The strategy of TensorFlow that a name stands for.

    Args:
        name: one of `recipes.DISTRIBUTIONS`. "none": one device; "mirrored": all GPUs of this
            machine, or all logical CPUs where it has none.
    """
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.get_strategy()


def shard(
    index: tf.Tensor, count: tf.Tensor, device: tf.Tensor, devices: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """The part of a batch that one of several devices gets: every so-many-th image.

    So each device has as many of the first images, the perturbed ones.

    Args:
        index: indices of the whole batch, shape [B].
        count: how many of them come first, an int32 scalar.
        device: which device, an integer scalar from 0 on.
        devices: how many devices there are.

    Returns:
        The indices of the device, [B / devices], and how many of them come first.
    """
    device = tf.cast(device, tf.int32)
    return index[device::devices], tf.maximum(0, -((device - count) // devices))


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
    dropout, whose masks are drawn per device.
    """
    for layer in models.leaves(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True
