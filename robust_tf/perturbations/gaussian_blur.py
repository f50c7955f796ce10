"""Gaussian blur, as a graph-mode op on batches of images.

Narrow kernels are sums of shifted images, wide ones products with matrices.
"""

import tensorflow as tf

from robust_tf.xla import by_rows

# Blurs up to this radius, sigma 1.1, are sums of shifted images: 9 multiplications per pixel
# and axis, where a matrix has as many as the image is long.
_STENCIL_RADIUS = 4


def blur(images: tf.Tensor, sigma: float | tf.Tensor, channel_blur: bool = False) -> tf.Tensor:
    """Blurs with a Gaussian, truncated at 4 sigma, borders mirrored (paper, section V.C).

    Equals `scipy.ndimage.gaussian_filter` of each image with `sigma` in height and
    width, `mode="reflect"` and `truncate=4.0`.

    Args:
        images: float32, shape [B, H, W, C], values in [0, 1].
        sigma: standard deviation of the Gaussian in pixels, at least 0; a number or a
            scalar tensor.
        channel_blur: blur over the channel axis as well, as in the paper's figures.

    Returns:
        float32 tensor of shape [B, H, W, C], values in [0, 1].
    """
    images = tf.convert_to_tensor(images, tf.float32)
    radius = _blur_radius(sigma)
    if channel_blur or min(images.shape[1:3]) < _STENCIL_RADIUS:
        return tf.cond(
            radius > 0,
            lambda: _blur_by_matrices(images, sigma, channel_blur),
            lambda: images,  # the matrices would round it
        )
    return tf.cond(
        radius <= _STENCIL_RADIUS,
        lambda: _blur_by_stencil((images,), _blur_weights(sigma, _STENCIL_RADIUS)),
        lambda: _blur_by_matrices(images, sigma, channel_blur=False),
    )


@by_rows
def _blur_by_stencil(batch: tuple[tf.Tensor], weights: tf.Tensor) -> tf.Tensor:
    """Weighted sums of shifted images, along the width and then along the height."""
    (images,) = batch
    batch_size = tf.shape(images)[0]
    height, width, channels = images.shape[1:]
    weights = tf.cast(weights, tf.float32)
    lines = tf.reshape(images, [batch_size * height, width, channels])
    lines = tf.reshape(_blur_lines(lines, weights), [batch_size, height, width * channels])
    blurred = tf.reshape(_blur_lines(lines, weights), tf.shape(images))
    return tf.clip_by_value(blurred, 0.0, 1.0)  # may round beyond


def _blur_lines(lines: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Blurs [R, n, s] along its middle axis; radius _STENCIL_RADIUS, not above n."""
    radius = _STENCIL_RADIUS
    _, length, step = lines.shape
    before, after = lines[:, :radius][:, ::-1], lines[:, length - radius :][:, ::-1]
    # Flat, so that the loops are long ones over neighbours in memory.
    line = tf.reshape(tf.concat([before, lines, after], axis=1), [-1, (length + 2 * radius) * step])

    def shifted(by: int) -> tf.Tensor:
        return line[:, (radius + by) * step : (radius + by + length) * step]

    blurred = weights[radius] * shifted(0)
    for k in range(1, radius + 1):
        blurred += weights[radius + k] * (shifted(-k) + shifted(k))
    return blurred


def _blur_by_matrices(images: tf.Tensor, sigma: float | tf.Tensor, channel_blur: bool) -> tf.Tensor:
    """Products with a matrix of weights on each side; any radius."""
    height, width, channels = images.shape[1:]
    rows = _blur_matrix(height, sigma)
    columns = _blur_matrix(width, sigma)
    across = _blur_matrix(channels, sigma if channel_blur else 0.0)
    # One product for columns and channels: [W, W] x [C, C] -> [W*C, W*C].
    columns = tf.einsum("vw,dc->vdwc", columns, across)
    columns = tf.reshape(columns, [width * channels, width * channels])
    values = tf.cast(images, tf.float64)
    values = tf.reshape(values, [-1, width * channels])  # [B, H, W, C] -> [B*H, W*C]
    values = tf.matmul(_on_grid(values), _on_grid(columns), transpose_b=True)
    values = tf.reshape(values, [-1, height, width * channels])  # -> [B, H, W*C]
    values = tf.matmul(_on_grid(rows), _on_grid(values))
    values = tf.clip_by_value(tf.cast(values, tf.float32), 0.0, 1.0)  # may round beyond
    return tf.reshape(values, tf.shape(images))


def _on_grid(values: tf.Tensor) -> tf.Tensor:
    """Rounds float64 values to multiples of 2**-26.

    Products of two such values, and their sums up to 1, are exact in float64. So the
    order of summation, which differs between batch sizes, does not change the result.
    """
    return tf.grad_pass_through(tf.round)(values * 2.0**26) * 2.0**-26


def _blur_radius(sigma: float | tf.Tensor) -> tf.Tensor:
    return tf.cast(4.0 * tf.cast(sigma, tf.float64) + 0.5, tf.int32)


def _blur_weights(sigma: float | tf.Tensor, reach: int | tf.Tensor) -> tf.Tensor:
    """The float64 weights at offsets -reach … reach, 0 beyond the radius."""
    offsets = tf.range(-reach, reach + 1)
    # divide_no_nan: with sigma 0 there is one tap, of weight 1.
    scaled = tf.math.divide_no_nan(tf.cast(offsets, tf.float64), tf.cast(sigma, tf.float64))
    weights = tf.where(tf.abs(offsets) <= _blur_radius(sigma), tf.exp(-0.5 * scaled**2), 0.0)
    return weights / tf.reduce_sum(weights)


def _blur_matrix(size: int, sigma: float | tf.Tensor) -> tf.Tensor:
    """The float64 matrix [size, size] that blurs a signal of `size` values."""
    radius = _blur_radius(sigma)
    weights = _blur_weights(sigma, radius)
    # Mirror with the edge repeated: … 1 0 | 0 1 … n-1 | n-1 n-2 …, period 2n.
    source = tf.range(size)[:, tf.newaxis] + tf.range(-radius, radius + 1)
    source %= 2 * size  # [size, taps]
    source = tf.where(source < size, source, 2 * size - 1 - source)
    taps = tf.one_hot(source, size, dtype=tf.float64)  # [size, taps, size]
    return tf.einsum("t,rts->rs", weights, taps)
