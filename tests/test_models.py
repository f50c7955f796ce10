import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from robust_tf import models, saved_models
from robust_tf.errors import InvalidArgument
from robust_tf.models import MODELS, Standardization
from robust_tf.models.networks import mnist_cnn, wide_resnet
from robust_tf.saved_models import classifiers
from robust_tf.settings import declared, of_function
from robust_tf.training import SGD, Natural, Recipe, fit
from tests.helpers import weights as weights_of


def batches(images: np.ndarray, size: int = 7) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(images.astype(np.float32)).batch(size)


def test_the_papers_mnist_network():
    model = models.build("mnist_cnn", (28, 28, 1), 10, standardize="none")
    kinds = [type(layer).__name__ for layer in model.layers[1:]]
    assert kinds == [
        "Conv2D", "BatchNormalization", "Activation", "MaxPooling2D", "Dropout", "Flatten", "Dense",
    ]  # fmt: skip
    assert model.get_layer("flatten").output.shape == (None, 160)
    # 7·7·10 kernel weights, 10 scales and shifts, 160·10 + 10 in the dense layer.
    assert sum(w.shape.num_elements() for w in _trainable(model)) == 490 + 20 + 1610


def test_the_papers_cifar10_network():
    model = models.build("cifar10_cnn", (32, 32, 3), 10, standardize="none")
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.filters for layer in convolutions] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert {layer.kernel_size for layer in convolutions} == {(3, 3)}
    assert model.get_layer("flatten").output.shape == (None, 2048)
    dropouts = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert [layer.rate for layer in dropouts] == [0.2] * 4


def _trainable(model):
    return [tf.convert_to_tensor(weight) for weight in model.trainable_weights]


def test_batch_norm_constants():
    layer = models.build("mnist_cnn", (28, 28, 1), 10).get_layer("batch_norm_1")
    assert (layer.epsilon, layer.momentum) == (1e-5, 0.9)


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("dropout", [0.2, 0.0])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("name", ["mnist_cnn", "cifar10_cnn", "compact"])
def test_ablation_variants_need_no_new_code(name, batch_norm, dropout, activation):
    changes = {"batch_norm": batch_norm, "dropout": dropout, "activation": activation}
    model = models.build(name, (19, 21, 2), 3, **changes)
    kinds = [type(layer).__name__ for layer in model.layers]
    convolutions = {"mnist_cnn": 1, "cifar10_cnn": 8, "compact": 6}[name]
    assert kinds.count("Conv2D") == convolutions
    assert kinds.count("BatchNormalization") == convolutions * batch_norm
    assert kinds.count("Dropout") == kinds.count("MaxPooling2D") * (dropout > 0)
    numbers = range(1, convolutions + 1)
    used = {model.get_layer(f"activation_{i}").activation.__name__ for i in numbers}
    assert used == {activation}
    assert all(model.get_layer(f"conv_{i}").use_bias != batch_norm for i in numbers)
    assert model(np.zeros((2, 19, 21, 2), np.float32)).shape == (2, 3)


def test_output_is_logits():
    model = models.build("mnist_cnn", (28, 28, 1), 10)
    logits = model(np.random.default_rng(0).random((50, 28, 28, 1), np.float32)).numpy()
    assert (logits < 0).any() and not np.allclose(logits.sum(axis=1), 1)


def test_seed_decides_weights_and_dropout():
    def state(seed):
        model = models.build("mnist_cnn", (28, 28, 1), 10, seed=seed)
        return [variable.value.numpy() for variable in model.variables]

    first, again, other = state(1), state(1), state(2)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    different = [bool((a != b).any()) for a, b in zip(first, other, strict=True)]
    assert sum(different) == 3  # convolution, dense kernel, dropout seed


def test_mixed_precision_leaves_standardisation_weights_and_logits_alone():
    model = models.build("cifar10_cnn", (32, 32, 3), 10, precision="mixed_bfloat16")
    computes = {layer.name: layer.compute_dtype for layer in model.layers}
    plain = {"images", "standardization", "logits"}
    assert {computes[name] for name in plain} == {"float32"}
    assert {dtype for name, dtype in computes.items() if name not in plain} == {"bfloat16"}
    assert {weight.dtype for weight in model.weights} <= {"float32", "uint32"}
    assert models.precision_of(model) == "mixed_bfloat16"
    with pytest.raises(InvalidArgument, match="precision=float8: expected one of float32, mixed"):
        models.build("mnist_cnn", (28, 28, 1), 10, precision="float8")


