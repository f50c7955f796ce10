"""Sensor changes as graph-mode ops on batches of images, and the registry of their kinds.

An op takes float32 images in [0, 1], one seed an image where it is random, and returns
new images of the same shape. It knows nothing of datasets, epochs or strategies.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from robust_tf import machine
from robust_tf import seeds as seeds_lib
from robust_tf.errors import InvalidArgument
from robust_tf.perturbations.conditions import Condition
from robust_tf.xla import by_rows, pack, unpack

# Independent draws of the same example seed.
_POSITIONS, _VALUES = 0, 1

# Blurs up to this radius, sigma 1.1, are sums of shifted images: 9 multiplications a pixel
# and axis, where a matrix has as many as the image is long.
_STENCIL_RADIUS = 4


def stuck(images: tf.Tensor, seeds: tf.Tensor, pixels: int | tf.Tensor) -> tf.Tensor:
    """Gives distinct random pixels a random value in each channel (paper, section V.A).

    Args:
        images: float32, shape [B, H, W, C], values in [0, 1].
        seeds: int32, shape [B, 2].
        pixels: how many pixels an image, 1 … H·W; a number or an integer scalar tensor.

    Returns:
        float32 tensor of shape [B, H, W, C]: `pixels` positions an image, drawn
        uniformly without replacement, hold values drawn from U[0, 1).
    """
    channels = images.shape[-1]
    values = seeds_lib.uniform(seeds, tf.cast(pixels, tf.int32) * channels, _VALUES)
    return _set_pixels(images, seeds, pixels, tf.reshape(values, [-1, channels]))


def dead(images: tf.Tensor, seeds: tf.Tensor, pixels: int | tf.Tensor) -> tf.Tensor:
    """Sets distinct random pixels to 0 in all channels (paper, section V.A).

    Arguments and result as in `stuck`; the positions are those of `stuck` and `hot`
    with the same seeds.
    """
    return _set_pixels(images, seeds, pixels, 0.0)


def hot(images: tf.Tensor, seeds: tf.Tensor, pixels: int | tf.Tensor) -> tf.Tensor:
    """Sets distinct random pixels to 1 in all channels (paper, section V.A).

    Arguments and result as in `stuck`; the positions are those of `stuck` and `dead`
    with the same seeds.
    """
    return _set_pixels(images, seeds, pixels, 1.0)


def noise(images: tf.Tensor, seeds: tf.Tensor, stddev: float | tf.Tensor) -> tf.Tensor:
    """Adds Gaussian noise and clips to [0, 1] (paper, section V.B).

    Args:
        images: float32, shape [B, H, W, C], values in [0, 1].
        seeds: int32, shape [B, 2].
        stddev: standard deviation of the noise in units of the value range, from 0 on;
            a number or scalar tensor. The paper's axes and text call it variance.

    Returns:
        float32 tensor of shape [B, H, W, C], values in [0, 1].
    """
    seeds = tf.convert_to_tensor(seeds, tf.int32)
    stddev = tf.cast(stddev, tf.float32)

    @tf.custom_gradient
    def add(images: tf.Tensor) -> tuple:
        noisy = _add_noise(images, seeds, stddev)

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            return tf.where((noisy > 0.0) & (noisy < 1.0), upstream, 0.0)  # not where clipped

        return noisy, gradient

    return add(tf.convert_to_tensor(images, tf.float32))


def _add_noise(images: tf.Tensor, seeds: tf.Tensor, stddev: tf.Tensor) -> tf.Tensor:
    size = math.prod(images.shape[1:])
    values = tf.reshape(images, [-1, size])
    if size % 4:
        values = tf.pad(values, [[0, 0], [0, -size % 4]])
    blocks = tf.bitcast(tf.reshape(values, [-1, values.shape[1] // 4, 4]), tf.complex128)
    blocks = _noisy_blocks((blocks, seeds), stddev)
    values = tf.reshape(tf.bitcast(blocks, tf.float32), [-1, values.shape[1]])
    return tf.reshape(values[:, :size], tf.shape(images))


@by_rows
def _noisy_blocks(batch: tuple[tf.Tensor, tf.Tensor], stddev: tf.Tensor) -> tf.Tensor:
    """Noise on blocks of four values: complex128 [B, K], packed, and int32 seeds [B, 2]."""
    blocks, seeds = batch
    values = unpack(blocks, tf.float32)
    normals = seeds_lib.normals(seeds, tf.range(blocks.shape[1]), draw=0)
    noisy = [tf.clip_by_value(x + stddev * n, 0.0, 1.0) for x, n in zip(values, normals)]
    return pack(tuple(noisy))


def blur(images: tf.Tensor, sigma: float | tf.Tensor, channel_blur: bool = False) -> tf.Tensor:
    """Blurs with a Gaussian, truncated at 4 sigma, borders mirrored (paper, section V.C).

    Equals `scipy.ndimage.gaussian_filter` of each image with `sigma` in height and
    width, `mode="reflect"` and `truncate=4.0`.

    Args:
        images: float32, shape [B, H, W, C], values in [0, 1].
        sigma: standard deviation of the Gaussian in pixels, from 0 on; a number or
            scalar tensor.
        channel_blur: blur over the channel axis too, as in the paper's figures.

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
    order of summation, which differs between batch sizes, does not touch the result.
    """
    return tf.grad_pass_through(tf.round)(values * 2.0**26) * 2.0**-26


def _set_pixels(
    images: tf.Tensor, seeds: tf.Tensor, pixels: int | tf.Tensor, values: Any
) -> tf.Tensor:
    images = tf.convert_to_tensor(images, tf.float32)
    height, width, channels = images.shape[1:]
    pixels = tf.cast(pixels, tf.int32)
    blocks = tf.range((pixels + 3) // 4)
    batch = (tf.convert_to_tensor(seeds, tf.int32),)
    positions = _distinct_positions(batch, blocks, pixels, height * width)[:, :pixels]
    # [B, k] positions within an image -> [B*k, 1] rows of [B*H*W, C]
    starts = tf.range(tf.shape(images)[0])[:, tf.newaxis] * (height * width)
    rows = tf.reshape(positions + starts, [-1, 1])
    values = tf.broadcast_to(values, [tf.size(rows), channels])
    flat = tf.reshape(images, [-1, channels])
    return tf.reshape(tf.tensor_scatter_nd_update(flat, rows, values), tf.shape(images))


@by_rows
def _distinct_positions(
    batch: tuple[tf.Tensor], blocks: tf.Tensor, count: tf.Tensor, size: int
) -> tf.Tensor:
    """Draws distinct numbers below `size` for each seed, all subsets alike.

    Robert Floyd's sampling (Bentley and Floyd, *A sample of brilliance*, CACM 1987):
    for j in size-count … size-1 it takes a number in 0 … j, or j if that is taken.

    Args:
        batch: int32 seeds [B, 2].
        blocks: 0 … K-1 with 4·K >= count; K gives XLA the result's shape.
        count: how many numbers, scalar.
        size: what they are below.

    Returns:
        int32 tensor of shape [B, 4·K], of which the first `count` columns count.
    """
    (seeds,) = batch
    words = tf.stack(seeds_lib.words(seeds, blocks, _POSITIONS), axis=-1)
    words = tf.reshape(words, [tf.shape(seeds)[0], 4 * tf.size(blocks)])
    columns = tf.range(4 * tf.size(blocks))
    tops = size - count + columns
    # A word times (j + 1), divided by 2**32: uniform but for less than size / 2**32.
    scaled = tf.cast(words, tf.uint64) * tf.cast(tops + 1, tf.uint64)
    drawn = tf.cast(tf.bitwise.right_shift(scaled, tf.constant(32, tf.uint64)), tf.int32)

    def settle(i: tf.Tensor, drawn: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        candidate = tf.gather(drawn, i, axis=1)[:, tf.newaxis]
        taken = tf.reduce_any((drawn == candidate) & (columns < i), axis=1, keepdims=True)
        return i + 1, tf.where((columns == i) & taken, tops, drawn)

    _, positions = tf.while_loop(lambda i, _: i < count, settle, (tf.constant(1), drawn))
    return positions


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


@dataclasses.dataclass(frozen=True)
class Kind:
    """What the registry knows of a kind of perturbation.

    Attributes:
        family: kinds of one family are tested together: "pixels", "noise" or "blur".
        unit: what the level counts, with its range, completing "expected …".
        random: whether the op takes seeds.
        whole: whether the level is a whole number.
        bounds: from (height, width) to the lowest and highest level.
        op: (images, seeds, level, channel_blur) to images.
        train_level: what is trained with by default: the level at which constant training on
            MNIST held best over the paper's tests (pixels), the strongest tested (others).
        train_range: the lowest and highest level of a mixture by default; the paper's tests
            are within.
        test_levels: what is tested by default, as in the paper (section VI).
    """

    family: str
    unit: str
    random: bool
    whole: bool
    bounds: Callable[[int, int], tuple[float, float]]
    op: Callable[[tf.Tensor, tf.Tensor | None, Any, bool], tf.Tensor]
    train_level: float
    train_range: tuple[float, float]
    test_levels: tuple[float, ...]


def _pixels(op: Callable, train_level: int) -> Kind:
    return Kind(
        family="pixels",
        unit="number of pixels",
        random=True,
        whole=True,
        bounds=lambda height, width: (1, height * width),
        op=lambda images, seeds, level, _: op(images, seeds, level),
        train_level=train_level,
        train_range=(1, 10),
        test_levels=(2,),
    )


KINDS: dict[str, Kind] = {
    "stuck": _pixels(stuck, train_level=4),
    "dead": _pixels(dead, train_level=5),
    "hot": _pixels(hot, train_level=6),
    "noise": Kind(
        family="noise",
        unit="standard deviation",
        random=True,
        whole=False,
        bounds=lambda height, width: (0, 1),
        op=lambda images, seeds, level, _: noise(images, seeds, level),
        train_level=0.05,
        train_range=(0.005, 0.05),
        test_levels=(0.0255, 0.03775, 0.05),
    ),
    "blur": Kind(
        family="blur",
        unit="sigma in pixels",
        random=False,
        whole=False,
        bounds=lambda height, width: (0, max(height, width)),
        op=lambda images, _, level, channel_blur: blur(images, level, channel_blur),
        train_level=1.0,
        train_range=(0.1, 1.0),
        test_levels=(0.5, 0.75, 1.0),
    ),
}


@dataclasses.dataclass(frozen=True)
class Perturbation(Condition):
    """A kind of perturbation at one level: comparable, hashable, callable on a batch.

    Args:
        kind: "stuck", "dead", "hot", "noise" or "blur".
        level: number of pixels (1 … H·W), standard deviation of the noise (0 … 1) or
            sigma of the blur in pixels (0 … longer side). May be a scalar tensor, so
            that one traced function serves all levels; tensors are not checked.
        channel_blur: blur over the channel axis too (kind "blur" only).

    Raises:
        InvalidArgument: if the kind is unknown or the level out of every range.

    Example:
        >>> str(Perturbation("hot", 2))
        'hot 2'
    """

    kind: str
    level: Any
    channel_blur: bool = False

    def __post_init__(self):
        """Checks what can be checked without an image."""
        if self.kind not in KINDS:
            raise InvalidArgument("perturb", self.kind, f"one of {', '.join(KINDS)}")
        # A graph is told by TensorSpecs what tensors it gets.
        if not (tf.is_tensor(self.level) or isinstance(self.level, tf.TensorSpec)):
            object.__setattr__(self, "level", self._checked_level(None))

    @property
    def random(self) -> bool:
        """Whether two trials differ."""
        return KINDS[self.kind].random

    @property
    def family(self) -> str:
        """The kinds that are tested together: "pixels", "noise" or "blur"."""
        return KINDS[self.kind].family

    def check(self, image_shape: tuple[int, int, int]) -> None:
        """Checks the level against images of shape (H, W, C).

        Raises:
            InvalidArgument: if the level is out of range for such images.
        """
        if not tf.is_tensor(self.level):
            self._checked_level(image_shape)

    def __call__(self, images: tf.Tensor, seeds: tf.Tensor | None = None) -> tf.Tensor:
        """Perturbs a batch.

        Args:
            images: float32, shape [B, H, W, C], values in [0, 1]; H, W, C static.
            seeds: int32, shape [B, 2]; not needed where `random` is false.

        Returns:
            float32 tensor of shape [B, H, W, C], values in [0, 1].

        Raises:
            InvalidArgument: if the level is out of range for these images.
        """
        self.check(tuple(images.shape[1:]))
        op = KINDS[self.kind].op
        perturbed = op(images, seeds, self.level, self.channel_blur)
        return tf.ensure_shape(perturbed, images.shape)

    def __tf_flatten__(self) -> tuple[tuple, tuple]:
        """The level is a tensor: one trace serves all of a kind."""
        return (self.kind, self.channel_blur), (tf.convert_to_tensor(self.level, tf.float64),)

    @classmethod
    def __tf_unflatten__(cls, metadata: tuple, components: tuple) -> "Perturbation":
        """The perturbation whose level is a tensor."""
        (kind, channel_blur), (level,) = metadata, components
        return cls(kind, level, channel_blur)

    def _checked_level(self, image_shape: tuple[int, int, int] | None) -> float:
        kind = KINDS[self.kind]
        low, high = kind.bounds(*(image_shape or (math.inf, math.inf))[:2])
        noun = "a whole number" if kind.whole else "a number"
        upper = f"from {low:g} to {high:g}" if high < math.inf else f"from {low:g} on"
        expected = f"{noun} {upper} ({kind.unit} of {self.kind})"
        try:
            level = float(self.level)
        except (TypeError, ValueError):
            raise InvalidArgument("level", self.level, expected) from None
        fits = math.isfinite(level) and low <= level <= high
        if not fits or (kind.whole and level != int(level)):
            raise InvalidArgument("level", f"{level:g}", expected)
        return int(level) if kind.whole else level


def perturb(
    inputs: Any,
    kind: str,
    level: float,
    *,
    seed: int = 0,
    index: int | tf.Tensor | None = None,
    epoch: int | tf.Tensor | None = None,
    channel_blur: bool = False,
) -> Any:
    """Perturbs one image, a batch of images, or a `tf.data.Dataset`.

    Image i comes out the same, to the bit, alone, in a batch of any size, in a dataset
    and in any order, as long as it has the same index.

    Args:
        inputs: float32 values in [0, 1]: an image [H, W, C], a batch [B, H, W, C], or a
            dataset of either, alone, as the first item of tuples, or under "image" in
            dictionaries.
        kind: as in `Perturbation`.
        level: as in `Perturbation`.
        seed: the experiment's seed, a whole number from 0 on.
        index: what example an image is: a scalar for an image, [B] for a batch. By
            default its place in the batch; in a dataset always its place there.
        epoch: draw anew for each epoch; by default the draw is the same in all.
        channel_blur: as in `Perturbation`.

    Returns:
        What came in, with perturbed images.

    Raises:
        InvalidArgument: if an argument is out of range, or images are not float32
            tensors with three or four axes.

    Example:
        >>> images = tf.zeros([4, 28, 28, 1])
        >>> float(tf.reduce_sum(perturb(images, "hot", 3)))
        12.0
    """
    perturbation = Perturbation(kind, level, channel_blur)
    base = seeds_lib.stream_seed(seed, "perturbation")
    if isinstance(inputs, tf.data.Dataset):
        return _perturb_dataset(inputs, perturbation, base, epoch)
    images = tf.convert_to_tensor(inputs)
    _check_images(images)
    if index is None:
        index = 0 if images.shape.rank == 3 else tf.range(tf.shape(images)[0])
    return _perturb_images(images, perturbation, base, index, epoch)


def example_seeds(base: Any, index: Any, epoch: Any = None) -> tf.Tensor:
    """The seeds of examples: `base` with index and, where given, epoch folded in.

    Args:
        base: int32 seed of a stream, shape [2].
        index: example indices, shape [B].
        epoch: scalar; None where a perturbation is the same in all epochs.

    Returns:
        int32 tensor of shape [B, 2].
    """
    seeds = seeds_lib.fold_in(base, index)
    return seeds if epoch is None else seeds_lib.fold_in(seeds, epoch)


def _check_images(images: Any) -> None:
    if images.dtype != tf.float32 or images.shape.rank not in (3, 4):
        received = f"{images.dtype.name} {images.shape}"
        raise InvalidArgument(
            "images", received, "float32 values in [0, 1], shape [H, W, C] or [B, H, W, C]"
        )


def _perturb_images(
    images: tf.Tensor, perturbation: Perturbation, base: Any, index: Any, epoch: Any
) -> tf.Tensor:
    if images.shape.rank == 3:
        return _perturb_images(images[tf.newaxis], perturbation, base, [index], epoch)[0]
    return perturbation(images, example_seeds(base, index, epoch))


def _perturb_dataset(
    dataset: tf.data.Dataset, perturbation: Perturbation, base: Any, epoch: Any
) -> tf.data.Dataset:
    def images_of(element: Any) -> tf.Tensor:
        if isinstance(element, dict):
            return element["image"]
        return element[0] if isinstance(element, tuple) else element

    def replaced(element: Any, images: tf.Tensor) -> Any:
        if isinstance(element, dict):
            return {**element, "image": images}
        return (images, *element[1:]) if isinstance(element, tuple) else images

    def number(start: tf.Tensor, item: Any) -> tuple:
        images = images_of(item)
        size = tf.shape(images)[0] if images.shape.rank == 4 else 1
        return start + tf.cast(size, tf.int64), (start, item)

    def apply(start: tf.Tensor, item: Any) -> Any:
        images = images_of(item)
        index = start
        if images.shape.rank == 4:
            index += tf.range(tf.shape(images)[0], dtype=tf.int64)
        return replaced(item, _perturb_images(images, perturbation, base, index, epoch))

    _check_images(images_of(dataset.element_spec))
    numbered = dataset.scan(tf.constant(0, tf.int64), number)
    # Not AUTOTUNE; see `data.without_autotuning`. The rest of the pipeline is the caller's.
    return numbered.map(apply, num_parallel_calls=machine.cores())
