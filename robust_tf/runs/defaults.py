"""From the settings that somebody asks for to a run in full: recipe, preset and data fill in."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from robust_tf import models, settings
from robust_tf.errors import InvalidArgument
from robust_tf.runs.declaration import NETWORKS, OwnNetwork, PretrainedNetwork, Run
from robust_tf.runs.presets import PRESETS
from robust_tf.training import STRATEGIES, Constant
from robust_tf.training.ramp import Ramp
from robust_tf.training.recipes import (
    LEAST_STEPS_PER_EPOCH,
    OWN,
    OWN_EPOCHS,
    OWN_RECIPE,
    OWN_TRANSFER,
    OWN_TRANSFER_EPOCHS,
    RECIPES,
    TRANSFER,
    recipe_of,
)
from robust_tf.training.strategies import counts_pixels

if TYPE_CHECKING:
    import keras

    from robust_tf.data import Data


def check(given: Mapping[str, Any], loosely: Collection[str] = ()) -> dict[str, Any]:
    """Checks what can be checked of a run's settings before there are data.

    Args:
        given: settings by name, as a user asks for them.
        loosely: names of those that are left out where the strategy does not have them.

    Returns:
        The same, parsed; with the strategy, and the perturbation as a value.

    Raises:
        InvalidArgument: if one is unknown, not allowed, or not for the strategy.
    """
    perturbation = given.get("perturbation")
    given = settings.check(Run, {k: v for k, v in given.items() if k != "perturbation"})
    perturbed = perturbation is not None or not {"perturb", "defects"}.isdisjoint(given)
    given.setdefault("strategy", "constant" if perturbed else "natural")
    if perturbation is not None:
        given["perturbation"] = perturbation
        if perturbation.channel_blur:
            given.setdefault("channel_blur", True)
    preset = {k: v for k, v in PRESETS[given.get("preset", "text")].items() if not callable(v)}
    foreign = _foreign(given["strategy"])
    for name in [name for name in given if name in foreign]:
        if name not in loosely:
            expected = f"no value with strategy={given['strategy']}"
            raise InvalidArgument(name, given[name], expected)
        del given[name]
    if "extra_pixels" in loosely and perturbation and not counts_pixels(perturbation):
        given.pop("extra_pixels", None)
    strategy = settings.make(STRATEGIES[given["strategy"]], preset | given)
    if isinstance(strategy, Constant):
        given["perturbation"] = strategy.perturbation
    if given.get("pretrained"):
        network = {"model", "precision", "weights"}
        network |= {name for kind in NETWORKS.values() for name in settings.declared(kind)}
        for name in given:
            if name in network:
                expected = "no value with pretrained, which decides it"
                raise InvalidArgument(name, given[name], expected)
    return given


def resolve(data: Data, *, loosely: Collection[str] = (), **given: Any) -> Run:
    """The run that settings ask for, in full.

    Args:
        data: the dataset.
        loosely: names of settings that are left out where the run's strategy, optimizer or
            network does not have them.
        **given: settings by name, those of the flags of `pipelines.run`; `perturbation` may
            stand for `perturb` and `level`. Others have the defaults of the network's recipe
            and the preset.

    Returns:
        The run.

    Raises:
        InvalidArgument: if a setting is not allowed or does not fit the data.
        Unavailable: if `pretrained` is no SavedModel that can be reloaded.
    """
    given = check(given, loosely)
    if not len(data.train):
        raise InvalidArgument("dataset", data.name, "training images; all of it is for testing")
    if len(data.label_names) < 2:
        expected = f"two classes or more; there is {', '.join(data.label_names) or 'none'} alone"
        raise InvalidArgument("dataset", data.name, expected)
    known: dict[str, Any] = {
        "dataset": data.name,
        "data_source": data.source,
        "divisor": data.train.divisor,
        "train_examples": len(data.train),
        "test_examples": len(data.test),
        "train_digest": data.train_digest,
        "test_digest": data.test.digest,
        "natural": None,
        "start": None,
    }
    network = given.get("model", default_network(data.image_shape))
    if models.is_own(network):
        own = {name: given[name] for name in ("value_range", "weights") if name in given}
        known["model"] = own_network(network, data, **own)
    of_natural = {
        name: value for name, value in given.items() if name not in _of_strategy(given["strategy"])
    }
    of_natural |= {"strategy": "natural"}
    if given.get("pretrained"):
        of_start, own_settings = _pretrained(given, data)
        known |= of_start
        of_natural.pop("value_range", None)
        try:
            known["natural"] = resolve(data, loosely=loosely, **of_natural | own_settings)
        except InvalidArgument as error:  # no network of ours is for such images
            if error.argument != "model" or "model" in own_settings:
                raise
        network = str(of_start["model"])
    elif given["strategy"] != "natural":
        known["natural"] = resolve(data, loosely=loosely, **of_natural)
        if given["strategy"] == "transfer":
            known["start"] = known["natural"].name
    network = network if network in NETWORKS else OWN
    values = _defaults(network, given, data) | given
    values["model"] = network
    asked = [name for name in given if name != "perturbation" and name not in loosely]
    run = settings.make(Run, values, asked, **known)
    if run.perturbation is not None:
        run.perturbation.check(data.image_shape)
    if "model" not in known:
        models.check(network, data.image_shape)
    return run


def default_network(image_shape: tuple[int, int, int]) -> str:
    """The paper's network for images of a shape: MNIST's for one channel."""
    return "mnist_cnn" if image_shape[-1] == 1 else "cifar10_cnn"


def own_network(
    model: str | keras.Model,
    data: Data,
    *,
    value_range: tuple[float, float] | None = None,
    weights: str | None = None,
) -> OwnNetwork:
    """A network of the user's own for a dataset; arguments and errors as of `models.read`."""
    architecture = models.read(
        model, data.image_shape, len(data.label_names), value_range=value_range, weights=weights
    )
    usual = value_range == (0, 1) and not models.is_application(model)
    return OwnNetwork(
        architecture=architecture,
        value_range=None if usual else value_range,
        weights=weights,
    )