def test_errors():
    with pytest.raises(InvalidArgument, match="model=resnet: expected one of mnist_cnn"):
        models.build("resnet", (28, 28, 1), 10)
    with pytest.raises(InvalidArgument, match=r"model=mnist_cnn: .* images of shape \(6, 6, 1\)"):
        models.build("mnist_cnn", (6, 6, 1), 10)
    with pytest.raises(InvalidArgument, match="dropout=1.0: expected a rate from 0 to below 1"):
        models.build("mnist_cnn", (28, 28, 1), 10, dropout=1.0)
    with pytest.raises(InvalidArgument, match="width=2: expected one of the settings batch_norm"):
        models.build("mnist_cnn", (28, 28, 1), 10, width=2)
    with pytest.raises(InvalidArgument, match="standardize=rows: expected one of pixel, global"):
        models.build("mnist_cnn", (28, 28, 1), 10, standardize="rows")
    with pytest.raises(InvalidArgument, match="standardize=none: expected pixel or global"):
        Standardization("none")


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000), count=st.integers(2, 40), mode=st.sampled_from(["pixel", "global"])
)
def test_standardization_is_numpys(seed, count, mode):
    images = np.random.default_rng(seed).random((count, 4, 3, 2), np.float32)
    layer = Standardization(mode)
    layer.build(images.shape)
    layer.adapt(batches(images))
    axes = 0 if mode == "pixel" else None
    values = images.astype(np.float64)
    expected = (values - values.mean(axis=axes)) / values.std(axis=axes)
    np.testing.assert_allclose(layer(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("constant", [0.0, 1.0, 0.3])
def test_a_constant_position_becomes_exactly_0_whatever_arrives(constant):
    images = np.random.default_rng(0).random((500, 4, 3, 1), np.float32)
    images[:, 1, 2] = constant
    layer = Standardization("pixel")
    layer.build(images.shape)
    layer.adapt(batches(images))
    arriving = np.random.default_rng(1).random((50, 4, 3, 1), np.float32)
    arriving[0] = 1.0
    out = layer(arriving).numpy()
    assert (out[:, 1, 2] == 0).all()
    assert (out[:, 0, 0] != 0).all()


def test_a_position_that_varies_once_keeps_its_tiny_deviation():
    images = np.zeros((10_000, 2, 2, 1), np.float32)
    images[77, 0, 0] = 1 / 255
    layer = Standardization("pixel")
    layer.build(images.shape)
    layer.adapt(batches(images, 1000))
    deviation = images[:, 0, 0].astype(np.float64).std()
    hot = layer(np.ones((1, 2, 2, 1), np.float32)).numpy()[0, :, :, 0]
    assert hot[0, 0] == pytest.approx(1 / deviation, rel=1e-3)
    assert hot[1, 1] == 0


def test_standardization_survives_serialisation():
    model = models.build("mnist_cnn", (28, 28, 1), 10, standardize="global")
    copy = keras.models.model_from_json(model.to_json())
    assert copy.get_layer("standardization").mode == "global"


def test_a_model_of_the_registry_with_other_components():
    changes = {"batch_norm": False, "dropout": 0.0, "activation": "tanh"}
    model = models.build("mnist_cnn", (28, 28, 1), 10, standardize="none", **changes)
    kinds = [type(layer).__name__ for layer in model.layers[1:]]
    assert kinds == ["Conv2D", "Activation", "MaxPooling2D", "Flatten", "Dense"]
    assert model.get_layer("activation_1").activation is keras.activations.tanh
    assert model.get_layer("conv_1").use_bias


@pytest.mark.parametrize("shape", [(6, 4, 5, 3), (7, 10)])
def test_batch_normalization_is_that_of_keras(shape):
    rng = np.random.default_rng(0)
    inputs = tf.constant(rng.normal(2.0, 3.0, shape), tf.float32)
    weights = tf.constant(rng.normal(size=shape), tf.float32)
    found = []
    for layer in (
        models.BatchNormalization(momentum=0.9),
        keras.layers.BatchNormalization(momentum=0.9),
    ):
        layer.build(shape)
        layer.gamma.assign(np.linspace(0.5, 2.0, shape[-1]))
        layer.beta.assign(np.linspace(-1.0, 1.0, shape[-1]))
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=True)
            loss = tf.reduce_sum(weights * outputs**2)
        gradients = tape.gradient(loss, [inputs, layer.gamma.value, layer.beta.value])
        found.append([outputs, *gradients, *layer.weights, layer(inputs, training=False)])
    for ours, keras_own in zip(*found):
        np.testing.assert_allclose(ours, keras_own, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    "options",
    [{"scale": False}, {"center": False}, {"dtype": "mixed_float16"}, {"trainable": False}],
)
def test_batch_normalization_takes_the_options_of_keras(options):
    inputs = tf.constant(np.random.default_rng(0).normal(2.0, 3.0, (6, 4, 5, 3)), tf.float32)
    found = [
        kind(**options)(inputs, training=True)
        for kind in (models.BatchNormalization, keras.layers.BatchNormalization)
    ]
    assert found[0].dtype == found[1].dtype
    np.testing.assert_allclose(found[0], found[1], rtol=2e-4, atol=2e-5)


def test_the_compact_network_and_its_work():
    model = models.build("compact", (32, 32, 3), 10, standardize="global", mirror=True)
    assert model(np.zeros((2, 32, 32, 3), np.float32)).shape == (2, 10)
    assert {layer.name for layer in model.layers} >= {"add_4", "add_6", "global_pool"}
    # What the convolutions multiply for an image: width and height, kernel, channels.
    work = sum(
        layer.kernel.shape.num_elements() * np.prod(layer.output.shape[1:3])
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D)
    )
    assert work == 76_382_208


