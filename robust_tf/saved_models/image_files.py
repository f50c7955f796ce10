"""Images from the bytes of their files, as graph functions.

Nothing is decoded before its size is known: a file of some kilobytes can claim gigabytes.
"""

import tensorflow as tf

# More than a camera of 24 megapixels makes; decoding so many takes 400 to 500 MB.
MAX_PIXELS = 25_000_000

FORMATS = ("PNG", "JPEG", "GIF", "BMP")
# As an export states it.
ACCEPTED = {"formats": FORMATS, "max_pixels": MAX_PIXELS}
_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM")
_PALETTE_BYTES = 4 * 256
# More than a GIF of 5 MB has; each takes microseconds to step over.
_MOST_BLOCKS = 20_000


def decoded(files: tf.Tensor, shape: tuple[int, int, int]) -> tf.Tensor:
    """Images from the bytes of their files.

    Pixels are taken as they are stored: an orientation in a photo's EXIF data is not
    followed, as TensorFlow Datasets does not follow it either.

    Args:
        files: string [N]: PNG, JPEG, GIF (of which the first frame counts) or BMP, of any
            size up to `MAX_PIXELS`.
        shape: (H, W, C) of the images to make; C is 1 or 3.

    Returns:
        float32 [N, H, W, C] in [0, 1]: without alpha, made grey or coloured, resized.

    Raises:
        tf.errors.InvalidArgumentError: when it runs on another file, or one with more pixels.
    """
    height, width, channels = shape

    def decode(file: tf.Tensor) -> tf.Tensor:
        content = tf.pad(tf.io.decode_raw(file, tf.uint8), [[0, _PALETTE_BYTES]])
        with tf.control_dependencies(_checks(file, content)):
            stored = tf.io.decode_image(file, expand_animations=False)
        has_palette = (tf.strings.substr(file, 0, 2) == b"BM") & (_number(content, 28, 2) == 8)
        image = tf.cond(has_palette, lambda: _colours(content, stored), lambda: stored)
        is_grey = tf.shape(image)[-1] < 3  # 1, or 2 with alpha
        image = tf.cast(image[..., : tf.where(is_grey, 1, 3)], tf.float32) / 255.0
        if channels == 1:
            convert = [lambda: image, lambda: tf.image.rgb_to_grayscale(image)]
        else:
            convert = [lambda: tf.repeat(image, 3, axis=-1), lambda: image]
        image = tf.ensure_shape(tf.cond(is_grey, *convert), [None, None, channels])
        image = tf.image.resize(image, [height, width], antialias=True)
        return tf.clip_by_value(image, 0.0, 1.0)  # resizing may round beyond

    # One after the other, so that the memory is that of one.
    spec = tf.TensorSpec(shape, tf.float32)
    return tf.map_fn(decode, files, parallel_iterations=1, fn_output_signature=spec)


def _checks(file: tf.Tensor, content: tf.Tensor) -> list[tf.Operation]:
    """Refuses what is no image file of a known form and size."""
    begins = tf.stack([tf.strings.substr(file, 0, len(start)) == start for start in _STARTS])
    expected = f"images: expected files of {', '.join(FORMATS)}, received bytes"
    known = tf.debugging.Assert(tf.reduce_any(begins), [expected, content[:8]])
    sizes = [
        lambda: _size_of_png(content),
        lambda: tf.reduce_prod(tf.io.extract_jpeg_shape(file, tf.int64)[:2]),
        lambda: _size_of_gif(content),
        lambda: _size_of_bmp(content),
    ]
    with tf.control_dependencies([known]):
        form = tf.argmax(tf.cast(begins, tf.int32), output_type=tf.int32)
    with tf.control_dependencies([known]):
        pixels = tf.switch_case(form, sizes)
    expected = "images: expected a legible header, of a BMP with 8, 24 or 32 bits uncompressed"
    legible = tf.debugging.Assert(pixels >= 0, [expected])
    expected = f"images: expected files of at most {MAX_PIXELS} pixels, received"
    return [legible, tf.debugging.Assert(pixels <= MAX_PIXELS, [expected, pixels])]


