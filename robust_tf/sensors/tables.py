"""The tables of a sensor's file, each a value that checks its own keys.

What they have to do with each other is in `specification`.
"""

import dataclasses
import math
from typing import Annotated, Any

from robust_tf.errors import InvalidArgument
from robust_tf.sensors import mosaics
from robust_tf.settings import Setting, check_fields, choice, number, whole

FILTERS = ("mono", *mosaics.TILES)
# What a defective photosite shows.
SHOWS = ("hot", "dead", "stuck", "warm")
SHAPES = ("cluster", "row", "column")
_PER = choice("What a number is for.", ("device", "megapixel"))
_SHOW = choice("What its photosites show.", SHOWS)


def _share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1 <= value <= 1


def _ends(value: Any) -> Any:
    found = tuple(value) if isinstance(value, list | tuple) else (value, value)
    return tuple(map(float, found)) if all(map(_share, found)) else value


def _are_ends(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and value[0] <= value[1]


def _is_binning(value: Any) -> bool:
    return type(value) is int and value in (1, 2, 4)


def _numbers(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


_OFFSET = Setting(
    "What a warm photosite adds, a share of the whole range; of two ends, evenly in between.",
    expected="a number from -1 to 1, or two of them, the lower first",
    allows=lambda value: value is None or _are_ends(value),
    parse=_ends,
)


class Table:
    """A table of the file; its fields are its keys."""

    def __post_init__(self):
        """Checks each value; whole numbers become numbers where these are meant."""
        check_fields(self)
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            (setting,) = getattr(field.type, "__metadata__", (None,))
            if isinstance(setting, Setting) and setting.type is float:
                value = getattr(self, field.name)
                object.__setattr__(self, field.name, None if value is None else float(value))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Region(Table):
    """A rectangle of photosites."""

    top: Annotated[int, whole("First row, from 0.", 0)] = 0
    left: Annotated[int, whole("First column, from 0.", 0)] = 0
    height: Annotated[int, whole("Rows.")]
    width: Annotated[int, whole("Columns.")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Zone(Region):
    """A rectangle with defects of its own, which are added to those of the whole sensor."""

    expected: Annotated[float, number("Expected defects.", 0)]
    per: Annotated[str, _PER] = "device"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Defects(Table):
    """How many defects of a kind there are.

    A device's number has a Poisson distribution with the mean `expected`; each has a place of
    its own, all as likely. Where two meet there is one.

    Attributes:
        name: "hot" (1), "dead" (0), "stuck" (a number from U[0, 1)) or "warm" (adds `offset`)
            for single photosites; "cluster", "row" or "column".
        expected: the mean, of the whole sensor or, per megapixel, of 10**6 photosites.
        per: "device" or "megapixel"; rows and columns have the first alone.
        shows: what clusters, rows and columns show, as the names of single photosites: by
            default hot.
        offset: of warm ones, the lowest and the highest.
        sizes: of clusters: photosites, the first of a spiral around the place.
        shares: how many clusters have each size, of any sum; by default equally many.
        zones: rectangles with more of them.
    """

    name: Annotated[str, choice("The kind.", (*SHOWS, *SHAPES))]
    expected: Annotated[float, number("Expected defects.", 0)]
    per: Annotated[str, _PER] = "device"
    shows: Annotated[str | None, _SHOW] = None
    offset: Annotated[tuple[float, float] | None, _OFFSET] = None
    sizes: Annotated[
        tuple[int, ...],
        Setting(
            "Photosites of a cluster.",
            expected="different whole numbers from 2 to 49",
            allows=lambda value: (
                isinstance(value, tuple)
                and all(type(one) is int and 2 <= one <= 49 for one in value)
                and len(set(value)) == len(value)
            ),
            parse=_numbers,
        ),
    ] = ()
    shares: Annotated[
        tuple[float, ...],
        Setting(
            "How many clusters have each size.",
            expected="numbers above 0, one for each of sizes",
            allows=lambda value: (
                isinstance(value, tuple)
                and all(type(one) in (int, float) and 0 < one < 2**31 for one in value)
            ),
            parse=_numbers,
        ),
    ] = ()
    zones: tuple[Zone, ...] = ()

    def __post_init__(self):
        """Checks what belongs together."""
        if self.name in SHOWS and self.shows is not None:
            raise InvalidArgument("shows", self.shows, f"no value with {self.name}")
        if self.shows is None:
            object.__setattr__(self, "shows", self.name if self.name in SHOWS else "hot")
        super().__post_init__()
        if (self.offset is None) == (self.shows == "warm"):
            expected = "a value with warm" if self.offset is None else "no value but with warm"
            raise InvalidArgument("offset", self.offset, expected)
        if bool(self.sizes) != (self.name == "cluster"):
            expected = "no value but with cluster" if self.sizes else "a list with cluster"
            raise InvalidArgument("sizes", self.sizes or None, expected)
        if len(self.shares) not in (0, len(self.sizes)):
            raise InvalidArgument("shares", self.shares, "numbers above 0, one for each of sizes")
        if self.name in ("row", "column"):
            if self.per != "device":
                raise InvalidArgument("per", self.per, f"device with {self.name}")
            if self.zones:
                raise InvalidArgument("zones", "…", f"no value with {self.name}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noise(Table):
    """EMVA 1288's linear model, in its units.

    Attributes:
        K: overall system gain, DN/e-.
        full_well: saturation capacity, e-.
        white: electrons where the scene is 1, e-; by default as many as full well and bits hold.
        sigma_d: temporal dark noise, e-.
        dark_current: e-/s.
        exposure: exposure time, s.
        DSNU_1288: dark signal nonuniformity, e-.
        PRNU_1288: photo response nonuniformity, %.
        black_level: DN where there is no signal; it is subtracted again.
    """

    K: Annotated[float, number("DN/e-.", above=0)]
    full_well: Annotated[float, number("e-.", 1, 1e9)]
    white: Annotated[float | None, number("e-.", above=0)] = None
    sigma_d: Annotated[float, number("e-.", 0)] = 0.0
    dark_current: Annotated[float, number("e-/s.", 0)] = 0.0
    exposure: Annotated[float, number("s.", 0)] = 0.0
    DSNU_1288: Annotated[float, number("e-.", 0)] = 0.0
    PRNU_1288: Annotated[float, number("%.", 0, 100)] = 0.0
    black_level: Annotated[float, number("DN.", 0)] = 0.0

    def at_white(self, bits: int) -> float:
        """Electrons of a photosite where the scene is 1: given, or as many as the sensor holds."""
        held = min(self.full_well, (2**bits - 1 - self.black_level) / self.K)
        return held if self.white is None else self.white

    def check(self, bits: int) -> None:
        """Raises `InvalidArgument` for what a sensor of so many bits could not show."""
        steps = 2**bits - 1
        if self.black_level > steps - 1:
            expected = f"a number from 0 to {steps - 1}, below the highest of {bits} bits"
            raise InvalidArgument("[noise] black_level", self.black_level, expected)
        most = (steps - self.black_level) / self.K
        if self.white is not None and self.white > min(self.full_well, most):
            limit = (
                "the full well" if self.full_well <= most else f"what {bits} bits hold at this K"
            )
            expected = f"a number above 0, at most {min(self.full_well, most):.10g}, {limit}"
            raise InvalidArgument("[noise] white", self.white, expected)
        electrons = self.at_white(bits)
        if electrons < 1 or self.K * electrons < 1:
            name = "K" if self.white is None else "white"
            expected = (
                f"a number at which white, {electrons:.3g} e-, is an electron and a DN or more"
            )
            raise InvalidArgument(f"[noise] {name}", getattr(self, name), expected)
        held = min(self.full_well, most)
        if self.K * (held - self.dark_current * self.exposure) < 1:
            expected = f"a number that times exposure is well below {held:.4g} e-, which are held"
            raise InvalidArgument("[noise] dark_current", self.dark_current, expected)
        for name in ("sigma_d", "DSNU_1288"):
            if getattr(self, name) > held:
                expected = f"a number from 0 to {held:.10g}, the electrons that are held"
                raise InvalidArgument(f"[noise] {name}", getattr(self, name), expected)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Growth(Table):
    """How many photosites become defective per year.

    Attributes:
        law: "linear": `per_year` of each device or megapixel; "power": of each year and mm²,
            coefficient · pixel_um ** pixel_exponent · iso ** iso_exponent (Chapman et al.).
        source: where the numbers are from.
        shows: what these photosites show, as in `Defects`.
        offset: see there.
    """

    law: Annotated[str, choice("The law.", ("linear", "power"))]
    source: Annotated[
        str,
        Setting(
            "Where the numbers are from.", allows=lambda one: isinstance(one, str) and one != ""
        ),
    ]
    shows: Annotated[str, _SHOW] = "hot"
    offset: Annotated[tuple[float, float] | None, _OFFSET] = None
    per_year: Annotated[float | None, number("Expected new defects.", 0)] = None
    per: Annotated[str, _PER] = "device"
    coefficient: Annotated[float | None, number("Of each year and mm².", 0)] = None
    pixel_um: Annotated[float | None, number("Pitch of photosites in µm.", above=0)] = None
    pixel_exponent: Annotated[float | None, number("Exponent of the pitch.")] = None
    iso: Annotated[float | None, number("Speed.", above=0)] = None
    iso_exponent: Annotated[float | None, number("Exponent of the speed.")] = None

    def __post_init__(self):
        """Checks that the law has its parameters, and no others."""
        super().__post_init__()
        if (self.offset is None) == (self.shows == "warm"):
            expected = "a value with warm" if self.offset is None else "no value but with warm"
            raise InvalidArgument("offset", self.offset, expected)
        power = ("coefficient", "pixel_um", "pixel_exponent", "iso", "iso_exponent")
        for name in ("per_year", *power):
            needed = (name in power) == (self.law == "power")
            if (getattr(self, name) is None) == needed:
                noun = "a number" if needed else "no value"
                raise InvalidArgument(name, getattr(self, name), f"{noun} with law={self.law}")
        if self.law == "power" and self.per != "device":
            raise InvalidArgument("per", self.per, "no value with law=power, which is per mm²")

    def check(self, photosites: int) -> None:
        """Raises `InvalidArgument` if more than all of so many become defective in a year."""
        name = "per_year" if self.law == "linear" else "coefficient"
        try:
            rate = self.rate(photosites)
        except OverflowError:
            rate = math.inf
        if not rate <= photosites:
            expected = f"a law with at most {photosites:,} new defects a year, not {rate:,.6g}"
            raise InvalidArgument(f"[growth] {name}", getattr(self, name), expected)

    def rate(self, photosites: int) -> float:
        """Expected new defects per year of a sensor with so many photosites."""
        if self.law == "linear":
            return self.per_year * (photosites / 1e6 if self.per == "megapixel" else 1)  # type: ignore[operator]
        density = self.coefficient * self.pixel_um**self.pixel_exponent  # type: ignore[operator]
        density *= self.iso**self.iso_exponent  # type: ignore[operator]
        return density * photosites * (self.pixel_um * 1e-3) ** 2  # type: ignore[operator]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Input(Table):
    """How what the sensor takes becomes the input of a network.

    Attributes:
        region: the photosites that are read; None for all.
        crop: "center": the largest square in the middle of the region; "none": all of it.
        binning: 1, 2 or 4: so many pixels squared become their mean.
        demosaic: "bilinear" or "malvar", see `mosaics`.
    """

    region: Region | None = None
    crop: Annotated[str, choice("Which part.", ("center", "none"))] = "center"
    binning: Annotated[int, Setting("Pixels.", int, "1, 2 or 4", _is_binning)] = 1
    demosaic: Annotated[str, choice("How colours are filled in.", mosaics.METHODS)] = "bilinear"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """What makes defects of one kind in a rectangle; `Sensor.sources` lists them.

    Attributes:
        number: tells its random numbers from others'.
        shape: "pixel", "cluster", "row" or "column".
        shows: as in `Defects`, with offset, sizes and shares.
        region: the rectangle.
        mean: the expected number.
        offset: see there.
        sizes: see there.
        shares: see there.
        argument: the key that says the number, and
        given: what it says.
    """

    number: int
    shape: str
    shows: str
    region: Region
    mean: float
    offset: tuple[float, float] | None = None
    sizes: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()
    argument: str = dataclasses.field(compare=False)
    given: float = dataclasses.field(compare=False)