def test_a_residual_convolution_adds_its_input():
    model = models.build("compact", (8, 8, 3), 2)
    for number in (4, 6):
        before, after, total = (
            keras.Model(model.input, model.get_layer(name).output)
            for name in (f"activation_{number - 1}", f"activation_{number}", f"add_{number}")
        )
        images = np.random.default_rng(0).random((3, 8, 8, 3), np.float32)
        np.testing.assert_allclose(total(images), before(images) + after(images), rtol=1e-6)


@pytest.mark.parametrize("name", ["compact", "wide_resnet"])
def test_a_mirrored_model_averages_over_both_images(name):
    mirrored, plain = (
        models.build(name, (8, 8, 3), 5, mirror=mirror, seed=2) for mirror in (True, False)
    )
    images = np.random.default_rng(0).random((4, 8, 8, 3), np.float32)
    both = (plain(images) + plain(images[:, :, ::-1])) / 2
    np.testing.assert_allclose(mirrored(images), both, atol=1e-5)
    assert mirrored(images, training=True).shape == (4, 5)


@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize("name", ["compact", "wide_resnet"])
def test_it_comes_back_from_its_saved_model(tmp_path, name, mirror):
    model = models.build(name, (8, 8, 3), 5, mirror=mirror, seed=2)
    folder = saved_models.export(model, tmp_path / "m", label_names=list("abcde"), training={})
    images = np.random.default_rng(0).random((4, 8, 8, 3), np.float32)
    loaded = saved_models.load(folder)
    np.testing.assert_allclose(loaded(images), model(images), atol=1e-5)
    signatures = tf.saved_model.load(str(folder)).signatures
    found = signatures["serving_default"](images=tf.constant(images))["probabilities"]
    np.testing.assert_allclose(found, tf.nn.softmax(model(images)), atol=1e-5)
    assert signatures["features"](images=tf.constant(images))["features"].shape == (4, 256)
    headed = models.with_new_head(loaded, 5, (7,), freeze_base=True)
    assert headed(images).shape == (4, 5)


