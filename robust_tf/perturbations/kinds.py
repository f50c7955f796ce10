"""The registry of kinds, and a perturbation as a value: a kind at a level.

A new kind is one op and one entry in `KINDS`. Flags are checked by what is here, so TensorFlow is
imported only where tensors are met.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from robust_tf.errors import InvalidArgument
from robust_tf.perturbations.condition import Condition

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Kind:
    """What is known of a kind of perturbation.

    Attributes:
        family: the kinds that are tested together share a family, as stuck, dead and hot do.
        unit: what the level measures, such as "number of pixels".
        random: whether the op takes seeds.
        whole: whether the level is a whole number.
        bounds: from (height, width), numbers or scalar tensors, to the lowest and highest level.
        op: (images, seeds, level, channel_blur) to images.
        train_level: the default level in training: for pixels, the one at which constant
            training on MNIST was most robust over the paper's tests; for noise and blur, the
            strongest that the paper tests.
        train_range: the default lowest and highest level of a mixture, which include the
            levels of the paper's tests.
        test_levels: the default levels in tests, as in the paper (section VI).
        in_all: whether it is one of those that "all" stands for: of the kinds here, the paper's
            five. The levels of the others are not the paper's, but ours.
    """

    family: str
    unit: str
    random: bool
    whole: bool
    bounds: Callable[[Any, Any], tuple[Any, Any]]
    op: Callable[[tf.Tensor, tf.Tensor | None, float | tf.Tensor, bool], tf.Tensor]
    train_level: float
    train_range: tuple[float, float]
    test_levels: tuple[float, ...]
    in_all: bool = True


def _op(place: str) -> Callable:
    """An op of this package, "module.function", which is imported when it is first called."""
    module, _, name = place.partition(".")

    def op(*arguments: Any) -> tf.Tensor:
        found = importlib.import_module(f"robust_tf.perturbations.{module}")
        return getattr(found, name)(*arguments)

    return op


def _drawn(place: str) -> Callable:
    """An op that takes seeds."""
    op = _op(place)
    return lambda images, seeds, level, _: op(images, seeds, level)


def _is_plain(value: Any) -> bool:
    """Whether it is one of Python's numbers, or a text; others may be tensors."""
    return isinstance(value, int | float | str)


def _longer(height: float | tf.Tensor, width: float | tf.Tensor) -> float | tf.Tensor:
    if not (_is_tensor(height) or _is_tensor(width)):
        return max(height, width)
    import tensorflow as tf

    return tf.maximum(height, width)


def _pixels(place: str, train_level: int, **others: Any) -> Kind:
    settings: dict[str, Any] = {
        "family": "pixels",
        "unit": "number of pixels",
        "bounds": lambda height, width: (1, height * width),
        "train_range": (1, 10),
        "test_levels": (2,),
    }
    return Kind(
        random=True,
        whole=True,
        op=_drawn(place),
        train_level=train_level,
        **settings | others,
    )


def _light(place: str, family: str, unit: str, bounds: tuple[float, float], **own: Any) -> Kind:
    op = _op(place)
    return Kind(
        family=family,
        unit=unit,
        random=False,
        bounds=lambda height, width: bounds,
        op=lambda images, _, level, __: op(images, level),
        in_all=False,
        **own,
    )


_blur = _op("gaussian_blur.blur")