def _number(content: tf.Tensor, at: tf.Tensor | int, size: int, big: bool = False) -> tf.Tensor:
    """The unsigned number at a place, int64; its last byte is the lowest if `big`, or its first."""
    powers = [256**power for power in range(size)]
    return tf.reduce_sum(
        tf.cast(content[at : at + size], tf.int64) * (powers[::-1] if big else powers)
    )


def _size_of_png(content: tf.Tensor) -> tf.Tensor:
    """The number of pixels, int64, here and below; -1 if the header is not legible."""
    pixels = _number(content, 16, 4, big=True) * _number(content, 20, 4, big=True)
    is_header = _number(content, 12, 4, big=True) == int.from_bytes(b"IHDR", "big")
    return tf.where(is_header, pixels, -1)


def _size_of_bmp(content: tf.Tensor) -> tf.Tensor:
    width, height = _number(content, 18, 4), _number(content, 22, 4)
    height = tf.minimum(height, 2**32 - height)  # negative where the first row is the top
    bits, compression = _number(content, 28, 2), _number(content, 30, 4)
    plain = (compression == 0) & ((bits == 8) | (bits == 24) | (bits == 32))
    # 3: the bits of red, green and blue follow; they must be the usual ones.
    usual = (_number(content, 54, 4) == 0xFF0000) & (_number(content, 58, 4) == 0xFF00)
    legible = plain | ((bits == 32) & (compression == 3) & usual)
    return tf.where(legible & (_number(content, 14, 4) >= 40), width * height, -1)


def _size_of_gif(content: tf.Tensor) -> tf.Tensor:
    """That of all frames together: the decoder reads them all before it gives the first.

    It gives an image as wide as the widest and as high as the highest.
    """
    end = tf.size(content) - _PALETTE_BYTES
    record, blocks, done, damaged = 0, 1, 2, 3  # what comes next

    def table(at: tf.Tensor) -> tf.Tensor:  # the bytes of colours that flags announce
        flags = tf.cast(content[at], tf.int32)
        return tf.where(flags >= 128, 3 * 2 ** (flags % 8 + 1), 0)

    def goes_on(at: tf.Tensor, state: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        return (at < end) & (state < done)

    def step(at: tf.Tensor, state: tf.Tensor, *sizes: tf.Tensor) -> tuple[tf.Tensor, ...]:
        value = tf.cast(content[at], tf.int32)

        def of_blocks() -> tuple[tf.Tensor, ...]:
            return (at + 1 + value, tf.where(value == 0, record, blocks), *sizes)

        def of_record() -> tuple[tf.Tensor, ...]:
            width, height = _number(content, at + 5, 2), _number(content, at + 7, 2)
            frame = tf.where(value == ord(","), [width, height, width * height], 0)
            # The decoder misreads an extension without blocks.
            extension = tf.where(content[at + 2] == 0, damaged, blocks)
            other = tf.where(value == ord("!"), extension, done)
            return (
                at + tf.where(value == ord(","), 11 + table(at + 9), 2),
                tf.where(value == ord(","), blocks, other),
                tf.maximum(sizes[0], frame[0]),
                tf.maximum(sizes[1], frame[1]),
                sizes[2] + frame[2],
            )

        return tf.cond(state == blocks, of_blocks, of_record)

    none = tf.constant(0, tf.int64)
    first = (13 + table(tf.constant(10)), tf.constant(record), none, none, none)
    at, state, width, height, total = tf.while_loop(
        goes_on, step, first, parallel_iterations=1, maximum_iterations=_MOST_BLOCKS
    )
    legible = (state != damaged) & ~goes_on(at, state)
    return tf.where(legible, tf.maximum(width * height, total), -1)


def _colours(content: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
    """Looks up the colours of a BMP, uint8 [H, W, 3], or [H, W, 1] where all are grey."""
    at = 14 + _number(content, 14, 4)
    used = _number(content, 46, 4)
    table = tf.reshape(content[at : at + _PALETTE_BYTES], [256, 4])[:, 2::-1]
    is_used = tf.range(256, dtype=tf.int64) < tf.where(used > 0, used, 256)
    grey = tf.reduce_all((table == table[:, :1]) | ~is_used[:, tf.newaxis])
    return tf.gather(table[:, : tf.where(grey, 1, 3)], tf.cast(indices[..., 0], tf.int32))
