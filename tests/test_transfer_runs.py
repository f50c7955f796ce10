"""Runs that start from another model: which one, under what name, and what comes of it."""

import dataclasses

import keras
import numpy as np
import pandas as pd
import pytest

from robust_tf import models, results, runs, saved_models, settings, training
from robust_tf.data import Split
from robust_tf.errors import InvalidArgument, Unavailable
from tests.helpers import short, small_network


def transfer(data, **given) -> runs.Run:
    return short(data, strategy="transfer", perturb="hot", level=3, **given)


def model_of(run, folders) -> keras.Model:
    return runs.load_model(run, folders["output_dir"], folders["saved_models_dir"])


def weights_by_name(model) -> dict[str, bytes]:
    return {
        f"{layer.name}/{variable.name}": variable.numpy().tobytes()
        for layer in model.layers
        for variable in layer.weights
    }


def test_the_natural_model_is_trained_once_for_all(small, folders, monkeypatch):
    fitted = []
    fit = training.fit
    monkeypatch.setattr(
        training,
        "fit",
        lambda started, **options: fitted.append(started.model.name) or fit(started, **options),
    )
    for options in ({}, {"head_units": (8,)}, {"freeze_base": True}):
        runs.train(transfer(small, epochs=1, **options), small, progress=False, **folders)
    assert len(fitted) == 4
    table = results.read(folders["output_dir"], "runs").set_index("strategy")
    natural = table.loc["natural", "run"]
    assert set(table.loc["transfer", "pretrained"]) == {natural}
    assert set(table.loc["transfer", "head_units"]) == {"[256]", "[8]"}
    assert table.loc["transfer", "freeze_base"].astype(bool).sum() == 1


def test_a_run_with_a_frozen_base_exports_the_natural_weights(small, finished, folders):
    run = transfer(small, freeze_base=True)
    assert run.starts_from == finished
    runs.train(run, small, progress=False, **folders)
    natural = weights_by_name(model_of(run.natural, folders))
    frozen = weights_by_name(model_of(run, folders))
    base = natural.keys() - {"logits/kernel", "logits/bias"}
    assert {"standardization/mean", "batch_norm_1/moving_mean", "conv_1/kernel"} <= base
    assert all(frozen[name] == natural[name] for name in base)


def test_a_savedmodel_of_ones_own(small, folders, exported, trained):
    path = str(exported.parent)
    run = transfer(small, pretrained=path, freeze_base=True, head_units=(8,))
    assert run.start == saved_models.fingerprint(exported)
    runs.train(run, small, progress=False, **folders)
    # No natural model was trained.
    assert [path.name for path in folders["output_dir"].iterdir()] == [run.name]
    frozen, start = weights_by_name(model_of(run, folders)), weights_by_name(trained)
    assert frozen["conv_1/kernel"] == start["conv_1/kernel"]
    with_version = transfer(small, pretrained=str(exported), freeze_base=True, head_units=(8,))
    assert with_version.name == run.name
    assert transfer(small, freeze_base=True, head_units=(8,)).name != run.name


def test_the_pretrained_model_decides_network_and_standardisation(small, tmp_path):
    model = small_network((28, 28, 1), 4, standardize="global")
    folder = saved_models.export(model, tmp_path / "own", label_names="abcd", training={})
    run = transfer(small, pretrained=str(folder))
    assert (str(run.model), run.standardize) == (model.name, "global")
    model = small_network((28, 28, 1), 4)
    pixel = saved_models.export(model, tmp_path / "pixel", label_names="abcd", training={})
    plain = small_network((28, 28, 1), 4, standardize="none")
    folder = saved_models.export(plain, tmp_path / "plain", label_names="abcd", training={})
    assert transfer(small, pretrained=str(folder)).standardize == "none"
    mixed = small_network((28, 28, 1), 4, precision="mixed_bfloat16")
    mixed = saved_models.export(mixed, tmp_path / "mixed", label_names="abcd", training={})
    run = transfer(small, pretrained=str(mixed), head_units=(8,))
    assert run.precision == "mixed_bfloat16"
    with_head = run.build_model(small, saved_models.load(mixed))
    assert with_head.get_layer("head_1").dtype_policy.name == "mixed_bfloat16"
    own = ({"model": "mnist_cnn"}, {"value_range": (0, 255)}, {"precision": "float32"})
    for option in own:
        with pytest.raises(InvalidArgument, match="expected no value with pretrained"):
            transfer(small, pretrained=str(folder), **option)
    assert transfer(small, pretrained=str(folder), standardize="global").standardize == "global"
    for other in ("global", "none"):
        with pytest.raises(InvalidArgument, match=f"standardize={other}: expected no value with"):
            transfer(small, pretrained=str(pixel), standardize=other)


