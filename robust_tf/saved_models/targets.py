"""What LiteRT and ONNX files are made for; `conversion` makes them."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from robust_tf import settings
from robust_tf.errors import InvalidArgument
from robust_tf.settings import choice, number

# The endings of files, by format.
SUFFIXES = {"litert": ".tflite", "onnx": ".onnx"}
QUANTIZE = ("none", "dynamic", "float16", "int8")
INPUTS = ("float", "uint8", "int8")


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a file is made for.

    Args:
        format: a name of `SUFFIXES`.
        quantize: how numbers are stored and computed with.
        io: what a file of integers takes and returns.
        deviation_floor: least deviation that values are divided by in the standardisation.

    Raises:
        InvalidArgument: if one is not allowed, or `io` has no meaning.
    """

    format: Annotated[str, choice("The file's format.", SUFFIXES)] = "litert"
    quantize: Annotated[str, choice("How numbers are stored.", QUANTIZE)] = "none"
    io: Annotated[
        str,
        choice(
            "What int8 files of LiteRT take and return: float, as the model does; or uint8 or "
            "int8, with a scale that is in the file.",
            INPUTS,
        ),
    ] = "float"
    deviation_floor: Annotated[
        float,
        number(
            "In the files the standardisation divides by this deviation where a pixel's own is "
            "smaller; 0 for no floor.",
            at_least=0,
            at_most=1,
        ),
    ] = 0.0

    def __post_init__(self):
        """Checks the settings."""
        settings.check_fields(self)
        object.__setattr__(self, "deviation_floor", float(self.deviation_floor))
        if self.io != "float" and (self.format, self.quantize) != ("litert", "int8"):
            raise InvalidArgument("io", self.io, "float, but for int8 files of LiteRT")

    def __str__(self) -> str:
        """For names of files: "float32", "int8 uint8" or "int8 floor 0.125"."""
        words = ["float32" if self.quantize == "none" else self.quantize]
        words += [self.io] if self.io != "float" else []
        words += [f"floor {self.deviation_floor:g}"] if self.deviation_floor else []
        return " ".join(words)

    @property
    def suffix(self) -> str:
        """The ending of the file's name."""
        return SUFFIXES[self.format]


def targets(
    formats: Iterable[str],
    quantize: Iterable[str],
    *,
    io: str = "float",
    deviation_floor: float = 0.0,
) -> list[Target]:
    """All combinations of formats and quantisations; `io` is for those where it has a meaning.

    Raises:
        InvalidArgument: as `Target`, or if `io` has a meaning nowhere.
    """
    asked = list(itertools.product(formats, quantize))
    if ("litert", "int8") not in asked:
        Target(format=asked[0][0], quantize=asked[0][1], io=io)
    return [
        Target(
            format=one,
            quantize=how,
            io=io if (one, how) == ("litert", "int8") else "float",
            deviation_floor=deviation_floor,
        )
        for one, how in asked
    ]
