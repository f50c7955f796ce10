"""Networks of the user's own, and models that others have trained, through runs."""

import pickle
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

import robust_tf as rt
from robust_tf import models, runs, saved_models
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.models import adapted, custom_objects, heads
from tests.helpers import CONDITIONS, fake_data, weights

# Small enough that a training takes a second or two.
NETS = '''
import keras


@keras.saving.register_keras_serializable("nets")
class Scale(keras.layers.Layer):
    """A custom layer with a weight that no initializer of its configuration makes."""

    def build(self, shape):
        self.by = self.add_weight(shape=(shape[-1],), initializer="random_normal")

    def call(self, x):
        return x * (1 + self.by)


@keras.saving.register_keras_serializable("nets")
def twice(x):
    return 2 * x


def plain(image_shape, classes, activation="softmax"):
    images = keras.Input(image_shape)
    x = keras.layers.Conv2D(4, 3, strides=2, name="stem")(images)
    x = keras.layers.Activation("relu")(keras.layers.BatchNormalization()(x))
    x = keras.layers.Dropout(0.2)(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(images, keras.layers.Dense(classes, activation=activation)(x))


def sequential(image_shape, classes):
    return keras.Sequential([
        keras.layers.Rescaling(2.0, -1.0), keras.layers.Conv2D(4, 3, strides=3),
        keras.layers.Flatten(), keras.layers.Dense(classes), keras.layers.Softmax(),
    ])


def nested(image_shape, classes):
    base = plain(image_shape, 3)
    base = keras.Model(base.input, base.layers[-2].output, name="base")
    top = keras.Sequential([keras.Input((4,)), keras.layers.Dense(classes, "sigmoid")])
    return keras.Sequential([keras.Input(image_shape), base, top])


def custom(image_shape, classes):
    images = keras.Input(image_shape)
    x = keras.layers.Conv2D(4, 3, strides=2, activation=twice)(images)
    x = keras.ops.relu(Scale()(x)) / 3.0
    return keras.Model(images, keras.layers.Dense(classes)(keras.layers.Flatten()(x)))


def unregistered(x):
    return x


def unknown(image_shape, classes):
    images = keras.Input(image_shape)
    x = keras.layers.Flatten()(keras.layers.Activation(unregistered)(images))
    return keras.Model(images, keras.layers.Dense(classes)(x))


class NoConfig(keras.layers.Layer):
    def __init__(self, made):
        super().__init__()
        self.made = made

    def call(self, x):
        return x


def unsaid(image_shape, classes):
    images = keras.Input(image_shape)
    x = keras.layers.Flatten()(NoConfig(keras.layers.ReLU())(images))
    return keras.Model(images, keras.layers.Dense(classes)(x))


def two(image_shape, classes):
    images = [keras.Input(image_shape) for _ in range(2)]
    x = keras.layers.Flatten()(keras.layers.Add()(images))
    return keras.Model(images, keras.layers.Dense(classes)(x))


def text(image_shape, classes):
    return "a network"


def fails(image_shape, classes):
    raise RuntimeError("no such block")
'''
FUNCTIONS = ("plain", "sequential", "nested", "custom")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_nets.py").write_text(textwrap.dedent(NETS))
    return folder


@pytest.fixture
def nets(place, monkeypatch):
    """A module in the working directory, which no path leads to."""
    monkeypatch.chdir(place)
    return custom_objects.imported("own_nets", "model", "own_nets")


def run_of(data, **given) -> runs.Run:
    return runs.resolve(data, **{"epochs": 1, "batch_size": 50, **given})


def trained(run, data, folders) -> keras.Model:
    runs.train(run, data, progress=False, **folders)
    return runs.load_model(run, folders["output_dir"], folders["saved_models_dir"])


def probabilities(run, folders, images) -> np.ndarray:
    """What the SavedModel of a run answers."""
    path = saved_models.find("model", folders["saved_models_dir"] / run.name)
    loaded = tf.saved_model.load(str(path))
    return loaded.signatures["serving_default"](images=images)["probabilities"].numpy()


