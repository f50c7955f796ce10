"""What an export answers, through its graph alone."""

import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.core.protobuf import config_pb2

from robust_tf import models, saved_models


@pytest.fixture(scope="module")
def loaded(exported):
    return tf.saved_model.load(str(exported))


@pytest.fixture(scope="module")
def in_colour(tmp_path_factory):
    """An untrained network for colour images."""
    model = models.build("mnist_cnn", (30, 20, 3), 4)
    directory = tmp_path_factory.mktemp("colour") / "run"
    folder = saved_models.export(model, directory, label_names="abcd", training={})
    return tf.saved_model.load(str(folder))


@pytest.fixture(scope="module")
def fed(exported):
    """Feeds a signature any tensor, as a server does: nothing checks its shape before."""
    graph = tf.Graph()
    session = tf.compat.v1.Session(graph=graph)
    with graph.as_default():
        signatures = tf.compat.v1.saved_model.load(session, ["serve"], str(exported)).signature_def

    def feed(name, images):
        signature = signatures[name]
        options = config_pb2.CallableOptions(
            feed=[info.name for info in signature.inputs.values()],
            fetch=[info.name for info in signature.outputs.values()],
        )
        # Unlike `run`, it compares no declared shape, and leaves that to the graph.
        call = session._make_callable_from_options(options)
        return dict(zip(signature.outputs, call(images)))

    yield feed
    session.close()


def test_the_signatures_are_as_documented(loaded):
    assert set(loaded.signatures) == {"serving_default", "encoded", "features"}
    for name, dtype, shape in [
        ("serving_default", tf.float32, [None, 28, 28, 1]),
        ("encoded", tf.string, [None]),
        ("features", tf.float32, [None, 28, 28, 1]),
    ]:
        signature = loaded.signatures[name]
        (images,) = signature.structured_input_signature[1].values()
        assert (images.name, images.dtype, images.shape.as_list()) == ("images", dtype, shape)
        outputs = {
            key: (spec.dtype, spec.shape.as_list())
            for key, spec in signature.structured_outputs.items()
        }
        assert outputs == (
            {"features": (tf.float32, [None, 160])}
            if name == "features"
            else {"probabilities": (tf.float32, [None, 10]), "label": (tf.int64, [None])}
        )


def test_batches_of_any_size(loaded, sample):
    images = sample.test.images_at(tf.range(7))
    serve = loaded.signatures["serving_default"]
    together = serve(images=images)["probabilities"]
    alone = [serve(images=images[i : i + 1])["probabilities"] for i in range(7)]
    np.testing.assert_allclose(together, tf.concat(alone, axis=0), atol=1e-6)
    assert serve(images=images[:0])["probabilities"].shape == [0, 10]


@pytest.mark.parametrize("name", ["serving_default", "features"])
@pytest.mark.parametrize(
    "shape", [(28, 28, 1), (2, 28, 28), (2, 28, 27, 1), (2, 56, 14, 1), (2, 28, 28, 3), (784,), ()]
)
def test_images_of_another_shape_are_an_error(fed, name, shape):
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        fed(name, np.full(shape, 0.5, np.float32))
    received = " ".join(map(str, shape))
    assert "images: expected shape [N, 28, 28, 1], received" in caught.value.message
    assert f"[{received}]" in caught.value.message


@pytest.mark.parametrize("name", ["serving_default", "features"])
@pytest.mark.parametrize("value", [-0.001, 1.001, 255.0, np.nan, np.inf, -np.inf])
def test_values_outside_0_and_1_are_an_error(fed, loaded, name, value):
    images = np.full([2, 28, 28, 1], 0.5, np.float32)
    images[1, 3, 4, 0] = value
    expected = r"images: expected values in \[0, 1\], received minimum and maximum"
    with pytest.raises(tf.errors.InvalidArgumentError, match=expected):
        fed(name, images)
    with pytest.raises(tf.errors.InvalidArgumentError, match=expected):
        loaded.signatures[name](images=tf.constant(images))


def test_0_and_1_themselves_are_allowed(fed):
    images = np.float32([0, 1])[:, None, None, None] * np.ones([28, 28, 1], np.float32)
    assert fed("serving_default", images)["label"].shape == (2,)


def probabilities(loaded, images):
    return loaded.signatures["serving_default"](images=tf.constant(images))["probabilities"]


def encoded(loaded, *files):
    return loaded.signatures["encoded"](images=tf.constant(files))["probabilities"]