def _of_strategy(strategy: str) -> set[str]:
    """The settings that belong to a strategy, not to its natural run."""
    return {*settings.declared(STRATEGIES[strategy]), "perturbation"}


def _defaults(network: str, given: Mapping[str, Any], data: Data) -> dict[str, Any]:
    """The settings of the network's recipe, then those of the preset."""
    recipe = recipe_of(network, given["strategy"], len(data.train), data.image_shape)
    usual = recipe.get("optimizer", "adam")
    if (given.get("optimizer", usual) == "sgd") != (usual == "sgd"):
        del recipe["learning_rate"]  # it is for another optimizer
    values: dict[str, Any] = recipe | {k: v for k, v in given.items() if v is not None}
    skipped = {*given, *_foreign(given["strategy"])}
    preset = {
        name: value(values) if callable(value) else value
        for name, value in PRESETS[given.get("preset", "text")].items()
        if name not in skipped
    }
    return recipe | preset


def _foreign(strategy: str) -> set[str]:
    """The settings that belong to other strategies alone."""
    return set().union(*map(_of_strategy, STRATEGIES)) - _of_strategy(strategy)


def _pretrained(given: Mapping[str, Any], data: Data) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a model that training starts from decides of a run, and of its natural run."""
    asked = {name: given[name] for name in ("standardize", "value_range") if name in given}
    from robust_tf.runs import pretrained

    found = pretrained.load(given["pretrained"], data.image_shape, **asked)
    name = found.model.name
    inputs = {
        "standardize": found.standardize,
        "precision": models.precision_of(found.model),
    }
    known = {
        "start": found.fingerprint,
        "model": PretrainedNetwork(name, asked.get("value_range")),
        **inputs,
    }
    if name not in NETWORKS:
        return known, inputs
    own = {setting: found.training.get(setting) for setting in settings.declared(NETWORKS[name])}
    built = {setting: value for setting, value in own.items() if value is not None}
    return known, {"model": name, **built, **inputs}


def defaults_in_words() -> dict[str, str]:
    """The defaults of the settings that networks and presets decide, by name."""
    words: dict[str, str] = {}
    for name, declared in settings.declared(Run).items():
        by_network = {
            network: table[name]
            for network, table in {**RECIPES, "your own": OWN_RECIPE}.items()
            if table.get(name, declared.default) != declared.default
        }
        transfer = {**TRANSFER, "your own": OWN_TRANSFER}
        by_transfer = {network: t[name] for network, t in transfer.items() if name in t}
        by_preset = {
            preset: table[name]
            for preset, table in PRESETS.items()
            if name in table and name != "extra_pixels"
        }
        parts = [] if declared.default in (dataclasses.MISSING, ()) else [_text(declared.default)]
        parts += [f"{_text(value)} ({network})" for network, value in by_network.items()]
        parts += [f"{_text(value)} (transfer, {network})" for network, value in by_transfer.items()]
        parts += [f"{_text(value)} (preset {preset})" for preset, value in by_preset.items()]
        if by_network or by_transfer or by_preset:
            words[name] = ", ".join(parts)
    own = [f"{least} to {most}" for least, most in (OWN_EPOCHS, OWN_TRANSFER_EPOCHS)]
    words["epochs"] += f", {own[0]} (your own), {own[1]} (transfer, your own), by number of images"
    words["ramp_end"] = f"{Ramp.end:g}, 1 - 1/epochs (preset published)"
    words["batch_size"] += f"; less where that makes fewer than {LEAST_STEPS_PER_EPOCH} batches"
    words["extra_pixels"] = "0, 1 (preset published)"
    return words


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(map(str, value)) if isinstance(value, tuple) else f"{value}"
