"""Keras's own global settings, for a while, whatever the user's are."""

import contextlib
from collections.abc import Iterator

# What keras.json, the environment and `keras.config` may change, as Keras comes.
_AS_IT_COMES = {
    "floatx": "float32",
    "epsilon": 1e-7,
    "image_data_format": "channels_last",
    "dtype_policy": "float32",
    "max_epochs": None,
    "max_steps_per_epoch": None,
}


@contextlib.contextmanager
def keras_defaults() -> Iterator[None]:
    """Makes networks, losses and metrics inside the same for all users; also a decorator.

    Afterwards the user's settings are as they were.
    """
    import keras

    config = keras.config
    known = [name for name in _AS_IT_COMES if hasattr(config, name)]  # not all in Keras 3.11
    before = {name: getattr(config, name)() for name in known}
    try:
        for name in known:
            getattr(config, f"set_{name}")(_AS_IT_COMES[name])
        yield
    finally:
        for name, value in before.items():
            getattr(config, f"set_{name}")(value)
