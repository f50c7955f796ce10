"""Forms of third-party models: which input takes images, which output has scores, and batches."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import tensorflow as tf

from robust_tf.errors import InvalidArgument

# What a signature and an output are called where there are several.
_PREFERRED = ("serving_default", "probabilities")
# How much of what a model has is shown where nothing fits.
_CHARACTERS = 300
# What is asked of a model's input and of its output.
IMAGES = "one input of images [B, H, W, C], floats or integers"
SCORES = "float scores of shape [B, classes]"

Function = Callable[[tf.Tensor], tf.Tensor]


def in_batches(function: Function, size: int, dtype: tf.DType) -> Function:
    """A function of batches of one size as one of any number of images."""

    def of_any(images: tf.Tensor) -> tf.Tensor:
        if images.shape[0] == size:
            return function(images)
        count = tf.shape(images)[0]
        filled = tf.pad(images, [[0, -count % size], [0, 0], [0, 0], [0, 0]])
        batches = tf.reshape(filled, tf.concat([[-1, size], tf.shape(images)[1:]], axis=0))
        batches = tf.ensure_shape(batches, [None, size, *images.shape[1:]])
        scores = tf.map_fn(function, batches, fn_output_signature=dtype)
        return tf.reshape(scores, [-1, scores.shape[-1] or tf.shape(scores)[-1]])[:count]

    return of_any


def choose(
    argument: str,
    asked: str | None,
    candidates: Mapping[str, Any],
    fits: Callable[[Any], int],
    form: str,
    described: Callable[[str, Any], str],
) -> str:
    """The asked candidate, or the one that fits best; a preferred name comes first."""
    ranks = {name: fits(candidates[name]) for name in candidates}
    fitting = [name for name, rank in ranks.items() if rank]
    if asked is None:
        best = [name for name in fitting if ranks[name] == max(ranks.values())]
        preferred = [name for name in best if name in _PREFERRED] or best
        if len(preferred) == 1:
            return preferred[0]
    elif asked in fitting:
        return asked
    allowed = f"one of {', '.join(sorted(fitting))}" if fitting else "a model that has one"
    found = all_of(described(name, candidates[name]) for name in sorted(candidates))
    raise InvalidArgument(argument, asked, f"{allowed} ({argument} with {form}), found {found}")


def takes_images(function: Any) -> int:
    """2 for an input of floating-point images, 1 for integers, else 0."""
    inputs = list(function.structured_input_signature[1].values())
    if len(inputs) != 1 or inputs[0].shape.rank not in (None, 4):
        return 0
    return 2 if inputs[0].dtype.is_floating else int(inputs[0].dtype.is_integer)


def of_signature(name: str, function: Any) -> str:
    """A signature in words: its name and its inputs."""
    inputs = function.structured_input_signature[1]
    return f"{name}({', '.join(of_spec(*one) for one in inputs.items())})"


def of_spec(name: str, spec: Any) -> str:
    """An input or output in words: "images: float32 [?, 28, 28, 1]"."""
    sides = None if spec.shape.rank is None else [side or "?" for side in spec.shape]
    shape = "of any shape" if sides is None else f"[{', '.join(map(str, sides))}]"
    return f"{name}: {spec.dtype.name} {shape}"


def all_of(found: Iterable[str]) -> str:
    """Descriptions in one text that is not too long."""
    text = ", ".join(found) or "none"
    return text if len(text) <= _CHARACTERS else f"{text[: _CHARACTERS - 1]}…"


def is_images(spec: Any) -> bool:
    """Whether it is a batch of images, whatever the order of their axes."""
    return spec.shape.rank == 4 and has_values(spec)


def has_values(images: Any) -> bool:
    """Whether it is of numbers."""
    return images.dtype.is_floating or images.dtype.is_integer


def has_scores(output: Any) -> bool:
    """Whether it may have one score per image and class."""
    return output.dtype.is_floating and output.shape.rank in (None, 2)


def dimensions(spec: Any, rank: int) -> tuple[int | None, ...]:
    """The sides of a shape, None for those that are free."""
    return tuple(spec.shape) if spec.shape.rank == rank else (None,) * rank
