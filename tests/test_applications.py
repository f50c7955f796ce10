"""Networks of `keras.applications`: built, preprocessed, and with weights of files."""

import sys

import keras
import numpy as np
import pytest

from robust_tf import runs
from robust_tf.errors import Unavailable
from robust_tf.models import applications
from tests.helpers import fake_data, weights


@pytest.fixture(scope="module")
def mobile_net():
    """Features of a network of Keras's, which takes seconds to build."""
    return keras.applications.MobileNetV2(
        weights=None, include_top=False, pooling="avg", input_shape=(32, 32, 3)
    )


def test_a_network_of_keras_applications(mobile_net, monkeypatch, tmp_path):
    monkeypatch.setattr(keras.utils, "get_file", lambda *_, **__: pytest.fail("a download"))
    data = fake_data(3, 100)
    model = "keras.applications:MobileNetV2"
    run = runs.resolve(data, model=model)
    built = run.build_model(data)
    mobile_net.set_weights(weights(built)[:-2])
    images = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    seen = keras.applications.mobilenet_v2.preprocess_input(255 * images)
    expected = mobile_net(seen) @ built.weights[-2] + built.weights[-1]
    np.testing.assert_allclose(built(images), expected, rtol=1e-5, atol=1e-6)
    assert (run.recipe.schedule, str(run.model).split()[0]) == ("one_cycle", "MobileNetV2")
    mobile_net.save_weights(path := str(tmp_path / "notop.weights.h5"))
    started = runs.resolve(data, model=model, weights=path)
    assert started.name != run.name
    for a, b in zip(weights(started.build_model(data))[:-2], weights(mobile_net), strict=True):
        np.testing.assert_array_equal(a, b)
    mobile_net.set_weights([1 + w for w in weights(mobile_net)])
    mobile_net.save_weights(path)
    with pytest.raises(Unavailable, match="weights=.*: the file has changed meanwhile"):
        started.build_model(data)
    assert runs.resolve(data, model=model, weights=path).name != started.name
    whole = keras.Model(mobile_net.input, keras.layers.Dense(7)(mobile_net.output))
    whole.save(path := str(tmp_path / "whole.h5"))  # for other classes
    started = runs.resolve(data, model=model, weights=path).build_model(data)
    for a, b in zip(weights(started)[:-2], weights(mobile_net), strict=True):
        np.testing.assert_array_equal(a, b)

    other = keras.layers.BatchNormalization(name="extra")(mobile_net.output)
    keras.Model(mobile_net.input, keras.layers.Dense(10)(other)).save(tmp_path / "other.keras")
    with pytest.raises(Unavailable, match="of MobileNetV2, not of a model with the layer extra"):
        runs.resolve(data, model=model, weights=str(tmp_path / "other.keras"))


def test_weights_that_are_of_another_network_are_one_line(tmp_path, recwarn):
    data = fake_data(3, 100)
    path = tmp_path / "own.weights.h5"
    keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Conv2D(2, 3)]).save_weights(path)
    (tmp_path / "text.h5").write_text("no weights")
    for file in (path, tmp_path / "text.h5"):
        with pytest.raises(Unavailable, match="expected weights of MobileNetV2 for images of 3 ch"):
            runs.resolve(data, model="keras.applications:MobileNetV2", weights=str(file))
    assert not [warning for warning in recwarn if "Skipping" in str(warning.message)]


@pytest.mark.parametrize(
    "name", ["MobileNetV2", "ResNet50", "DenseNet121", "EfficientNetB0", "VGG16", "NASNetMobile"]
)
def test_the_preprocessing_is_that_of_keras(name):
    images = keras.Input((4, 5, 3))
    model = keras.Model(images, applications._preprocessed(images, name))
    batch = np.random.default_rng(0).random((2, 4, 5, 3), np.float32)
    module = sys.modules[getattr(keras.applications, name).__module__]
    expected = module.preprocess_input(255 * batch.copy())
    np.testing.assert_allclose(model(batch), expected, rtol=1e-5, atol=1e-4)
    reloaded = keras.models.model_from_json(model.to_json())
    np.testing.assert_array_equal(reloaded(batch), model(batch))
