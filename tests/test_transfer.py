"""A trained network under a new head: what is copied, what trains, what stays."""

import keras
import numpy as np
import pytest

from robust_tf import models
from robust_tf.errors import InvalidArgument
from robust_tf.perturbations import Perturbation
from robust_tf.training import Adam, Recipe, Transfer, fit


def train(pretrained, split, *, freeze_base, keep_standardization=False):
    """The variables before and after an epoch on images with hot pixels."""
    strategy = Transfer(
        perturbation=Perturbation("hot", 3),
        freeze_base=freeze_base,
        keep_standardization=keep_standardization,
    )
    started = strategy.prepare(
        split,
        lambda: models.with_new_head(pretrained, 10, [32], freeze_base=freeze_base, seed=1),
        Recipe(epochs=1, batch_size=50, optimizer=Adam(learning_rate=0.001)),
    )
    before = by_name(started.model)
    fit(started)
    return before, by_name(started.model)


def by_name(model) -> dict[str, np.ndarray]:
    """Every variable that matters, by layer and name; dropout's counter of draws does not."""
    return {
        f"{layer.name}/{variable.name}": variable.numpy()
        for layer in model.layers
        for variable in layer.variables
        if not layer.name.startswith("dropout")
    }


def changed(before, after) -> set[str]:
    """Names in both whose values differ in any bit."""
    both = before.keys() & after.keys()
    return {name for name in both if before[name].tobytes() != after[name].tobytes()}


BASE = {"conv_1/kernel", "batch_norm_1/gamma", "batch_norm_1/beta"}
STATISTICS = {"batch_norm_1/moving_mean", "batch_norm_1/moving_variance"}
STANDARDIZATION = {"standardization/mean", "standardization/scale"}
HEAD = {f"{layer}/{name}" for layer in ("head_1", "logits") for name in ("kernel", "bias")}


def test_the_head_is_new_and_the_base_is_a_copy(trained):
    untouched = by_name(trained)
    model = models.with_new_head(trained, 7, [256, 512], freeze_base=False, seed=0)
    assert [layer.name for layer in model.layers][-3:] == ["head_1", "head_2", "logits"]
    for name, units, activation in [
        ("head_1", 256, "relu"), ("head_2", 512, "relu"), ("logits", 7, "linear"),
    ]:  # fmt: skip
        layer = model.get_layer(name)
        assert (layer.units, layer.activation.__name__) == (units, activation)
    own = by_name(model)
    copied = {name for name in own if name.split("/")[0] not in ("head_1", "head_2", "logits")}
    assert copied == untouched.keys() - {"logits/kernel", "logits/bias"}
    assert all(own[name].tobytes() == untouched[name].tobytes() for name in copied)
    for variable in model.variables:
        variable.assign(variable + 1)
    assert not changed(untouched, by_name(trained))


def test_the_seed_decides_the_head(trained):
    def kernel(seed):
        model = models.with_new_head(trained, 10, [8], freeze_base=False, seed=seed)
        return model.get_layer("head_1").kernel.numpy()

    np.testing.assert_array_equal(kernel(1), kernel(1))
    assert (kernel(1) != kernel(2)).any()


def test_no_units_leave_a_new_last_layer(trained):
    model = models.with_new_head(trained, 10, [], freeze_base=False, seed=9)
    assert [layer.name for layer in model.layers] == [layer.name for layer in trained.layers]
    assert (model.get_layer("logits").kernel != trained.get_layer("logits").kernel).numpy().any()
    with pytest.raises(InvalidArgument, match="head_units=0: expected whole numbers from 1 on"):
        models.with_new_head(trained, 10, [8, 0], freeze_base=False, seed=0)


def test_fine_tuning_moves_the_base_and_its_statistics(trained, small):
    before, after = train(trained, small.train, freeze_base=False)
    assert changed(before, after) == BASE | STATISTICS | HEAD
    # The images' own statistics were taken before the first step.
    assert changed(by_name(trained), before) - HEAD == STANDARDIZATION


def test_a_frozen_base_does_not_change_by_a_bit(trained, small):
    before, after = train(trained, small.train, freeze_base=True)
    assert changed(before, after) == HEAD
    assert after.keys() >= BASE | STATISTICS | STANDARDIZATION
    assert changed(by_name(trained), after) <= HEAD


def test_a_frozen_base_runs_in_inference_mode(trained, small):
    """In training mode batch norm would use the batch's statistics, and dropout would drop."""
    model = models.with_new_head(trained, 10, [32], freeze_base=True, seed=1)
    images = small.train.images_at(np.arange(40))
    base = keras.Model(model.input, model.get_layer("flatten").output)
    copy = models.with_new_head(trained, 10, [], freeze_base=False, seed=1)
    natural = keras.Model(copy.input, copy.get_layer("flatten").output)
    expected = natural(images, training=False)
    np.testing.assert_array_equal(base(images, training=True), expected)
    assert (natural(images, training=True) != expected).numpy().any()


def test_the_standardisation_can_be_kept_while_the_rest_is_fine_tuned(trained, small):
    _, after = train(trained, small.train, freeze_base=False, keep_standardization=True)
    assert changed(by_name(trained), after) - HEAD == BASE | STATISTICS


def test_a_transferred_model_can_be_transferred_again(trained, sample):
    first = models.with_new_head(trained, 10, [16], freeze_base=True, seed=0)
    second = models.with_new_head(first, 10, [8], freeze_base=False, seed=0)
    assert [layer.name for layer in second.layers][-3:] == ["head_1", "head_2", "logits"]
    assert all(layer.trainable for layer in second.layers)
