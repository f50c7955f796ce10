"""Training strategies: which images of a batch are perturbed, and what training starts from.

How an image is perturbed, how batches are made and how a model is fitted is not known here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from robust_tf.errors import InvalidArgument
from robust_tf.perturbations import KINDS, Mixture, Perturbation, all_kinds, mixtures
from robust_tf.perturbations.condition import Condition
from robust_tf.sensors import is_sensor_file
from robust_tf.settings import Parsed, Setting, switch, whole, wholes
from robust_tf.training.ramp import Ramp
from robust_tf.training.recipes import Recipe

if TYPE_CHECKING:
    import tensorflow as tf

    from robust_tf.data import Split
    from robust_tf.training.batches import Adapt, BuildModel, Training

# What perturbs an image in training: a perturbation, a mixture, or a device or sensor.
Applied = Condition


def _parse_perturbation(given: Mapping[str, Any]) -> Applied:
    """The perturbation that the settings `perturb` and `level` name, or `defects`."""
    channel_blur = bool(given.get("channel_blur"))
    if isinstance(one := given.get("perturbation"), Perturbation | Mixture):
        return dataclasses.replace(one, channel_blur=channel_blur)
    if one is not None:
        return one
    perturb, level = given.get("perturb"), given.get("level")
    if given.get("defects") is not None:
        for name, other in (("perturb", perturb), ("level", level)):
            if other is not None:
                raise InvalidArgument(name, other, "no value with defects")
        from robust_tf.sensors import Device

        return Device.read(given["defects"])
    if perturb is not None and is_sensor_file(perturb):
        if level is not None:
            raise InvalidArgument("level", level, f"no value with perturb={perturb}")
        from robust_tf.sensors import imaging

        return imaging.read(perturb, "perturb")
    if perturb is None or (perturb not in KINDS and "," not in perturb and perturb != "all"):
        expected = f"all, or some of {', '.join(KINDS)}; or sensor:FILE"
        raise InvalidArgument("perturb", perturb, expected)
    mixture = mixtures.parse(perturb, level)
    if mixture is not None:
        return dataclasses.replace(mixture, channel_blur=channel_blur)
    return Perturbation(
        perturb, KINDS[perturb].train_level if level is None else level, channel_blur
    )


def _show_perturbation(perturbation: Applied) -> dict[str, Any]:
    shown: dict[str, Any] = {"perturb": perturbation.kind}
    if isinstance(perturbation, Perturbation):
        shown["level"] = perturbation.level
    elif isinstance(perturbation, Mixture):
        shown["level"] = str(perturbation)
    return shown


_UNITS = ", ".join(
    f"{unit} ({', '.join(name for name, kind in KINDS.items() if kind.unit == unit)})"
    for unit in dict.fromkeys(kind.unit for kind in KINDS.values())
)
_LEVELS = ", ".join(f"{name} {kind.train_level:g}" for name, kind in KINDS.items())
_RANGES = ", ".join(
    f"{name}={kind.train_range[0]:g}:{kind.train_range[1]:g}" for name, kind in KINDS.items()
)
_PERTURBATION = Parsed(
    {
        "perturb": Setting(
            f"The kind of perturbation in training, one of {', '.join(KINDS)}; or several, "
            "separated by commas, or all, which stands for "
            f"{', '.join(all_kinds())}: each image then has one of them, at one of the levels "
            "of --level. Or sensor:FILE.toml: each image is taken by another device of a sensor."
        ),
        "level": Setting(
            f"Level of the training perturbation: {_UNITS}. By default "
            f"{_LEVELS}. Or a range, 1:10, of which each image has a level; for several kinds "
            f"such as hot=1:5,noise=0.01:0.05, by default {_RANGES}."
        ),
        "defects": Setting(
            "A file with the defect map of one device (CSV, or LibRaw's text), which the model is "
            "trained for and tested with, in place of --perturb."
        ),
    },
    _parse_perturbation,
    _show_perturbation,
)


class Strategy:
    """What all strategies share; as it is here it perturbs nothing."""

    @property
    def applied(self) -> Applied | None:
        """What perturbs an image; None for nothing."""
        return None

    @property
    def fractions(self) -> Ramp:
        """The perturbed fraction of each batch over the epochs."""
        return Ramp(0.0, 0.0)

    @property
    def adapts_to(self) -> Adapt:
        """The images, as in the first epoch, that the standardisation is adapted to."""
        return "natural"

    def prepare(
        self,
        split: Split,
        build_model: BuildModel,
        recipe: Recipe,
        *,
        seed: int = 0,
        initial_epoch: int = 0,
        distribution: tf.distribute.Strategy | None = None,
    ) -> Training:
        """Makes what `training.fit` needs.

        Args:
            split: training split.
            build_model: makes the model that training starts from.
            recipe: how it is trained.
            seed: the experiment's seed.
            initial_epoch: the first epoch to make batches for, from 0.
            distribution: the devices that share each batch; by default one.

        Returns:
            The model, its batches and callbacks.

        Raises:
            InvalidArgument: if the perturbation's level does not fit the images.
        """
        from robust_tf.training.batches import prepare

        return prepare(
            split,
            build_model,
            recipe,
            perturbation=self.applied,
            fresh=getattr(self, "fresh", False),
            ramp=self.fractions,
            adapt=self.adapts_to,
            seed=seed,
            initial_epoch=initial_epoch,
            distribution=distribution,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Natural(Strategy):
    """Trains on the images as they are."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant(Strategy):
    """Perturbs every training image (paper, section VI.A).

    The standardisation is adapted to the perturbed images of the first epoch.

    Args:
        perturbation: what perturbs them.
        extra_pixels: pixels that are perturbed beyond its level, from 0 on; None, and no
            other value, for perturbations that are not of one number of pixels.
        fresh: perturb an image anew in each epoch, not once and for all.

    Raises:
        InvalidArgument: if `extra_pixels` is out of range.
    """

    perturbation: Annotated[Applied, _PERTURBATION]
    extra_pixels: Annotated[
        int | None,
        whole(
            "Pixels that are perturbed in training beyond --level (stuck, dead, hot).",
            0,
            default="0",
        ),
    ] = None
    fresh: Annotated[
        bool, switch("Draw the perturbation of a training image anew in each epoch.")
    ] = False

    def __post_init__(self):
        """Fills in and checks `extra_pixels`."""
        if self.extra_pixels is None and counts_pixels(self.perturbation):
            object.__setattr__(self, "extra_pixels", 0)
        elif self.extra_pixels is not None and not counts_pixels(self.perturbation):
            perturb = _show_perturbation(self.perturbation)["perturb"]
            expected = f"no value with perturb={perturb}"
            if isinstance(self.perturbation, Mixture):
                expected = "no value with a range of levels"
            raise InvalidArgument("extra_pixels", self.extra_pixels, expected)

    @property
    def applied(self) -> Applied:
        """The perturbation, with its extra pixels."""
        if not self.extra_pixels or not isinstance(self.perturbation, Perturbation):
            return self.perturbation
        level = self.perturbation.level + self.extra_pixels
        return dataclasses.replace(self.perturbation, level=level)

    @property
    def fractions(self) -> Ramp:
        """All of them in all epochs."""
        return Ramp(1.0, 1.0)

    @property
    def adapts_to(self) -> Adapt:
        """The perturbed images."""
        return "perturbed"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Incremental(Constant):
    """Perturbs a fraction of each batch that grows with the epochs (paper, section VI.B).

    A batch of B images in epoch e holds exactly ⌊f·B + ½⌋ perturbed ones, f being the
    ramp's fraction of e. The standardisation is adapted to the natural images.

    Args:
        perturbation: as in `Constant`, like the next two.
        extra_pixels: see there.
        fresh: see there.
        ramp: the fractions.
    """

    ramp: Ramp = Ramp()

    @property
    def fractions(self) -> Ramp:
        """The ramp."""
        return self.ramp

    @property
    def adapts_to(self) -> Adapt:
        """The natural images."""
        return "natural"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transfer(Constant):
    """Perturbs every image for a model that was trained before (paper, section VI.C).

    The standardisation is adapted to the perturbed images of the first epoch, or kept.

    Args:
        perturbation: as in `Constant`, like the next two.
        extra_pixels: see there.
        fresh: see there.
        pretrained: the directory of the SavedModel that training starts from, with or
            without its version, or a `.keras` or HDF5 file; None for the natural run of the same
            settings.
        head_units: units of the ReLU layers of the new head, each from 1 on.
        freeze_base: train nothing but the head.
        keep_standardization: of the pretrained model, even when it is fine-tuned; a frozen
            base keeps its own anyway.
    """

    pretrained: Annotated[
        str | None,
        Setting(
            "Directory of the SavedModel to start from, with or without its version, or a .keras "
            "or .h5 file (transfer).",
            expected="the directory of a SavedModel, or a .keras file, on this machine",
            allows=lambda value: value is None or (bool(value) and "://" not in value),
            default="the natural model that the same flags with --strategy=natural give, "
            "trained first where it is not there",
        ),
    ] = None
    head_units: Annotated[
        tuple[int, ...],
        wholes(
            "Units of the ReLU layers of the new head, separated by commas; empty for none "
            "(transfer).",
            empty=True,
        ),
    ] = ()
    freeze_base: Annotated[bool, switch("Train nothing but the new head (transfer).")] = False
    keep_standardization: Annotated[
        bool,
        switch(
            "Keep mean and deviation of the input as they were for the natural images, instead "
            "of taking those of the perturbed ones; so it is with --freeze_base anyway "
            "(transfer)."
        ),
    ] = False

    @property
    def adapts_to(self) -> Adapt:
        """Nothing where the standardisation is kept."""
        return None if self.keep_standardization or self.freeze_base else "perturbed"


def counts_pixels(perturbation: Applied) -> bool:
    """Whether a perturbation is of one number of pixels."""
    return isinstance(perturbation, Perturbation) and perturbation.family == "pixels"


STRATEGIES: dict[str, type[Strategy]] = {
    "natural": Natural,
    "constant": Constant,
    "incremental": Incremental,
    "transfer": Transfer,
}
