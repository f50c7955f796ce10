"""Networks of the user's own that cannot be trained: one line each, with the way out."""

import keras
import numpy as np
import pytest

from robust_tf.errors import InvalidArgument, Unavailable
from tests.test_own_networks import nets as nets
from tests.test_own_networks import place as place
from tests.test_own_networks import run_of


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(10)

    def call(self, images):
        return self.dense(keras.ops.mean(images, axis=(1, 2)))


def subclassed():
    model = Subclassed()
    model(np.zeros([1, 28, 28, 1]))
    return model


def subclassed_elsewhere():
    model = type("Own", (Subclassed,), {"__module__": "gone_module"})()
    model(np.zeros([1, 28, 28, 1]))
    return model


class Unregistered(keras.layers.Layer):
    def call(self, images):
        return images


def unregistered():
    Unregistered.__module__ = "gone_module"
    return ends_with(Unregistered(), keras.layers.Dense(10))


def ends_with(*layers):
    return keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), *layers])


BAD = {
    "with a Lambda layer": (
        lambda: ends_with(keras.layers.Lambda(lambda x: 2 * x), keras.layers.Dense(10)),
        "the function of a Lambda layer.*; make it a layer class",
    ),
    "without a dense layer": (
        lambda: ends_with(keras.layers.Reshape((784,))),
        "expected a dense layer at the end, not Reshape",
    ),
    "with another activation": (
        lambda: ends_with(keras.layers.Dense(10, "relu")),
        "expected a dense layer without activation",
    ),
    "for other images": (
        lambda: keras.Sequential(
            [keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(10)]
        ),
        r"expected a network for images of shape \(28, 28, 1\), not \(32, 32, 3\)",
    ),
    "with two outputs": (
        lambda: keras.Model(
            images := keras.Input((28, 28, 1)),
            [keras.layers.Dense(10)(keras.layers.Flatten()(images)) for _ in range(2)],
        ),
        "expected a network of one input and one output, not 1 inputs and 2 outputs",
    ),
    "subclassed": (subclassed, "subclassed model .*; expected a keras.Sequential or keras.Model"),
    "subclassed elsewhere": (subclassed_elsewhere, "subclassed model .*; expected a keras.Seq"),
    "of unknown layers": (unregistered, "expected a module gone_module in"),
}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("argument", ["model", "pretrained"])
def test_a_file_that_cannot_be_trained_says_why_in_one_line(small, tmp_path, what, argument):
    make, message = BAD[what]
    path = str(tmp_path / "bad.keras")
    make().save(path)
    perturbed = {"strategy": "transfer", "perturb": "hot"} if argument == "pretrained" else {}
    with pytest.raises(Unavailable, match=f"^{argument}=.*bad.keras: .*{message}") as caught:
        run_of(small, **{argument: path}, **perturbed)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"model": "gone.keras"}, Unavailable, "there is no such file"),
        ({"model": "broken.keras"}, Unavailable, "expected a file that keras.Model.save wrote"),
        ({"model": "three.keras"}, InvalidArgument, "a network with 10 outputs.*, not 3"),
        ({"model": "no_module:f"}, Unavailable, "expected a module no_module in .*none of that"),
        ({"model": "own_nets:g"}, Unavailable, "expected a function g in the module own_nets"),
        ({"model": "own_nets:text"}, Unavailable, "returns a keras.Model, not str"),
        ({"model": "own_nets:fails"}, Unavailable, r"fails for .* \(no such block\)"),
        ({"model": "own_nets:unknown"}, Unavailable, "locate function 'unregistered'; it needs"),
        ({"model": "own_nets:unsaid"}, Unavailable, "a custom layer needs a get_config"),
        ({"model": "own_nets:two"}, Unavailable, "expected a network of one input"),
        ({"model": "keras.applications:VGG"}, InvalidArgument, "a name of .*VGG16"),
        ({"model": "keras.applications:VGG16"}, Unavailable, "does not take images of shape"),
        ({"model": "vgg"}, InvalidArgument, "one of mnist_cnn, .*, or PATH.keras, package"),
        ({"model": "own_nets:plain", "weights": "w.h5"}, InvalidArgument, "no value but with"),
        ({"model": "own_nets:plain", "depth": 10}, InvalidArgument, "no value with model=plain"),
        ({"model": "compact", "value_range": (0, 255)}, InvalidArgument, "no value with model="),
        ({"model": "own_nets:plain", "value_range": (1, 0)}, InvalidArgument, "the lower first"),
        (
            {"model": "keras.applications:ResNet50", "weights": "gone.h5"},
            Unavailable,
            "weights=gone.h5: there is no such file",
        ),
    ],
)
def test_what_is_no_network_says_so_in_one_line(nets, small, given, error, message):
    with open("broken.keras", "w") as file:
        file.write("no zip")
    nets.plain((28, 28, 1), 3).save("three.keras")
    with pytest.raises(error, match=message) as caught:
        run_of(small, **given)
    assert len(str(caught.value).splitlines()) == 1
