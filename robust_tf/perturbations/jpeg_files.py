"""JPEG compression, as a graph-mode op on batches of images."""

import numpy as np
import tensorflow as tf

from robust_tf.errors import InvalidArgument
from robust_tf.xla import in_xla


def jpeg(images: tf.Tensor, quality: int | tf.Tensor) -> tf.Tensor:
    """Writes images as JPEG files and reads them again.

    Equals Pillow's `save(file, "JPEG", quality=quality)` and `open(file)` of the images in
    bytes: libjpeg's tables, chroma at half the resolution.

    Args:
        images: float32, shape [B, H, W, C], values in [0, 1], rounded to bytes; one channel
            (grey) or three (RGB).
        quality: 1 … 100, where a higher one loses less; an integer or an integer scalar tensor.

    Returns:
        float32 tensor of shape [B, H, W, C], multiples of 1/255. It has no gradient.

    Raises:
        InvalidArgument: if images have another number of channels; in functions that are
            compiled by XLA, which knows no files.
    """
    images = tf.convert_to_tensor(images, tf.float32)
    channels = images.shape[-1]
    if channels not in (1, 3):
        expected = "one channel, or three, for jpeg"
        raise InvalidArgument("images", f"{channels} channels", expected)
    if in_xla():
        expected = "another kind, or no jit_compile=True: XLA cannot write files"
        raise InvalidArgument("perturb", "jpeg", expected)
    values = tf.cast(tf.round(tf.clip_by_value(images, 0.0, 1.0) * 255.0), tf.uint8)
    read = _written_and_read(values, tf.cast(quality, tf.int32))
    # From a table: a division becomes a product in graphs, which rounds otherwise.
    table = tf.constant(np.arange(256, dtype=np.float32) / np.float32(255))
    return tf.ensure_shape(tf.gather(table, tf.cast(read, tf.int32)), images.shape)


@tf.function(
    input_signature=[tf.TensorSpec([None] * 4, tf.uint8), tf.TensorSpec([], tf.int32)],
    autograph=False,
)
def _written_and_read(values: tf.Tensor, quality: tf.Tensor) -> tf.Tensor:
    def one(image: tf.Tensor) -> tf.Tensor:
        file = tf.raw_ops.EncodeJpegVariableQuality(images=image, quality=quality)
        return tf.io.decode_jpeg(file, dct_method="INTEGER_ACCURATE")

    # TensorFlow does not stack no images of a size that it does not know.
    return tf.cond(tf.size(values) == 0, lambda: values, lambda: tf.map_fn(one, values))
