"""What several command lines take besides the settings of a run, declared once."""

import dataclasses
import math
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated, Any

from robust_tf import data, settings
from robust_tf.errors import InvalidArgument
from robust_tf.evaluation import Recorded
from robust_tf.evaluation.suites import TRIALS
from robust_tf.perturbations import KINDS
from robust_tf.saved_models import classifiers
from robust_tf.settings import Declared, Setting, names, switch, whole


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """The dataset."""

    dataset: Annotated[
        str | None,
        Setting(
            "A TFDS dataset with images of one size and class labels, e.g. mnist, cifar10.",
            expected="the name of a TFDS dataset",
            default="that of the model, or mnist",
        ),
    ] = None


def _low_high(texts: Iterable[str]) -> Any:
    try:
        return tuple(map(float, texts))
    except ValueError:
        return tuple(texts)


def _is_range(value: Any) -> bool:
    if len(value) != 2 or not all(isinstance(number, float | int) for number in value):
        return False
    return math.isfinite(value[1] - value[0]) and value[0] < value[1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A saved model."""

    model: Annotated[
        str | None,
        Setting(
            "A SavedModel's directory, with or without its version, or a .keras file; it takes "
            "images and returns one score per class.",
            expected="the directory of a SavedModel, or a .keras file, on this machine",
            allows=lambda value: bool(value) and "://" not in value,
        ),
    ] = None
    signature: Annotated[
        str | None,
        Setting(
            "The signature to call.",
            default="serving_default, or the only one that takes images",
        ),
    ] = None
    output: Annotated[
        str | None,
        Setting(
            "The signature's output that has the scores.",
            default="probabilities, or the only one with one score per class",
        ),
    ] = None
    input_range: Annotated[
        tuple[float, float] | None,
        Setting(
            "The values that black and white have in the model's input.",
            list,
            "two numbers, the lower first, such as 0,255",
            _is_range,
            parse=_low_high,
            default="0,1, or 0,255 where it takes integers",
        ),
    ] = None
    same_classes: Annotated[
        bool,
        switch(
            "The classes of the model, of the dataset and of other test images are the same in "
            "the same order, whatever their names."
        ),
    ] = False

    def load(self, argument: str = "model") -> classifiers.Classifier:
        """Loads it.

        Raises:
            InvalidArgument: if none is named, or a signature or output has to be.
            Unavailable: if it is not there.
        """
        if not self.model:
            raise InvalidArgument(argument, None, "the directory of a SavedModel")
        return classifiers.load(
            self.model,
            signature=self.signature,
            output=self.output,
            input_range=self.input_range,
            same_classes=self.same_classes,
            argument=argument,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tests:
    """What models are tested with."""

    eval: Annotated[
        tuple[str, ...],
        names(
            "What to test: a list of kinds; all of them; or auto: those of the trained family "
            "(stuck, dead and hot together), all for natural training. In a list besides: "
            "corrupted, what is prepared of TFDS's mnist_corrupted or cifar10_corrupted; and "
            "tfds:NAME, the test images of another TFDS dataset of the same form."
        ),
    ] = ("auto",)
    trials: Annotated[int, whole("Passes over the test images per random perturbation.")] = TRIALS

    def kinds(self, perturb: str | None) -> tuple[str, ...]:
        """The kinds to test.

        Args:
            perturb: what the model was trained with: a kind, several, or "all"; None for
                natural training.

        Raises:
            InvalidArgument: if one is unknown.
        """
        asked = [name for name in self.eval if not _is_other(name)]
        for name in asked:
            if name not in ("auto", "all", *KINDS):
                expected = f"auto, all, corrupted, tfds:NAME, or some of {', '.join(KINDS)}"
                raise InvalidArgument("eval", name, expected)
        if "all" in asked or ("auto" in asked and perturb in (None, "all")):
            return tuple(KINDS)
        kinds = [kind for kind in asked if kind != "auto"]
        if "auto" in asked:
            families = {KINDS[kind].family for kind in str(perturb).split(",")}
            kinds += [kind for kind in KINDS if KINDS[kind].family in families]
        return tuple(dict.fromkeys(kinds))

    @property
    def asks_for_other_images(self) -> bool:
        """Whether there is more to test than kinds of perturbation."""
        return any(map(_is_other, self.eval))

    def other_images(
        self,
        like: data.Data,
        data_dir: str | None,
        test_examples: int | None,
        same_classes: bool = False,
    ) -> tuple[Recorded, ...]:
        """The tests besides kinds of perturbation.

        Args:
            like: the dataset that the tested models are for.
            data_dir: TFDS's directory; None for its default.
            test_examples: how many images of each are used; None for all.
            same_classes: their classes are those of `like`, whatever their names.

        Raises:
            InvalidArgument: if a dataset is unknown or of another form.
            Unavailable: if it is not there.
        """
        found: list[str] = []
        for asked in filter(_is_other, self.eval):
            corrupted = asked == "corrupted"
            found += (
                data.prepared_corruptions(like, data_dir)
                if corrupted
                else [asked.removeprefix("tfds:")]
            )
        try:
            return tuple(
                Recorded(
                    *kind_and_severity(name),
                    data.load_test(
                        name,
                        like,
                        data_dir=data_dir,
                        test_examples=test_examples,
                        same_classes=same_classes,
                    ),
                )
                for name in dict.fromkeys(found)
            )
        except InvalidArgument as error:
            raise error.with_value(f"{','.join(self.eval)} with {error.value}") from None


def _is_other(name: str) -> bool:
    return name == "corrupted" or name.startswith("tfds:")


def kind_and_severity(name: str) -> tuple[str, float]:
    """Those of a dataset: TFDS's "cifar10_corrupted/fog_3" is severity 3 of 5."""
    kind, _, severity = name.rpartition("_")
    if name.startswith("cifar10_corrupted/") and severity.isdecimal():
        return kind, float(severity)
    return name, math.nan


def _one_spelling(place: str) -> str:
    scheme, mark, rest = place.partition("://")
    if mark:
        rest = rest.removeprefix("localhost") if scheme.lower() == "file" else rest
        return f"{scheme.lower()}://{rest.rstrip('/')}"
    path = Path(place).as_posix() if place.strip() else place
    return f"./{path}" if path.startswith("~") else path  # one of that name, not the user's home


def _is_place(place: str) -> bool:
    """Not a URL that fsspec takes for another place than it says."""
    if "://" not in place:
        return bool(place.strip()) and not place.lower().startswith("file:")
    return "::" not in place and (not place.startswith("file://") or place.startswith("file:///"))


_PLACE: dict[str, Any] = {
    "expected": "a directory or a URL such as s3://bucket/results",
    "allows": _is_place,
    "parse": _one_spelling,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    """Where results go: directories, or URLs of other file systems."""

    output_dir: Annotated[
        str, Setting("Where folders with tables and figures are made.", **_PLACE)
    ] = "results"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelOutputs(Outputs):
    """Where results and SavedModels go."""

    saved_models_dir: Annotated[
        str,
        Setting(
            "Where SavedModels are exported.",
            default="saved_models, or in another --output_dir saved_models there",
            **_PLACE,
        ),
    ] = ""

    def __post_init__(self):
        """Keeps SavedModels with the results that they belong to."""
        if not self.saved_models_dir:
            beside = "" if self.output_dir == Outputs.output_dir else f"{self.output_dir}/"
            object.__setattr__(self, "saved_models_dir", f"{beside}saved_models")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DryRun:
    """Whether anything is done."""

    dry_run: Annotated[bool, switch("Print what would be done, and stop.")] = False


def some(declares: type, only: Collection[str] | None = None, **defaults: Any) -> list[Declared]:
    """Settings of a declaration for a group of flags.

    Args:
        declares: a dataclass.
        only: their names; by default all.
        **defaults: defaults that are others here.
    """
    found = settings.declared(declares)
    for name, default in defaults.items():
        setting = dataclasses.replace(found[name].setting, default="")
        found[name] = dataclasses.replace(found[name], setting=setting, default=default)
    return [found[name] for name in (found if only is None else only)]