def parameters_of_wide_resnet(depth: int, width: int, channels: int, classes: int) -> int:
    """Counted by hand: convolutions, scale and shift of batch norms, and the last layer."""
    count, before = 9 * channels * 16, 16
    for filters in (16 * width, 32 * width, 64 * width):
        for _ in range((depth - 4) // 6):
            count += 2 * before + 9 * before * filters + 2 * filters + 9 * filters * filters
            count += before * filters * (before != filters)
            before = filters
    return count + 2 * before + (before + 1) * classes


# Millions, as Zagoruyko and Komodakis (2016) have them in tables 4 and 5 for CIFAR-10.
@pytest.mark.parametrize(("depth", "width", "millions"), [(16, 4, 2.7), (28, 10, 36.5)])
def test_wide_resnet_has_the_published_number_of_parameters(depth, width, millions):
    model = models.build("wide_resnet", (32, 32, 3), 10, depth=depth, width=width)
    count = sum(weight.shape.num_elements() for weight in _trainable(model))
    assert count == parameters_of_wide_resnet(depth, width, channels=3, classes=10)
    assert abs(count / 1e6 - millions) < 0.06


@pytest.mark.parametrize("depth", [10, 16, 22])
def test_wide_resnet_has_as_many_convolutions_as_its_depth_says(depth):
    model = models.build("wide_resnet", (32, 32, 3), 10, depth=depth, width=2, dropout=0.3)
    names = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    along_the_way = [name for name in names if name.startswith("conv_")]
    # The authors' depth counts the convolutions of the three shortcuts, not the last layer.
    assert (len(along_the_way), len(names)) == (depth - 3, depth)
    dropouts = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert [layer.rate for layer in dropouts] == [0.3] * (3 * (depth - 4) // 6)
    assert len({layer.seed for layer in dropouts}) == len(dropouts)


@pytest.mark.parametrize("shape", [(8, 8, 1), (9, 13, 2), (32, 32, 3), (50, 40, 3)])
def test_wide_resnet_takes_images_of_any_size(shape):
    model = models.build("wide_resnet", shape, 4, depth=10, width=1)
    height, width, _ = shape
    last = model.get_layer("global_pool").input.shape
    assert last == (None, -(-height // 4), -(-width // 4), 64)
    assert models.features(model).output_shape == (None, 64)
    assert model(np.zeros((2, *shape), np.float32)).shape == (2, 4)


def test_a_block_of_wide_resnet_adds_its_input_or_a_convolution_of_it():
    """Zagoruyko and Komodakis: where the number of channels stays, nothing is on the shortcut."""
    model = models.build("wide_resnet", (8, 8, 3), 4, depth=16, width=2)
    images = np.random.default_rng(0).random((3, 8, 8, 3), np.float32)
    outputs = {
        layer.name: value
        for layer, value in zip(
            model.layers, keras.Model(model.input, [one.output for one in model.layers])(images)
        )
    }
    for total, shortcut, branch in [
        ("add_3", "shortcut_2", "conv_3"), ("add_5", "add_3", "conv_5"),
        ("add_7", "shortcut_6", "conv_7"), ("add_9", "add_7", "conv_9"),
    ]:  # fmt: skip
        np.testing.assert_allclose(
            outputs[total], outputs[shortcut] + outputs[branch], rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("depth", [4, 15, 17, -2])
def test_the_depth_of_wide_resnet(depth):
    for build in (wide_resnet, lambda *given, **own: models.build("wide_resnet", *given, **own)):
        with pytest.raises(InvalidArgument, match=rf"depth={depth}: expected 6n \+ 4 with n from"):
            build((32, 32, 3), 10, depth=depth)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_wide_resnet_learns(precision):
    """To tell bright from dark images."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 64)
    images = (random.random((64, 12, 10, 1)) * 0.5 + 0.5 * labels[:, None, None, None]).astype("f")
    model = models.build("wide_resnet", (12, 10, 1), 2, depth=10, width=1, precision=precision)
    assert models.precision_of(model) == precision
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss, metrics=["accuracy"])
    model.fit(images, labels, batch_size=16, epochs=5, shuffle=False, verbose=0)
    logits = model(images, training=True)
    assert logits.dtype == tf.float32
    assert (np.argmax(logits, axis=1) == labels).mean() > 0.95


def test_every_network_declares_its_settings():
    for name, network in MODELS.items():
        settings_of = declared(of_function(network))
        model = models.build(name, (32, 32, 3), 10)
        given = {one.name: one.default for one in settings_of.values()}
        again = network((32, 32, 3), 10, **given)
        assert model.to_json() == again.to_json()
    assert set(declared(of_function(mnist_cnn))) == {"batch_norm", "dropout", "activation"}
    assert set(declared(of_function(wide_resnet))) == {"depth", "width", "dropout"}


def test_a_plain_copy_computes_the_same_and_goes_on_alike():
    model = models.build("compact", (8, 8, 3), 5, dropout=0.5, mirror=True)
    images = np.random.default_rng(0).random((6, 8, 8, 3), np.float32)
    for _ in range(2):
        model(images, training=True)  # moves statistics and dropout
    copy = models.plain(model)
    assert "BatchNormalization" in {type(layer).__name__ for layer in copy.layers}
    assert not any(isinstance(layer, models.BatchNormalization) for layer in copy.layers)
    for own, other in zip(model.variables, copy.variables, strict=True):
        np.testing.assert_array_equal(own, other)
    np.testing.assert_array_equal(model(images, training=False), copy(images, training=False))
    first, second = model(images, training=True), copy(images, training=True)
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-4)


# What users may have set, in keras.json or by a call.
GLOBAL_SETTINGS = [
    {"floatx": "float16", "epsilon": 0.1},
    {"image_data_format": "channels_first", "floatx": "float64"},
    {"dtype_policy": "mixed_bfloat16", "max_epochs": 1, "max_steps_per_epoch": 1},
]


@pytest.fixture
def keras_set(request):
    """Settings of Keras for a test."""
    config = keras.config
    known = [name for name in request.param if hasattr(config, name)]
    before = {name: getattr(config, name)() for name in known}
    for name in known:
        getattr(config, f"set_{name}")(request.param[name])
    yield {name: request.param[name] for name in known}
    after = {name: getattr(config, name)() for name in known}
    for name in known:
        getattr(config, f"set_{name}")(before[name])
    policies = {name: getattr(value, "name", value) for name, value in after.items()}
    assert policies == {name: request.param[name] for name in known}  # left as they were


def trained_and_reloaded(small, folder) -> tuple:
    """What a small training makes: history, weights before and after export, description."""
    build = functools.partial(models.build, "mnist_cnn", (28, 28, 1), 10, seed=2)
    recipe = Recipe(epochs=2, batch_size=100, optimizer=SGD(learning_rate=0.01))
    training = Natural().prepare(small.train, build, recipe)
    history = fit(training)
    names = list("0123456789")
    export = saved_models.export(training.model, folder, label_names=names, training={})
    loaded = saved_models.load(export)
    new = models.with_new_head(loaded, 3, [4], seed=1)
    scores = classifiers.load(export)(small.test.images_at([0, 1]))
    description = (export / "assets.extra" / "model.json").read_text(encoding="utf-8")
    exact = history[["epoch", "loss", "accuracy"]].to_numpy().tolist()
    all_weights = map(weights_of, (training.model, loaded, new))
    return exact, *all_weights, scores, description


@pytest.fixture(scope="module")
def by_default(small, tmp_path_factory):
    return trained_and_reloaded(small, tmp_path_factory.mktemp("default") / "m")


@pytest.mark.parametrize("keras_set", GLOBAL_SETTINGS, indirect=True, ids=str)
def test_the_users_settings_of_keras_change_no_bit(by_default, keras_set, small, tmp_path):
    found = trained_and_reloaded(small, tmp_path / "m")
    for ours, theirs in zip(by_default, found, strict=True):
        if isinstance(ours, str):
            assert ours == theirs
        else:
            for a, b in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(a, b)
                assert np.asarray(a).dtype == np.asarray(b).dtype


def test_settings_come_back_after_an_error():
    before = keras.config.floatx()
    keras.config.set_floatx("float16")
    try:
        with pytest.raises(InvalidArgument):
            models.build("nothing", (28, 28, 1), 10)
        assert keras.config.floatx() == "float16"
    finally:
        keras.config.set_floatx(before)
