"""Keras's descriptions of networks: seeds and precision put into them, and digests of them."""

import contextlib
import hashlib
import json
import random
from collections.abc import Iterator
from typing import Any

import keras

from robust_tf.seeds import stream_int

# What stays float32 in mixed precision, as our own standardisation does.
_FLOAT32 = ("InputLayer", "Rescaling", "Normalization", "__keras_tensor__")
# What says nothing of a network that is trained anew, or what versions of Keras change.
_NO_CONTENT = ("module", "build_config", "keras_version", "backend", "seed", "trainable")


@contextlib.contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Decides what Keras draws where a layer names no seed; it takes Python's numbers."""
    before = random.getstate()
    random.seed(stream_int(seed, "initial weights"))
    try:
        yield
    finally:
        random.setstate(before)


def with_seeds(description: Any, seed: int, precision: str, path: str = "") -> Any:
    """A description whose initial weights and dropout a seed decides, each by its place."""
    if isinstance(description, list):
        places = enumerate(description)
        return [with_seeds(one, seed, precision, f"{path}/{i}") for i, one in places]
    if not isinstance(description, dict):
        return description
    result: dict[str, Any] = {}
    for key, value in description.items():
        if key == "seed" and isinstance(value, int | None):
            result[key] = stream_int(seed, f"own{path}")
        elif key == "trainable":  # what others have frozen had weights that are gone
            result[key] = True
        else:
            result[key] = with_seeds(value, seed, precision, f"{path}/{key}")
    config, kind = result.get("config"), result.get("class_name")
    if precision != "float32" and kind not in _FLOAT32 and isinstance(config, dict):
        computes = "float32" in json.dumps(config.get("dtype"))
        config |= {"dtype": precision} if computes else {}
    return result


def digest_of(network: keras.Model) -> str:
    """Tells a network, with its weights, from all others, whatever the names of its layers."""
    content = hashlib.sha256(digest(json.loads(network.to_json())).encode())
    for weight in network.weights:
        content.update(weight.numpy().tobytes())
    return content.hexdigest()[:8]


def digest(description: dict) -> str:
    """Eight characters of a description without what names and versions of Keras change."""
    names: dict[str, str] = {}

    def note(part: Any) -> None:
        for value in part.values() if isinstance(part, dict) else part:
            if isinstance(value, dict | list):
                note(value)
        if isinstance(part, dict) and isinstance(part.get("name"), str):
            names.setdefault(part["name"], f"#{len(names)}")

    def plain(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: plain(value) for key, value in part.items() if key not in _NO_CONTENT}
        if isinstance(part, list):
            return [plain(value) for value in part]
        return names.get(part, part) if isinstance(part, str) else part

    note(description["config"])
    text = json.dumps(plain(description["config"]), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