KINDS: dict[str, Kind] = {
    "stuck": _pixels("pixels.stuck", train_level=4),
    "dead": _pixels("pixels.dead", train_level=5),
    "hot": _pixels("pixels.hot", train_level=6),
    "noise": Kind(
        family="noise",
        unit="standard deviation",
        random=True,
        whole=False,
        bounds=lambda height, width: (0, 1),
        op=_drawn("gaussian_noise.noise"),
        train_level=0.05,
        train_range=(0.005, 0.05),
        test_levels=(0.0255, 0.03775, 0.05),
    ),
    "blur": Kind(
        family="blur",
        unit="sigma in pixels",
        random=False,
        whole=False,
        bounds=lambda height, width: (0, _longer(height, width)),
        op=lambda images, _, level, channel_blur: _blur(images, level, channel_blur),
        train_level=1.0,
        train_range=(0.1, 1.0),
        test_levels=(0.5, 0.75, 1.0),
    ),
    "warm": _pixels("pixels.warm", 6, family="warm", in_all=False),
    "row": _pixels(
        "lines.row",
        1,
        family="lines",
        unit="number of rows",
        bounds=lambda height, width: (1, height),
        train_range=(1, 3),
        test_levels=(1,),
        in_all=False,
    ),
    "column": _pixels(
        "lines.column",
        1,
        family="lines",
        unit="number of columns",
        bounds=lambda height, width: (1, width),
        train_range=(1, 3),
        test_levels=(1,),
        in_all=False,
    ),
    "cluster": _pixels("clusters.cluster", 6, family="cluster", test_levels=(4,), in_all=False),
    "shot": Kind(
        family="shot",
        unit="standard deviation at white",
        random=True,
        whole=False,
        bounds=lambda height, width: (0, 1),
        op=_drawn("shot_noise.shot"),
        train_level=0.1,
        train_range=(0.01, 0.1),
        test_levels=(0.05, 0.1),
        in_all=False,
    ),
    "motion": Kind(
        family="motion",
        unit="length in pixels",
        random=True,
        whole=False,
        bounds=lambda height, width: (0, _longer(height, width)),
        op=_drawn("motion_blur.motion"),
        train_level=5.0,
        train_range=(0.5, 5.0),
        test_levels=(3.0, 5.0),
        in_all=False,
    ),
    "exposure": _light(
        "photometric.exposure",
        "exposure",
        "added brightness",
        (-1, 1),
        whole=False,
        train_level=0.3,
        train_range=(-0.3, 0.3),
        test_levels=(-0.3, 0.3),
    ),
    "contrast": _light(
        "photometric.contrast",
        "contrast",
        "factor",
        (0, math.inf),
        whole=False,
        train_level=0.3,
        train_range=(0.3, 1.2),
        test_levels=(0.3, 0.5),
    ),
    "jpeg": _light(
        "jpeg_files.jpeg",
        "jpeg",
        "quality",
        (1, 100),
        whole=True,
        train_level=20,
        train_range=(20, 60),
        test_levels=(20, 50),
    ),
}


def all_kinds() -> tuple[str, ...]:
    """The kinds that "all" stands for, the paper's five; the others go by their names."""
    return tuple(name for name, kind in KINDS.items() if kind.in_all)


