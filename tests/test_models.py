import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from robust_tf import models
from robust_tf.errors import InvalidArgument
from robust_tf.models import CNN, Convolution, Standardization


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
def test_ablation_variants_need_no_new_code(batch_norm, dropout, activation):
    spec = CNN(
        (Convolution(4, 3, pool=2), Convolution(6, 3)), (5,), batch_norm, dropout, activation
    )
    model = models.build_cnn(spec, (9, 11, 2), 3)
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds.count("BatchNormalization") == 2 * batch_norm
    assert kinds.count("Dropout") == (dropout > 0)
    assert model.get_layer("activation_1").activation.__name__ == activation
    assert all(model.get_layer(f"conv_{i}").use_bias != batch_norm for i in (1, 2))
    assert model(np.zeros((2, 9, 11, 2), np.float32)).shape == (2, 3)


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
