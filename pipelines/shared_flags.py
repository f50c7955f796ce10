"""What several command lines take besides the settings of a run, declared once."""

from __future__ import annotations

import dataclasses
import math
import os
import warnings
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from robust_tf import data, evaluation, saved_models, sensors, settings
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.evaluation import libraries
from robust_tf.evaluation.suites import TRIALS
from robust_tf.perturbations import KINDS, all_kinds
from robust_tf.runs.declaration import Run
from robust_tf.runs.sources import Sources
from robust_tf.saved_models.places import FILES, locate
from robust_tf.sensors import is_device, is_sensor, is_sensor_file
from robust_tf.settings import Declared, Setting, names, switch, whole

if TYPE_CHECKING:
    from robust_tf.evaluation import Condition
    from robust_tf.saved_models import Classifier


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """The dataset."""

    dataset: Annotated[
        str | None,
        Setting(
            "A TFDS dataset with images of one size and class labels, e.g. mnist, cifar10; "
            "folder:PATH, pictures in PATH/<class>/ or PATH/train/<class>/ and PATH/test/<class>/; "
            "or csv:FILE, a list of pictures with the columns path, label and perhaps split.",
            expected="the name of a TFDS dataset, folder:PATH or csv:FILE",
            default="that of the model, or mnist",
        ),
    ] = None