@pytest.mark.parametrize(
    ("momentum", "nested", "kept"),
    [(0.99, False, False), (0.999, True, False), (0.9999, False, False), (0.5, True, True)],
)
def test_batch_norm_learns_the_mean_in_a_short_training(small, folders, momentum, nested, kept):
    """Of the network's own input, whose mean NumPy knows."""
    images = keras.Input((28, 28, 1))
    norm = keras.layers.BatchNormalization(momentum=momentum)
    x = keras.Sequential([norm, keras.layers.ReLU()])(images) if nested else norm(images)
    x = keras.layers.Dense(10)(keras.layers.Flatten()(x))
    run = run_of(small, model=keras.Model(images, x), strategy="natural", epochs=10)
    model = trained(run, small, folders)
    (layer,) = (one for one in heads.leaves(model) if type(one) is type(norm))
    pixels = small.train.images_at(tf.range(200)).numpy()
    np.testing.assert_allclose(layer.moving_mean, [pixels.mean()], rtol=0.05)
    np.testing.assert_allclose(layer.moving_variance, [pixels.var()], rtol=0.05)
    assert layer.momentum == (momentum if kept else 40 / 50)


@pytest.mark.parametrize(
    ("function", "strategy", "more"),
    [
        ("plain", "natural", {}),
        ("sequential", "constant", {"value_range": (0, 255)}),
        ("nested", "incremental", {"value_range": (-1, 1), "epochs": 2}),
        ("custom", "constant", {"standardize": "pixel"}),
    ],
)
def test_the_export_answers_as_the_users_own_model(nets, small, folders, function, strategy, more):
    perturbed = {} if strategy == "natural" else {"perturb": "hot,noise"}
    run = run_of(small, model=f"own_nets:{function}", strategy=strategy, **perturbed, **more)
    model = trained(run, small, folders)
    assert [layer.name for layer in model.layers][-2:] == ["network", "logits"]
    own = getattr(nets, function)((28, 28, 1), 10)
    if not own.built:
        own.build((None, 28, 28, 1))
    values = [w.numpy() for layer in model.layers[-2:] for w in layer.weights]
    own.set_weights(values)
    images = small.test.images_at(tf.range(20))
    low, high = more.get("value_range", (0, 1))
    seen = low + (high - low) * images
    if "standardize" in more:
        layer = model.get_layer("standardization")
        seen = 0.5 + 0.25 * (images - layer.mean) * layer.scale
    scores = own(seen, training=False).numpy()
    if function == "custom":  # has logits
        scores = tf.nn.softmax(scores).numpy()
    if function == "nested":  # has a sigmoid, whose logits make the probabilities
        scores = tf.nn.softmax(np.log(scores / (1 - scores))).numpy()
    np.testing.assert_allclose(probabilities(run, folders, images), scores, atol=2e-6)
    assert (np.ptp(scores, axis=0) > 0).any()


def test_the_seed_decides_all_weights(nets, small):
    for function in FUNCTIONS:
        first, again, other = (
            run_of(small, model=f"own_nets:{function}", seed=seed).build_model(small)
            for seed in (0, 0, 1)
        )
        for a, b, c in zip(weights(first), weights(again), weights(other), strict=True):
            np.testing.assert_array_equal(a, b)
            assert np.ptp(a) == 0 or (a != c).any()


