"""One of several perturbations for each image, at one of several levels.

Goes beyond the paper, whose models are each trained with one kind at one level.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from robust_tf.errors import InvalidArgument
from robust_tf.perturbations.condition import Condition, condition_key
from robust_tf.perturbations.kinds import KINDS, Perturbation, all_kinds

if TYPE_CHECKING:
    import tensorflow as tf

# A range that is not of whole numbers stands for so many levels, evenly spaced.
_LEVELS = 10


@dataclasses.dataclass(frozen=True)
class Mixture(Condition):
    """Draws for each image a kind, all as likely, then one of its levels, all as likely.

    Args:
        ranges: kind, lowest and highest level; "hot" of (1, 3) draws from 1, 2 and 3,
            "noise" from ten levels that are evenly spaced.
        channel_blur: blur over the channel axis too.

    Raises:
        InvalidArgument: if a kind is unknown or there twice, or a level out of range.

    Examples:
        >>> str(Mixture((("hot", 1, 3), ("noise", 0.01, 0.02))))
        'hot=1:3,noise=0.01:0.02'
    """

    ranges: tuple[tuple[str, float, float], ...]
    channel_blur: bool = False
    kind: str = dataclasses.field(init=False, compare=False, repr=False)
    level: float = dataclasses.field(init=False, compare=False, repr=False, default=math.nan)

    def __post_init__(self):
        """Checks what can be checked without an image."""
        kinds = [kind for kind, _, _ in self.ranges]
        object.__setattr__(
            self, "kind", "all" if set(kinds) == set(all_kinds()) else ",".join(kinds)
        )
        if not kinds or len(set(kinds)) < len(kinds):
            raise InvalidArgument("perturb", ",".join(kinds), "different kinds")
        for kind, low, high in self.ranges:
            Perturbation(kind, low), Perturbation(kind, high)
            if low > high:
                raise InvalidArgument("level", f"{low:g}:{high:g}", "the lower level first")

    @property
    def random(self) -> bool:
        """Whether two draws differ."""
        return True

    @property
    def key(self) -> tuple[str, float]:
        """What it is compared by: its kinds, with ranges that are not the kinds' own."""
        own = all(KINDS[kind].train_range == (low, high) for kind, low, high in self.ranges)
        return condition_key(self.kind if own and len(self.ranges) > 1 else str(self), self.level)

    @property
    def variants(self) -> list[list[Perturbation]]:
        """All that can be drawn, one list per kind."""
        import numpy as np

        return [
            [
                Perturbation(kind, level, self.channel_blur and kind == "blur")
                for level in (
                    range(int(low), int(high) + 1)
                    if KINDS[kind].whole
                    else np.unique(np.linspace(low, high, _LEVELS)).tolist()
                )
            ]
            for kind, low, high in self.ranges
        ]

    def check(self, image_shape: tuple[int, int, int]) -> None:
        """Checks the levels against images of shape (H, W, C).

        Raises:
            InvalidArgument: if one is out of range for such images.
        """
        for kind, low, high in self.ranges:
            try:
                Perturbation(kind, high).check(image_shape)
            except InvalidArgument as error:
                raise error.with_value(f"{_text(low)}:{_text(high)}") from None

    def choices(self, seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The place of each image's kind in `variants`, and that of its level there.

        Args:
            seeds: int32, shape [B, 2].

        Returns:
            Two int32 tensors of shape [B].
        """
        from robust_tf.perturbations import ops

        return ops.choices(self.variants, seeds)

    def __call__(self, images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """Perturbs a batch; arguments and result as of `Perturbation`."""
        from robust_tf.perturbations import ops

        return ops.mixed(self.variants, images, seeds)

    def __str__(self) -> str:
        """As `parse` takes it for levels."""
        return ",".join(f"{kind}={_text(low)}:{_text(high)}" for kind, low, high in self.ranges)


def parse(perturb: str, level: str | float | None) -> Mixture | None:
    """The mixture that a text asks for.

    Args:
        perturb: "all", or kinds, separated by commas.
        level: None for the kinds' own (`Kind.train_range`); "1:10", for all of the kinds; or
            "hot=1:5,noise=0.01:0.05",
            for those it names.

    Returns:
        The mixture; None where one kind at one level is asked for.

    Raises:
        InvalidArgument: if a text says nothing of that form.
    """
    kinds = list(all_kinds()) if perturb == "all" else perturb.split(",")
    text = "" if level is None else str(level)
    if len(kinds) == 1 and ":" not in text:
        return None
    for kind in kinds:
        if kind not in KINDS:
            raise InvalidArgument("perturb", kind, f"all, or some of {', '.join(KINDS)}")
    if len(set(kinds)) < len(kinds):
        raise InvalidArgument("perturb", perturb, "different kinds")
    ranges = {kind: KINDS[kind].train_range for kind in KINDS if kind in kinds}
    named = [part.rpartition("=")[::2] for part in text.split(",") if part]
    for kind, bounds in named:
        if kind and kind not in ranges:
            expected = f"ranges of some of {', '.join(ranges)}"
            raise InvalidArgument("level", text, expected)
        ranges |= dict.fromkeys([kind] if kind else ranges, _bounds(bounds))
    if len({kind for kind, _ in named}) < len(named):
        raise InvalidArgument("level", text, "one range of each kind, or one for all")
    try:
        return Mixture(tuple((kind, low, high) for kind, (low, high) in ranges.items()))
    except InvalidArgument as error:
        raise error.with_value(text or perturb) from None


def _text(level: float) -> str:
    """Short where that says all of it."""
    short = f"{level:g}"
    return short if float(short) == level else repr(level)


def _bounds(text: str) -> tuple[float, float]:
    """The levels of "1:10"."""
    try:
        low, high = map(float, text.split(":"))
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InvalidArgument("level", text, "a range such as 1:10, or hot=1:5,noise=0.01:0.05")
    return low, high