@dataclasses.dataclass(frozen=True)
class Perturbation(Condition):
    """A kind of perturbation at one level: comparable, hashable, callable on a batch.

    Args:
        kind: one of `KINDS`.
        level: how much of it, within the kind's bounds: number of pixels (1 … H·W), standard
            deviation of the noise (0 … 1), sigma of the blur in pixels (0 … longer side), and
            so on. May be a scalar tensor, so that one traced function serves all levels; there
            it is not checked.
        channel_blur: blur over the channel axis too (kind "blur" only).

    Raises:
        InvalidArgument: if the kind is unknown or the level out of every range.

    Examples:
        >>> str(Perturbation("hot", 2))
        'hot 2'
    """

    kind: str
    level: float | tf.Tensor
    channel_blur: bool = False

    def __post_init__(self):
        """Checks what can be checked without an image."""
        if not isinstance(self.kind, str) or self.kind not in KINDS:
            raise InvalidArgument("perturb", self.kind, f"one of {', '.join(KINDS)}")
        if self._known():
            level = self._checked_level(None)
            if not _is_variable(self.level):  # whose value may change
                object.__setattr__(self, "level", level)
            return
        assert not isinstance(self.level, int | float)
        shape, dtype = self.level.shape, self.level.dtype
        if shape.rank or not (dtype.is_floating or dtype.is_integer):
            raise InvalidArgument("level", f"{dtype.name} {shape}", "one number")

    @property
    def random(self) -> bool:
        """Whether two trials differ."""
        return KINDS[self.kind].random

    @property
    def family(self) -> str:
        """What the kinds that are tested together have in common, such as "pixels"."""
        return KINDS[self.kind].family

    def check(self, image_shape: tuple[int, int, int]) -> None:
        """Checks the level against images of shape (H, W, C).

        Raises:
            InvalidArgument: if the level is out of range for such images.
        """
        if self._known():
            self._checked_level(image_shape)

    def __call__(self, images: tf.Tensor, seeds: tf.Tensor | None = None) -> tf.Tensor:
        """Perturbs a batch.

        Args:
            images: float32, shape [B, H, W, C], values in [0, 1]; sizes may be unknown in a graph.
            seeds: int32, shape [B, 2]; not needed where `random` is false.

        Returns:
            float32 tensor of shape [B, H, W, C], values in [0, 1].

        Raises:
            InvalidArgument: if the level is out of range for these images; eagerly, also if a
                value is NaN or out of range.
        """
        from robust_tf.perturbations import ops

        return ops.perturbed(self, KINDS[self.kind], images, seeds)

    def __tf_flatten__(self) -> tuple[tuple[str, bool], tuple[tf.Tensor]]:
        """The kind, which a trace depends on, and the level, whose value may vary."""
        import tensorflow as tf

        return (self.kind, self.channel_blur), (tf.convert_to_tensor(self.level, tf.float64),)

    @classmethod
    def __tf_unflatten__(
        cls, metadata: tuple[str, bool], components: tuple[tf.Tensor]
    ) -> Perturbation:
        """The perturbation that `__tf_flatten__` took apart."""
        (kind, channel_blur), (level,) = metadata, components
        return cls(kind, level, channel_blur)

    def _known(self) -> bool:
        """Whether the level has a value, rather than being that of a graph."""
        if _is_plain(self.level):
            return True
        import tensorflow as tf

        if _is_variable(self.level):
            return tf.executing_eagerly()
        # A graph is first told by a TensorSpec what tensor it gets.
        return not (tf.is_symbolic_tensor(self.level) or isinstance(self.level, tf.TensorSpec))

    def _checked_level(self, image_shape: tuple[int, int, int] | None) -> float:
        kind = KINDS[self.kind]
        sides = (image_shape or (None, None))[:2]
        height, width = (math.inf if side is None else side for side in sides)
        low, high = kind.bounds(height, width)
        noun = "a whole number" if kind.whole else "a number"
        upper = f"from {low:g} to {high:g}" if high < math.inf else f"from {low:g} on"
        expected = f"{noun} {upper} ({kind.unit} of {self.kind})"
        received: Any = self.level
        if _is_tensor(received):
            received = received.numpy()
        try:
            level = _number(received)
        except (TypeError, ValueError, OverflowError):
            if getattr(received, "ndim", 0):
                received = f"numbers of shape {received.shape}"
            raise InvalidArgument("level", received, expected) from None
        fits = math.isfinite(level) and low <= level <= high
        if not fits or (kind.whole and level != int(level)):
            raise InvalidArgument("level", f"{level:g}", expected)
        return int(level) if kind.whole else level


def _is_tensor(value: Any) -> bool:
    if _is_plain(value):
        return False
    import tensorflow as tf

    return tf.is_tensor(value)


def _is_variable(value: Any) -> bool:
    if _is_plain(value):
        return False
    import tensorflow as tf

    return isinstance(value, tf.Variable)


def _number(value: Any) -> float:
    """The number that it is, or that a text says; `TypeError` or `ValueError` if it is none."""
    import numpy as np

    array = np.asarray(value)
    odd = array.dtype.kind == "U" and ("_" in value or not value.isascii())
    if array.ndim or array.dtype.kind in "bcS" or odd:
        raise TypeError(type(value))
    return float(value)


def example_seeds(
    base: tf.Tensor | np.ndarray,
    index: tf.Tensor | np.ndarray | Sequence[int],
    epoch: int | tf.Tensor | None = None,
) -> tf.Tensor:
    """The seeds of examples: `base` with the index and, where given, the epoch folded in.

    Args:
        base: int32 seed of a stream, shape [2].
        index: indices of the examples, integers from 0 on, shape [B].
        epoch: scalar, from 0 on; None where a perturbation is the same in all epochs.

    Returns:
        int32 tensor of shape [B, 2].
    """
    from robust_tf.seeds import fold_in

    seeds = fold_in(base, index)
    return seeds if epoch is None else fold_in(seeds, epoch)
