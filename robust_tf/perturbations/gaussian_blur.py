"""Gaussian blur, as a graph-mode op on batches of images.

Narrow kernels are sums of shifted images, wide ones products with matrices: of the whole image
where it is small, of tiles where it is large.
"""

from collections.abc import Callable

import tensorflow as tf

from robust_tf.perturbations.values import on_grid, sizes
from robust_tf.xla import by_rows, in_slabs, in_xla, worth_compiling

# Blurs up to this radius, sigma 1.1, are sums of shifted images: 9 multiplications per pixel
# and axis, where a matrix has as many as the image is long.
_STENCIL_RADIUS = 4
# Where it is not worth to compile for one size of images: so many values in a row.
_ROW = 1024
# The longest side of images that are multiplied with whole matrices.
_SMALL = 64
# Tiles are computed for so many values at once: 64 MiB.
_AT_ONCE = 2**23


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
    _, height, width, _ = sizes(images)
    if tf.is_tensor(height) or tf.is_tensor(width):
        shortest, longest = tf.minimum(height, width), tf.maximum(height, width)
    else:
        shortest, longest = min(height, width), max(height, width)

    def by_matrices() -> tf.Tensor:
        return _cond(
            in_xla() or longest <= _SMALL,  # XLA does not know how many tiles there are
            lambda: _blur_by_matrices(images, sigma, channel_blur),
            lambda: _blur_by_tiles(images, sigma, channel_blur),
        )

    def narrow() -> tf.Tensor:
        if worth_compiling(images):
            weights = _blur_weights(sigma, _STENCIL_RADIUS)
            return _blur_by_stencil((images,), weights)
        return _blur_in_rows(images, _blur_weights(sigma, _STENCIL_RADIUS))

    return _cond(
        channel_blur or shortest < _STENCIL_RADIUS,
        # The matrices would round what is not blurred at all.
        lambda: _cond(radius > 0, by_matrices, lambda: images),
        lambda: _cond(radius <= _STENCIL_RADIUS, narrow, by_matrices),
    )


def _cond(condition: bool | tf.Tensor, if_true: Callable, if_false: Callable) -> tf.Tensor:
    """As `tf.cond`, with only one branch in the graph where the condition is known."""
    if tf.is_tensor(condition):
        return tf.cond(condition, if_true, if_false)
    return if_true() if condition else if_false()


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