def test_a_run_carries_its_network_to_processes_without_the_file(nets, small, tmp_path):
    nets.plain((28, 28, 1), 10).save(tmp_path / "net.keras")
    run = run_of(small, model=str(tmp_path / "net.keras"))
    elsewhere = pickle.loads(pickle.dumps(run))
    (tmp_path / "net.keras").unlink()
    for a, b in zip(
        weights(run.build_model(small)), weights(elsewhere.build_model(small)), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert elsewhere == run and elsewhere.name == run.name


def test_a_network_is_known_by_its_content(nets, small, tmp_path):
    for name in ("a", "b"):  # Keras gives the layers other names
        nets.plain((28, 28, 1), 10).save(tmp_path / f"{name}.keras")
    nets.plain((28, 28, 1), 10, "linear").save(tmp_path / "logits.keras")
    nets.plain((28, 28, 1), 10).save(tmp_path / "old.h5")
    files = [str(tmp_path / name) for name in ("a.keras", "b.keras", "logits.keras", "old.h5")]
    same = {run_of(small, model=model).name for model in [*files, "own_nets:plain"]}
    assert len(same) == 1
    different = [{"model": f"own_nets:{function}"} for function in FUNCTIONS if function != "plain"]
    different += [{"value_range": (0, 255)}, {"standardize": "global"}, {"seed": 1}]
    names = {run_of(small, **{"model": files[0], **one}).name for one in different}
    assert len(names | same) == len(different) + 1
    assert run_of(small, model=files[0], value_range=(0, 1)).name in same
    assert run_of(small, model=nets.plain((28, 28, 1), 10)).name in same
    columns = run_of(small, model=files[0], value_range=(-1, 1)).columns()
    assert columns["model"].startswith("a ") and columns["value_range"] == "-1,1"


@pytest.mark.parametrize(
    ("function", "ending", "freeze_base", "more"),
    [
        ("plain", "h5", True, {}),
        ("sequential", "keras", False, {"standardize": "global"}),
        ("nested", "keras", True, {"value_range": (0, 255)}),
        ("custom", "keras", False, {}),
    ],
)
def test_a_trained_model_of_others(
    nets, small, folders, tmp_path, function, ending, freeze_base, more
):
    path = str(tmp_path / f"mine.{ending}")
    own = getattr(nets, function)((28, 28, 1), 3)
    own.build((None, 28, 28, 1))
    own.set_weights([w + 0.01 * i for i, w in enumerate(own.get_weights())])
    own.save(path)
    run = run_of(
        small, strategy="transfer", perturb="hot", pretrained=path, freeze_base=freeze_base,
        head_units=(8,), **more,
    )  # fmt: skip
    model = trained(run, small, folders)
    base = weights(model.get_layer("network"))
    before = own.get_weights()[:-2]
    assert [w.shape for w in base] == [w.shape for w in before]
    same = [a.tobytes() == b.tobytes() for a, b in zip(base, before)]
    assert all(same) if freeze_base else not any(same)
    assert model.output_shape == (None, 10)
    assert run.standardize == more.get("standardize", "none")
    # Another file with the same content is the same start; one with other weights is not.
    own.save(tmp_path / f"copy.{ending}")
    again = {"strategy": "transfer", "perturb": "hot", "freeze_base": freeze_base, **more}
    again["head_units"] = (8,)
    digest = run.start.split()[-1]
    assert run_of(small, pretrained=str(tmp_path / f"copy.{ending}"), **again).start[-8:] == digest
    own.set_weights([w + 1 for w in own.get_weights()])
    own.save(tmp_path / f"other.{ending}")
    assert run_of(small, pretrained=str(tmp_path / f"other.{ending}"), **again).start[-8:] != digest


def test_a_frozen_network_runs_in_inference_mode(nets, small):
    """Whatever it has: noise, dropout and batch norm all differ in training."""
    images = keras.Input((28, 28, 1))
    x = keras.layers.GaussianNoise(1.0)(keras.layers.Flatten()(images))
    x = keras.layers.SpatialDropout1D(0.5)(keras.layers.Reshape((4, 196))(x))
    x = keras.layers.BatchNormalization()(keras.layers.Flatten()(x))
    own = keras.Model(images, keras.layers.Dense(3)(x))
    network = adapted.adapted(own, (28, 28, 1))
    wrapped = models.wrapped(network, 3, name="own")
    batch = small.train.images_at(tf.range(8))
    for frozen in (True, False):
        head = models.with_new_head(wrapped, 3, [], freeze_base=frozen)
        logits = models.features(head)
        same = logits(batch, training=True).numpy() == logits(batch, training=False).numpy()
        assert same.all() if frozen else not same.all()
        assert len(head.trainable_variables) == (2 if frozen else 4)
        reloaded = models.plain(head)
        assert reloaded.get_layer("network").__class__ is keras.Model(images, x).__class__
        np.testing.assert_array_equal(reloaded(batch), head(batch))


def test_natural_then_transfer_of_an_own_network(nets, small, folders):
    run = run_of(
        small, model="own_nets:custom", strategy="transfer", perturb="all", freeze_base=True
    )
    model = trained(run, small, folders)
    trials = runs.test(run, small, CONDITIONS, trials=1, progress=False, **folders)
    images = small.test.images_at(tf.range(100))
    right = probabilities(run, folders, images).argmax(axis=1) == small.test.labels
    assert trials["accuracy"][0] == right.numpy().mean()
    natural = runs.load_model(run.natural, folders["output_dir"], folders["saved_models_dir"])
    assert str(run.natural.model) == str(run.model)
    for a, b in zip(*(weights(one.get_layer("network")) for one in (model, natural)), strict=True):
        np.testing.assert_array_equal(a, b)
    # An export without standardisation can get one in front.
    path = str(folders["saved_models_dir"] / run.natural.name)
    given = {"strategy": "transfer", "perturb": "hot", "pretrained": path}
    standardized = run_of(small, **given, standardize="pixel")
    assert standardized.name != run_of(small, **given).name
    started = trained(standardized, small, folders)
    assert started.get_layer("standardization").mode == "pixel"


def test_an_export_with_custom_layers_reloads_where_their_module_is_there(
    nets, small, folders, monkeypatch, tmp_path
):
    run = run_of(small, model="own_nets:custom")
    trained(run, small, folders)
    folder = saved_models.find("model", folders["saved_models_dir"] / run.name)
    assert saved_models.metadata(folder)["modules"] == ["own_nets"]
    registered = [name for name in keras.saving.get_custom_objects() if name.startswith("nets>")]
    assert len(registered) == 2
    for name in registered:  # as in another process
        monkeypatch.delitem(keras.saving.get_custom_objects(), name)
    monkeypatch.delitem(sys.modules, "own_nets")
    with monkeypatch.context() as elsewhere:
        elsewhere.chdir(tmp_path)
        with pytest.raises(Unavailable, match="expected a module own_nets in .*none of that name"):
            saved_models.load(folder)
    images = small.test.images_at(tf.range(4))
    reloaded = tf.nn.softmax(saved_models.load(folder)(images))
    np.testing.assert_allclose(probabilities(run, folders, images), reloaded, atol=1e-6)


def test_a_pretrained_network_may_be_for_images_too_small_for_ours(tmp_path):
    data = fake_data(1, 40, size=8)
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
    keras.Sequential(layers).save(path := str(tmp_path / "own.keras"))
    run = runs.resolve(data, strategy="transfer", perturb="hot", level=1, pretrained=path)
    assert run.natural is None and run.starts_from is None
    with pytest.raises(InvalidArgument, match=r"model=mnist_cnn: .*fits images of shape \(8, 8, 1"):
        runs.resolve(data, strategy="transfer", perturb="hot", level=1)


def test_an_own_network_in_mixed_precision(nets, small):
    run = run_of(small, model="own_nets:nested", precision="mixed_bfloat16", augment="flip")
    model = run.build_model(small)
    assert models.precision_of(model) == "mixed_bfloat16"
    assert model.get_layer("logits").dtype_policy.name == "float32"
    images = small.test.images_at(tf.range(8))
    mirrored = model(images[:, :, ::-1], training=False)
    np.testing.assert_allclose(model(images, training=False), mirrored, atol=1e-2)


@pytest.mark.parametrize("where", ["first", "nested", "inside"])
def test_a_nested_sequential_model_is_a_network(tmp_path, where):
    """The form of Keras's own tutorials."""
    augment = keras.Sequential([keras.layers.RandomFlip(), keras.layers.RandomRotation(0.1)])
    if where == "inside":
        augment = keras.Sequential([keras.Input((28, 28, 1)), augment])
    inputs = keras.Input((28, 28, 1))
    rest = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(10)]
    if where == "nested":
        outputs = keras.Sequential([augment, *rest[:2]])(inputs)
        model = keras.Model(inputs, rest[2](outputs))
    else:
        model = keras.Sequential([inputs, augment, *rest])
    model.save(tmp_path / "m.keras")
    images = np.random.default_rng(0).uniform(0, 255, (5, 28, 28, 1)).astype(np.float32)
    found = adapted.adapted(keras.saving.load_model(tmp_path / "m.keras"), (28, 28, 1))
    np.testing.assert_allclose(
        found(images, training=False), model(images, training=False), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("axis", [None, -1, (1, 2, 3)])
def test_a_network_keeps_what_its_normalization_was_adapted_to(small, axis):
    images = 255 * small.train.images_at(range(200)).numpy()
    layer = keras.layers.Normalization(axis=axis)
    layer.adapt(images)
    rest = [keras.layers.Flatten(), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((28, 28, 1)), layer, *rest])
    run = runs.resolve(small, model=model, value_range=(0, 255), epochs=1)
    built = run.build_model(small)
    before = keras.Model(model.inputs, model.layers[0].output)(images[:7]).numpy()
    kernel, bias = built.get_layer("logits").get_weights()
    expected = before.reshape(7, -1) @ kernel + bias
    np.testing.assert_allclose(
        built(images[:7] / 255, training=False), expected, rtol=1e-3, atol=1e-2
    )
    # And `fit` gives the model back with it.
    trained = rt.fit(model, small.train.images, small.train.labels, epochs=1, progress=False)
    assert trained.layers[0].get_weights()[0].tolist() == layer.get_weights()[0].tolist()