# Of `Sources`, what commands take that only test.
TEST_DATA = [
    *("data_dir", "data_source", "test_examples", "memory_budget"),
    *settings.declared(data.Pictures),
]


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
            "A SavedModel's directory, with or without its version, or a .keras, .tflite or .onnx "
            "file; it takes images and returns one score per class.",
            expected="the directory of a SavedModel, or a .keras, .tflite or .onnx file, on this "
            "machine",
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
            default="0,1, or 0,255 where it takes integers, or what the file says",
        ),
    ] = None
    same_classes: Annotated[
        bool,
        switch(
            "The classes of the model, of the dataset and of other test images are the same in "
            "the same order, whatever their names."
        ),
    ] = False

    def check(self, argument: str = "model") -> None:
        """Sees whether there is one, as far as that needs no TensorFlow.

        Raises:
            InvalidArgument: if none is named.
            Unavailable: if there is no such file and no SavedModel.
        """
        if not self.model:
            raise InvalidArgument(argument, None, "the directory of a SavedModel")
        suffix = Path(self.model).suffix.lower()
        if suffix not in FILES:
            locate(argument, self.model)
        elif not os.path.exists(self.model):
            problem = f"there is no such file; expected a {suffix} file"
            raise Unavailable(argument, self.model, problem)

    def load(self, argument: str = "model") -> Classifier:
        """Loads it.

        Raises:
            InvalidArgument: if none is named, or a signature or output has to be.
            Unavailable: if it is not there.
        """
        self.check(argument)
        assert self.model is not None
        return saved_models.classifiers.load(
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
            f"What to test: a list of kinds, some of {', '.join(KINDS)}; all, which stands for "
            f"{', '.join(all_kinds())}; or auto: those of the trained family (stuck, dead and hot "
            "together), all for natural training. In a list besides: "
            "corrupted, what is prepared of TFDS's mnist_corrupted or cifar10_corrupted; "
            "tfds:NAME, the test images of another TFDS dataset of the same form; npy:FOLDER or "
            "png:FOLDER, images that pipelines.corrupt has written, or arrays as CIFAR-10-C's; and "
            "perturbations of other libraries: nrtk:FILE.json, albumentations:FILE.yaml (or "
            ".json), imagecorruptions:NAME (or NAME_SEVERITY); and sensor:FILE.toml, each image "
            "taken by another device of a sensor."
        ),
    ] = ("auto",)
    defects: Annotated[
        tuple[str, ...],
        names(
            "A file with the defect map of a device (CSV, or LibRaw's text), or several, separated "
            "by commas: the same defects in all images, one test per file.",
            empty=False,
        ),
    ] = ()
    trials: Annotated[int, whole("Passes over the test images per random perturbation.")] = TRIALS
    bits: Annotated[
        int | None,
        whole(
            "Round perturbed images to so many bits per value, as cameras do: 8 for bytes.",
            at_most=16,
            default="not rounded",
        ),
    ] = None

    def kinds(self, perturb: str | None) -> tuple[str, ...]:
        """The kinds to test.

        Args:
            perturb: what the model was trained with: a kind, several, or "all"; None for
                natural training.

        Raises:
            InvalidArgument: if one is unknown.
        """
        others = (_is_other, libraries.is_name, is_sensor_file)
        asked = [name for name in self.eval if not any(is_other(name) for is_other in others)]
        for name in asked:
            if name not in ("auto", "all", *KINDS):
                more = ["corrupted", "tfds:NAME", "npy:FOLDER", "png:FOLDER"]
                more += [*(f"{library}:…" for library in libraries.LIBRARIES), "sensor:FILE"]
                expected = f"auto, all, {', '.join(more)}, or some of {', '.join(KINDS)}"
                raise InvalidArgument("eval", name, expected)
        of_sensor = perturb is not None and (is_sensor_file(perturb) or is_sensor(perturb))
        kinds = [kind for kind in asked if kind not in ("auto", "all")]
        if "all" in asked or ("auto" in asked and (perturb in (None, "all") or of_sensor)):
            kinds = [*all_kinds(), *kinds]
        elif "auto" in asked:
            families = {
                "pixels" if is_device(kind) else KINDS[kind].family
                for kind in str(perturb).split(",")
            }
            kinds += [kind for kind in KINDS if KINDS[kind].family in families]
        return tuple(dict.fromkeys(kinds))

    @property
    def asks_for_other_images(self) -> bool:
        """Whether there is more to test with than the test images."""
        return any(map(_is_other, self.eval))

    def devices(self, image_shape: tuple[int, int, int]) -> tuple[Condition, ...]:
        """The devices whose defect maps are in files, for images of shape (H, W, C).

        Raises:
            InvalidArgument: if a file is no defect map, or not one of such images.
            Unavailable: if one cannot be read.
        """
        found = [sensors.Device.read(file).fitted(image_shape) for file in self.defects]
        if len(set(found)) < len(found):
            raise InvalidArgument("defects", self.defects, "files of different names or contents")
        return self.rounded(found)

    def of_other_libraries(self, like: data.Data) -> tuple[Condition, ...]:
        """The perturbations of other libraries, and sensors.

        Args:
            like: the dataset that the tested models are for.

        Raises:
            InvalidArgument: if there is no such perturbation, or two have one name.
            Unavailable: if a library is not installed, or a file cannot be read.
        """
        from robust_tf.sensors import imaging

        names = dict.fromkeys(filter(is_sensor_file, self.eval))
        of_sensors = self.rounded(imaging.read(name, "eval") for name in names)
        for one in of_sensors:
            one.check(like.image_shape)
        of_libraries = filter(libraries.is_name, self.eval)
        return (*evaluation.foreign.load_all(of_libraries, like), *of_sensors)

    def rounded(self, tests: Iterable[Condition]) -> tuple[Condition, ...]:
        """The same in so many bits, where that is asked for."""
        return tuple(evaluation.InBits(one, self.bits) if self.bits else one for one in tests)

    def other_images(
        self,
        like: data.Data,
        data_dir: str | None,
        test_examples: int | None,
        same_classes: bool = False,
    ) -> tuple[Condition, ...]:
        """The tests besides kinds of perturbation: devices, too.

        Args:
            like: the dataset that the tested models are for.
            data_dir: TFDS's directory; None for its default.
            test_examples: how many images of each are used; None for all.
            same_classes: their classes are those of `like`, whatever their names.

        Raises:
            InvalidArgument: if a dataset is unknown or of another form; and as
                `of_other_libraries`.
            Unavailable: if it is not there.
        """
        devices = self.devices(like.image_shape)
        of_libraries = self.of_other_libraries(like)
        found: list[str] = []
        files = [name for name in self.eval if name.startswith(_FILES)]
        for asked in (name for name in self.eval if _is_other(name) and name not in files):
            corrupted = asked == "corrupted"
            found += (
                data.prepared_corruptions(like, data_dir)
                if corrupted
                else [asked.removeprefix("tfds:")]
            )
        own: dict[str, Any] = {"test_examples": test_examples, "same_classes": same_classes}
        read = [
            evaluation.Recorded(*one)
            for name in files
            for one in data.load_files(name, like, **own)
        ]
        if len(set(read)) < len(read):
            raise InvalidArgument("eval", ",".join(self.eval), "folders of different names")
        tests, memory = [], like.test.room
        try:
            for name in dict.fromkeys(found):
                split = data.load_test(name, like, data_dir=data_dir, memory=memory, **own)
                memory -= split.bytes_in_memory
                tests.append(evaluation.Recorded(*kind_and_severity(name), split))
        except InvalidArgument as error:
            raise error.with_value(f"{','.join(self.eval)} with {error.value}") from None
        all_others = (*tests, *read, *of_libraries)
        in_bytes = [one for one in all_others if not isinstance(one, evaluation.InBits)]
        if self.bits not in (None, 8) and in_bytes:
            problem = f"it is not for {in_bytes[0].kind} and the like, whose images have 8 bits"
            warnings.warn(f"--bits={self.bits}: {problem}", stacklevel=2)
        return (*devices, *all_others)


# Images in a folder of files.
_FILES = ("npy:", "png:")


def _is_other(name: str) -> bool:
    return name == "corrupted" or name.startswith(("tfds:", *_FILES))


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


def measuring(**tests: Any) -> dict[str, list[Declared]]:
    """The groups of flags that all commands have which measure saved classifiers.

    Args:
        **tests: defaults of `Tests` that are others here.
    """
    return {
        "Data": [*some(Dataset), *some(Sources, TEST_DATA)],
        "Tests": [*some(Tests, **tests), *some(Run, ["channel_blur", "seed"])],
        "Outputs": some(Outputs),
    }