def _blur_in_rows(images: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """The same sums for images of any size, each channel's lines one after the other."""
    channels = tf.transpose(images, [0, 3, 1, 2])  # [B, C, H, W]
    across = tf.transpose(_blur_last_axis(channels, weights), [0, 1, 3, 2])
    blurred = tf.transpose(_blur_last_axis(across, weights), [0, 3, 2, 1])  # [B, H, W, C]
    return tf.clip_by_value(blurred, 0.0, 1.0)


def _blur_last_axis(values: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    radius = _STENCIL_RADIUS
    length = sizes(values)[-1]
    before, after = values[..., :radius][..., ::-1], values[..., length - radius :][..., ::-1]
    mirrored = tf.concat([before, values, after], axis=-1)
    flat = tf.reshape(mirrored, [-1])
    flat = tf.pad(flat, [[0, -tf.size(flat) % _ROW]])
    rows = tf.reshape(flat, [-1, _ROW])
    following = tf.roll(rows[:, : 2 * radius], -1, axis=0)
    blurred = in_slabs(_blur_rows, (tf.concat([rows, following], axis=1),), weights)
    blurred = tf.reshape(blurred, [-1])[: tf.size(mirrored)]
    # What straddles two lines, at the end of each, is not meant.
    return tf.reshape(blurred, tf.shape(mirrored))[..., :length]


@by_rows
def _blur_rows(batch: tuple[tf.Tensor], weights: tf.Tensor) -> tf.Tensor:
    """Weighted sums of neighbours: [R, n + 2 * radius] to [R, n]."""
    (rows,) = batch
    weights = tf.cast(weights, tf.float32)
    radius = _STENCIL_RADIUS
    length = rows.shape[1] - 2 * radius
    blurred = weights[radius] * rows[:, radius : radius + length]
    for k in range(1, radius + 1):
        before, after = rows[:, radius - k :][:, :length], rows[:, radius + k :][:, :length]
        blurred += weights[radius + k] * (before + after)
    return blurred


def _blur_by_matrices(images: tf.Tensor, sigma: float | tf.Tensor, channel_blur: bool) -> tf.Tensor:
    """Products with a matrix of weights on each side; any radius."""
    _, height, width, channels = sizes(images)
    rows = _blur_matrix(height, sigma)
    columns = _blur_matrix(width, sigma)
    across = _blur_matrix(channels, sigma if channel_blur else 0.0)
    # One product for columns and channels: [W, W] x [C, C] -> [W*C, W*C].
    columns = tf.einsum("vw,dc->vdwc", columns, across)
    columns = tf.reshape(columns, [width * channels, width * channels])
    values = tf.cast(images, tf.float64)
    values = tf.reshape(values, [-1, width * channels])  # [B, H, W, C] -> [B*H, W*C]
    values = tf.matmul(on_grid(values), on_grid(columns), transpose_b=True)
    values = tf.reshape(values, [-1, height, width * channels])  # -> [B, H, W*C]
    values = tf.matmul(on_grid(rows), on_grid(values))
    values = tf.clip_by_value(tf.cast(values, tf.float32), 0.0, 1.0)  # may round beyond
    return tf.reshape(values, tf.shape(images))


def _blur_by_tiles(images: tf.Tensor, sigma: float | tf.Tensor, channel_blur: bool) -> tf.Tensor:
    """The same one axis after the other; any radius, in memory in proportion to the image."""
    _, height, width, channels = sizes(images)
    values = tf.cast(images, tf.float64)
    if channel_blur:
        values = tf.matmul(
            on_grid(values), on_grid(_blur_matrix(channels, sigma)), transpose_b=True
        )
    values = tf.transpose(values, [0, 3, 1, 2])  # [B, C, H, W]
    values = tf.transpose(_tiles_of_last_axis(values, width, sigma), [0, 1, 3, 2])
    values = tf.transpose(_tiles_of_last_axis(values, height, sigma), [0, 3, 2, 1])
    return tf.clip_by_value(tf.cast(values, tf.float32), 0.0, 1.0)


def _tiles_of_last_axis(
    values: tf.Tensor, length: int | tf.Tensor, sigma: float | tf.Tensor
) -> tf.Tensor:
    """Blurs float64 [..., n]: each tile and what it reaches, times one matrix for all tiles."""
    radius = _blur_radius(sigma)
    # A mirrored line has the period 2n: weights that are so far apart meet the same value.
    period = 2 * length
    around = tf.range(-radius, radius + 1) % period
    folded = tf.math.unsorted_segment_sum(_blur_weights(sigma, radius), around, period)

    def one_tile() -> tuple[tf.Tensor, tf.Tensor]:
        source, to = tf.range(length), tf.range(length)[:, tf.newaxis]
        mirrored = tf.gather(folded, (period - 1 - source - to) % period)
        return source[tf.newaxis], tf.gather(folded, (source - to) % period) + mirrored

    def tiles() -> tuple[tf.Tensor, tf.Tensor]:
        near = tf.range(-radius, tile + radius)
        source = (tf.range(-(-length // tile))[:, tf.newaxis] * tile + near) % period
        offset = near[:, tf.newaxis] - tf.range(tile)
        weights = tf.where(tf.abs(offset) <= radius, tf.gather(folded, offset % period), 0.0)
        return tf.where(source < length, source, period - 1 - source), weights

    tile = tf.maximum(2 * radius, _SMALL)
    # [tiles, what each reaches] and [what it reaches, tile]
    source, weights = tf.cond(tile + 2 * radius < length, tiles, one_tile)
    weights = on_grid(weights)

    def blurred(lines: tf.Tensor) -> tf.Tensor:
        products = tf.matmul(on_grid(tf.gather(lines, source, axis=1)), weights)
        return tf.reshape(products, [tf.shape(lines)[0], -1])[:, :length]

    lines = tf.reshape(values, [-1, length])
    count = tf.shape(lines)[0]
    at_once = tf.maximum(1, _AT_ONCE // tf.size(source))
    groups = tf.maximum(1, -(-count // at_once))
    at_once = -(-count // groups)
    lines = tf.pad(lines, [[0, groups * at_once - count], [0, 0]])
    lines = tf.reshape(lines, [groups, at_once, length])
    done = tf.map_fn(blurred, lines, parallel_iterations=1)
    return tf.reshape(tf.reshape(done, [-1, length])[:count], tf.shape(values))


def _blur_radius(sigma: float | tf.Tensor) -> int | tf.Tensor:
    if not tf.is_tensor(sigma):
        return int(4.0 * float(sigma) + 0.5)
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
