"""What an exported model answers: its graph functions, with their checks of the input.

They need neither this package nor Keras nor Python to run.
"""

from collections.abc import Callable

import keras
import tensorflow as tf

from robust_tf import models
from robust_tf.saved_models.image_files import decoded

ImageShape = tuple[int, int, int]


def servable(model: keras.Model) -> tuple[tf.Module, dict[str, Callable]]:
    """A model as TensorFlow saves it; see `saved_models.export`.

    Args:
        model: a functional model from images to logits, as of `models`.

    Returns:
        The object to save, and its signatures. The object has the functions `features`
        and `features_training`, and the variables of the model in its own order as
        `model_variables`.
    """
    shape: ImageShape = model.input_shape[1:]
    features_of = models.features(model)
    images_spec = tf.TensorSpec([None, *shape], tf.float32, name="images")
    encoded_spec = tf.TensorSpec([None], tf.string, name="images")

    def answers(images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = model(images, training=False)
        return {
            "probabilities": tf.nn.softmax(logits),
            "label": tf.argmax(logits, axis=-1, output_type=tf.int64),
        }

    @tf.function(input_signature=[images_spec], autograph=False)
    def serving_default(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return answers(checked(images, shape))

    @tf.function(input_signature=[encoded_spec], autograph=False)
    def encoded(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return answers(decoded(images, shape))

    @tf.function(input_signature=[images_spec], autograph=False)
    def features_training(images: tf.Tensor) -> tf.Tensor:
        return tf.cast(features_of(checked(images, shape), training=True), tf.float32)

    @tf.function(input_signature=[images_spec], autograph=False)
    def features(images: tf.Tensor) -> tf.Tensor:
        return tf.cast(features_of(checked(images, shape), training=False), tf.float32)

    @tf.function(input_signature=[images_spec], autograph=False)
    def named_features(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"features": features(images)}

    root = tf.Module()
    root.model_variables = [variable.value for variable in model.variables]
    root.features, root.features_training = features, features_training
    signatures = {"serving_default": serving_default, "features": named_features}
    if shape[-1] in (1, 3):
        signatures["encoded"] = encoded
    return root, signatures


def checked(images: tf.Tensor, shape: ImageShape) -> tf.Tensor:
    """The images, or an error where their shape or a value is not allowed.

    Args:
        images: float32, to be checked for the shape [N, H, W, C] and values in [0, 1].
        shape: (H, W, C).

    Returns:
        The same images.

    Raises:
        tf.errors.InvalidArgumentError: when it runs on others.
    """
    # A server may feed any shape; TensorFlow would drop a check that the declared shape
    # makes needless, so that it must not know it here.
    images = tf.raw_ops.PlaceholderWithDefault(input=images, shape=tf.TensorShape(None))
    received = tf.shape(images)
    right_shape = tf.logical_and(
        tf.equal(tf.rank(images), 4),
        # Of another rank, comparing the shapes themselves would be an error of its own.
        tf.reduce_all(tf.equal(tf.pad(received, [[0, 4]])[1:4], shape)),
    )
    expected = f"images: expected shape [N, {', '.join(map(str, shape))}], received"
    has_shape = tf.debugging.Assert(right_shape, [expected, received], summarize=8)
    with tf.control_dependencies([has_shape]):
        # False for NaN too.
        in_range = tf.reduce_all((images >= 0.0) & (images <= 1.0))
        expected = "images: expected values in [0, 1], received minimum and maximum"
        bounds = [tf.reduce_min(images), tf.reduce_max(images)]
        has_range = tf.debugging.Assert(in_range, [expected, *bounds])
    with tf.control_dependencies([has_range]):
        return tf.ensure_shape(images, [None, *shape])