def test_its_natural_run_is_of_the_same_network(small, tmp_path):
    """What --compare_natural sets beside it is no other network with the same name."""
    own = {"model": "mnist_cnn", "dropout": 0.1, "activation": "elu", "standardize": "global"}
    natural = runs.resolve(small, **own)
    folder = saved_models.export(
        natural.build_model(small), tmp_path / "m", label_names=small.label_names,
        training=natural.columns(),
    )  # fmt: skip
    beside = transfer(small, pretrained=str(folder)).natural
    recipe = {"epochs": beside.recipe.epochs, "batch_size": beside.recipe.batch_size}
    assert beside.columns() == runs.resolve(small, **own, **recipe).columns()
    assert (beside.model.dropout, beside.standardize) == (0.1, "global")


def test_the_pretrained_model_decides_the_recipe(small, tmp_path):
    model = models.build("compact", (28, 28, 1), 10, standardize="global")
    folder = saved_models.export(
        model, tmp_path / "own", label_names=small.label_names, training={}
    )
    given = {"strategy": "transfer", "perturb": "hot"}
    with_it = runs.resolve(small, **given, pretrained=str(folder))
    asked = runs.resolve(small, **given, model="compact")
    names = ("model", "epochs", "learning_rate", "optimizer", "schedule", "augment", "head_units")
    of_it, of_asked = settings.flatten(with_it), settings.flatten(asked)
    assert [of_it[name] for name in names] == [of_asked[name] for name in names]
    assert of_it["optimizer"] == "sgd"
    assert with_it.natural.name == asked.natural.name


def test_a_pretrained_model_for_other_classes(small, folders, tmp_path):
    model = models.build("mnist_cnn", (28, 28, 1), 3)
    folder = saved_models.export(model, tmp_path / "three", label_names="abc", training={})
    run = transfer(small, pretrained=str(folder))
    runs.train(run, small, progress=False, **folders)
    assert model_of(run, folders).output_shape == (None, 10)


def test_a_pretrained_model_that_does_not_fit(small, exported, tmp_path):
    narrow = Split(small.train.images[:, :, :20], small.train.labels)
    other = dataclasses.replace(small, train=narrow, test=narrow)
    with pytest.raises(InvalidArgument, match=r"pretrained=.*: expected a model for images of sh"):
        transfer(other, pretrained=str(exported))
    with pytest.raises(Unavailable, match="pretrained=.*none: there is no such folder; expected"):
        transfer(small, pretrained=str(tmp_path / "none"))
    foreign = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten()])
    foreign.export(tmp_path / "foreign", verbose=False)
    with pytest.raises(Unavailable, match="expected a SavedModel that this package exported"):
        transfer(small, pretrained=str(tmp_path / "foreign"))


def test_what_changes_a_transfer_changes_its_name(small):
    different = [
        {}, {"head_units": (8,)}, {"head_units": ()}, {"freeze_base": True},
        {"keep_standardization": True}, {"epochs": 3}, {"seed": 1},
        {"precision": "mixed_bfloat16"}, {"jit_compile": "off"}, {"distribute": "mirrored"},
    ]  # fmt: skip
    names = {transfer(small, **options).name for options in different}
    assert len(names) == len(different)
    # A frozen base keeps its standardisation anyway.
    both = transfer(small, freeze_base=True, keep_standardization=True)
    assert both.name == transfer(small, freeze_base=True).name


def test_a_stopped_transfer_goes_on_and_ends_the_same(small, folders, tmp_path, monkeypatch):
    run = transfer(small, epochs=4)
    whole = {**folders, "output_dir": tmp_path / "whole"}
    runs.train(run, small, progress=False, **whole)

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    fit = training.fit

    def stopped(started, **options):
        callbacks = (*started.callbacks, Stop()) if len(started.model.layers) > 9 else ()
        return fit(
            dataclasses.replace(started, callbacks=callbacks or started.callbacks), **options
        )

    with monkeypatch.context() as patch:
        patch.setattr(training, "fit", stopped)
        with pytest.raises(KeyboardInterrupt):
            runs.train(run, small, progress=False, **folders)
    assert not runs.is_finished(run, folders["output_dir"])
    assert runs.is_finished(run.natural, folders["output_dir"])
    runs.train(run, small, progress=False, **folders)
    exact = ["epoch", "loss", "accuracy", "perturbed_fraction"]
    histories = [
        pd.read_csv(each["output_dir"] / run.name / "history.csv")[exact]
        for each in (folders, whole)
    ]
    pd.testing.assert_frame_equal(*histories)
    np.testing.assert_array_equal(histories[0]["epoch"], [1, 2, 3, 4])