def file(image: Image.Image, form: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def test_a_file_is_answered_as_its_pixels_are(loaded, sample):
    pixels = sample.test.images[:3].numpy()
    files = [file(Image.fromarray(image[..., 0])) for image in pixels]
    expected = probabilities(loaded, pixels / np.float32(255))
    np.testing.assert_allclose(encoded(loaded, *files), expected, atol=1e-6)


def test_files_of_different_sizes_and_channels_in_one_batch(loaded, sample):
    grey = Image.fromarray(sample.test.images[0, ..., 0].numpy())
    large = grey.resize((84, 56), Image.Resampling.NEAREST)
    files = [file(grey.convert(mode)) for mode in ("L", "RGB", "LA", "RGBA", "P")]
    files += [file(large.convert("RGB"), "JPEG"), file(grey, "BMP"), file(grey.convert("RGB"))]
    answers = encoded(loaded, *files).numpy()
    assert answers.shape == (8, 10)
    np.testing.assert_allclose(answers[:5], np.tile(answers[:1], [5, 1]), atol=1e-4)


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("RGBA", 3), ("L", 1), ("LA", 1)])
def test_colour_stays_and_grey_becomes_colour(in_colour, mode, channels):
    pixels = np.random.default_rng(0).integers(0, 256, [30, 20, len(mode)], np.uint8)
    image = Image.fromarray(pixels[..., 0] if mode == "L" else pixels, mode)
    kept = np.broadcast_to(pixels[..., :channels], [30, 20, 3]) / np.float32(255)
    expected = probabilities(in_colour, kept[np.newaxis])
    np.testing.assert_allclose(encoded(in_colour, file(image)), expected, atol=1e-6)


def test_colours_become_grey_by_their_luma(loaded):
    pixels = np.random.default_rng(0).integers(0, 256, [28, 28, 3], np.uint8)
    luma = pixels / np.float32(255) @ np.float32([[0.299], [0.587], [0.114]])  # ITU-R BT.601
    expected = probabilities(loaded, luma[np.newaxis].clip(0, 1))
    answer = encoded(loaded, file(Image.fromarray(pixels)))
    np.testing.assert_allclose(answer, expected, atol=1e-3)


@pytest.mark.parametrize("size", [(200, 120), (20, 10), (31, 300)])
def test_a_file_of_another_size_is_resized(in_colour, size):
    """A smooth image, where all good resizing agrees; Pillow's is antialiased too."""
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    image = Image.fromarray((255 * np.stack([x, y, x * y], axis=-1)).astype(np.uint8))
    resized = np.asarray(image.resize((20, 30), Image.Resampling.BILINEAR)) / np.float32(255)
    expected = probabilities(in_colour, resized[np.newaxis])
    np.testing.assert_allclose(encoded(in_colour, file(image)), expected, atol=0.01)


def test_the_resized_image_is_within_a_grey_level_of_pillows():
    from robust_tf.saved_models.signatures import decoded

    pixels = np.random.default_rng(1).integers(0, 256, [90, 70, 3], np.uint8)
    image = Image.fromarray(pixels)
    expected = np.asarray(image.resize((20, 30), Image.Resampling.BILINEAR))
    (received,) = decoded(tf.constant([file(image)]), (30, 20, 3)).numpy()
    assert np.abs(255 * received - expected).max() < 1.1


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_image_is_an_error(loaded, content):
    with pytest.raises(tf.errors.InvalidArgumentError):
        encoded(loaded, content)


def test_other_numbers_of_channels_have_no_encoded_signature(tmp_path):
    model = models.build("mnist_cnn", (28, 28, 2), 3)
    folder = saved_models.export(model, tmp_path, label_names="abc", training={})
    assert set(tf.saved_model.load(str(folder)).signatures) == {"serving_default", "features"}
    assert not (folder / saved_models.EXAMPLE).exists()


def test_keras_reloads_the_features_and_trains_them(exported, trained, sample):
    """By `TFSMLayer`, the way of Keras's own guide to transfer learning from SavedModels."""
    layer = keras.layers.TFSMLayer(
        exported, call_endpoint="features", call_training_endpoint="features_training"
    )
    images = sample.test.images_at(tf.range(64))
    inner = keras.Model(trained.input, trained.get_layer("logits").input)
    expected = inner(images, training=False)
    np.testing.assert_allclose(layer(images, training=False), expected, atol=1e-5)
    # In training mode: statistics of the batch, and dropout.
    assert np.abs(layer(images, training=True) - expected).max() > 0.1
    moved = np.abs(layer(images, training=False) - expected).max()
    assert moved > 1e-4  # the moving statistics took that batch in
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(images, training=True) ** 2)
    gradients = tape.gradient(loss, layer.trainable_weights)
    assert len(gradients) == len(trained.trainable_weights) - 2  # all but the last layer's
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)
