"""A sensor as a TOML file and as a value: its size, defects, noise and ageing.

What images it takes is in `imaging`, where its defects lie in `scatter`.
"""

import dataclasses
import functools
import hashlib
import json
import numbers
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from robust_tf.errors import InvalidArgument, Unavailable, one_line
from robust_tf.sensors import scatter
from robust_tf.sensors.maps import DefectMap
from robust_tf.sensors.tables import (
    FILTERS,
    SHAPES,
    SHOWS,
    Defects,
    Growth,
    Input,
    Noise,
    Region,
    Source,
    Table,
    Zone,
)
from robust_tf.settings import choice, whole

if sys.version_info >= (3, 11):  # noqa: UP036
    import tomllib
else:
    import tomli as tomllib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sensor(Table):
    """A sensor, of which there are many devices.

    Attributes:
        height: rows of photosites.
        width: columns.
        filter: "mono", or the colours of two by two photosites, row by row.
        bits: of each value that is read, 1 to 16.
        input: how it becomes the input of a network.
        kinds: of defects, each with its number.
        noise: None for none.
        growth: None for a sensor that does not age.
        name: what it is called, such as the file's name.

    Raises:
        InvalidArgument: if something does not fit; the message names the table and the key.

    Examples:
        >>> sensor = Sensor(height=28, width=28, kinds=(Defects(name="hot", expected=2),))
        >>> len(sensor.defects(seed=0, device=3)) < 20
        True
    """

    height: Annotated[int, whole("Rows of photosites.", at_most=2**15)]
    width: Annotated[int, whole("Columns of photosites.", at_most=2**15)]
    filter: Annotated[str, choice("Colours of the photosites.", FILTERS)] = "mono"
    bits: Annotated[int, whole("Bits of each value.", at_most=16)] = 8
    input: Input = Input()
    kinds: tuple[Defects, ...] = ()
    noise: Noise | None = None
    growth: Growth | None = None
    name: str = dataclasses.field(default="sensor", compare=False)

    def __post_init__(self):
        """Checks what belongs together."""
        super().__post_init__()
        order = [*SHOWS, *SHAPES]
        kinds = tuple(sorted(self.kinds, key=lambda one: order.index(one.name)))
        object.__setattr__(self, "kinds", kinds)
        if len({one.name for one in kinds}) < len(kinds):
            raise InvalidArgument("kinds", [one.name for one in kinds], "each kind once")
        self._check_region()
        for one in kinds:
            for zone in one.zones:
                if problem := self._outside(zone):
                    raise InvalidArgument(f"[defects.{one.name}] zones", *problem)
        if self.growth is not None:
            self.growth.check(self.height * self.width)
        self._check_number(0.0)
        if self.noise is not None:
            self.noise.check(self.bits)

    def _check_region(self) -> None:
        read = self.region
        if self.filter != "mono":
            for table, one in (("[sensor]", self), ("[input] region", read)):
                for key in ("height", "width"):
                    if getattr(one, key) % 2:
                        expected = f"an even number, which the filter {self.filter} tiles"
                        raise InvalidArgument(f"{table} {key}", getattr(one, key), expected)
        if problem := self._outside(read):
            raise InvalidArgument("[input] region", *problem)
        for key in ("height", "width"):
            if getattr(read, key) % self.input.binning:
                expected = f"a number that divides the region's {key}, {getattr(read, key)}"
                raise InvalidArgument("[input] binning", self.input.binning, expected)
            if self.filter != "mono" and getattr(self.window, key) < 4:
                expected = f"at least 4 after the crop, which the filter {self.filter} needs"
                raise InvalidArgument(f"[input] region {key}", getattr(self.window, key), expected)

    def _outside(self, one: Region) -> tuple[str, str] | None:
        """What was received and what is expected, if it is not on the sensor."""
        if one.top + one.height <= self.height and one.left + one.width <= self.width:
            return None
        received = f"rows {one.top} to {one.top + one.height - 1}"
        received += f", columns {one.left} to {one.left + one.width - 1}"
        return received, f"photosites of the sensor, {self.height} x {self.width}"

    def _check_number(self, years: float) -> None:
        """Raises `InvalidArgument` if there are more defects than places."""
        total, photosites = 0.0, self.height * self.width
        for one in self.sources(years):
            places = one.region.height * one.region.width
            places = {"row": self.height, "column": self.width}.get(one.shape, places)
            size = np.average(one.sizes, weights=one.shares) if one.sizes else 1.0
            noun = {"row": "rows", "column": "columns"}.get(one.shape, "photosites")
            if one.mean * size > places:
                expected = f"defects of at most {places:,} {noun}, not {one.mean * size:,.10g}"
                raise InvalidArgument(one.argument, one.given, expected)
            size *= {"row": self.width, "column": self.height}.get(one.shape, 1)
            total += one.mean * size
            if total > photosites:
                expected = f"defects of at most {photosites:,} photosites in all kinds together"
                raise InvalidArgument(one.argument, one.given, f"{expected}, not {total:,.10g}")

    def check_device(self, device: int, years: float) -> None:
        """Raises `InvalidArgument` if there is none of that number and age."""
        self._check_number(years)
        number = isinstance(device, int | np.integer) and not isinstance(device, bool)
        if not number or not 0 <= device < 2**31:
            raise InvalidArgument("device", device, "a whole number from 0 to below 2**31")

    @property
    def region(self) -> Region:
        """The photosites that are read."""
        return self.input.region or Region(height=self.height, width=self.width)

    @functools.cached_property
    def window(self) -> Region:
        """The photosites that a network sees: of the region, what is left when it is cropped."""
        read = self.region
        if self.input.crop == "none":
            return read
        side = min(read.height, read.width)
        step = max(self.input.binning, 1 if self.filter == "mono" else 2)
        top, left = ((length - side) // 2 // step * step for length in (read.height, read.width))
        return Region(top=read.top + top, left=read.left + left, height=side, width=side)

    @functools.cached_property
    def digest(self) -> str:
        """A text that tells the content from all others: 64 characters."""
        content = dataclasses.asdict(self)
        del content["name"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def kind(self) -> str:
        """Its name in tables, with eight characters that its content decides."""
        return f"sensor/{self.name}-{self.digest[:8]}"

    def sources(self, years: float = 0.0) -> list[Source]:
        """All that makes defects in devices of an age.

        Raises:
            InvalidArgument: if the age is not one.
        """
        is_number = isinstance(years, numbers.Real) and not isinstance(years, bool)
        if not (is_number and 0 <= years < 1e9):
            raise InvalidArgument("years", years, "a number from 0 to below 1e9")
        whole_sensor = Region(height=self.height, width=self.width)
        found = []
        for one in self.kinds:
            place = (*SHOWS, *SHAPES).index(one.name)
            areas: list[tuple[Region, Defects | Zone]] = [(whole_sensor, one)]
            areas += [(zone, zone) for zone in one.zones]
            for area, (region, own) in enumerate(areas):
                photosites = region.height * region.width
                scale = photosites / 1e6 if own.per == "megapixel" else 1.0
                found.append(
                    Source(
                        number=_ZONES * place + area,
                        shape=one.name if one.name in SHAPES else "pixel",
                        shows=str(one.shows),
                        region=Region(**{k: getattr(region, k) for k in _RECTANGLE}),
                        mean=own.expected * scale,
                        offset=one.offset,
                        sizes=one.sizes,
                        shares=one.shares or (1.0,) * len(one.sizes),
                        argument=f"[defects.{one.name}]{f' zone {area}' * bool(area)} expected",
                        given=own.expected,
                    )
                )
        if self.growth is not None:
            rate = self.growth.rate(self.height * self.width)
            found.append(
                Source(
                    number=-1,
                    shape="pixel",
                    shows=self.growth.shows,
                    region=whole_sensor,
                    mean=rate * years,
                    offset=self.growth.offset,
                    argument="years",
                    given=years,
                )
            )
        return found

    def defects(self, seed: int, device: int, years: float = 0.0) -> DefectMap:
        """The defects of a device, in the sensor's coordinates.

        They depend on the arguments and the sensor, and on nothing else; a device keeps its
        defects with the years, and gets more.

        Args:
            seed: a whole number from 0 on.
            device: its number, from 0 on.
            years: its age.

        Raises:
            InvalidArgument: if an argument is out of range.
        """
        return self.defects_of(seed, [device], years)[0]

    def defects_of(self, seed: int, devices: Sequence[int], years: float = 0.0) -> list[DefectMap]:
        """The maps of several devices, sooner than one after the other; as `defects`."""
        for device in devices:
            self.check_device(device, years)
        seeds = scatter.device_seeds(seed, devices)
        return scatter.listed(self.sources(years), seeds, self.height, self.width)

    @classmethod
    def read(cls, path: str | os.PathLike) -> "Sensor":
        """Reads a TOML file.

        Raises:
            InvalidArgument: if the file says something else; the message names table and key.
            Unavailable: if it cannot be read.
        """
        try:
            given = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
        except OSError as error:
            reason = error.strerror or one_line(error)
            raise Unavailable("sensor", path, f"it cannot be read ({reason})") from error
        except ValueError as error:  # no UTF-8, or no TOML
            raise InvalidArgument("sensor", path, f"a TOML file ({one_line(error)})") from error
        try:
            return _made(given, Path(path).stem)
        except InvalidArgument as error:
            value = "" if error.value is None else f" = {_shown(error.value)}"
            raise InvalidArgument(
                "sensor", f"{path}, {error.argument}{value}", error.expected
            ) from None


_RECTANGLE = ("top", "left", "height", "width")
# Numbers of sources: so many for each kind.
_ZONES = 2**20


def _made(given: Mapping[str, Any], name: str) -> Sensor:
    """The sensor of a file's tables; errors name tables."""
    tables = ("sensor", "input", "defects", "noise", "growth")
    for table, own in given.items():
        if table not in tables:
            name = f"[{table}]" if isinstance(own, dict) else table
            raise InvalidArgument(name, None, f"tables {', '.join(tables)}")
        if not isinstance(own, dict):
            raise InvalidArgument(table, own, f"a table, [{table}]")
    rest: dict[str, Any] = {}
    if "input" in given:
        own = dict(given["input"])
        if "region" in own:
            own["region"] = _table(Region, own["region"], "[input] region")
        rest["input"] = _table(Input, own, "[input]")
    for table, kind in (("noise", Noise), ("growth", Growth)):
        if table in given:
            rest[table] = _table(kind, given[table], f"[{table}]")
    kinds = []
    for one, own in given.get("defects", {}).items():
        place = f"[defects.{one}]"
        if one not in (*SHOWS, *SHAPES):
            raise InvalidArgument(place, None, f"kinds {', '.join((*SHOWS, *SHAPES))}")
        if not isinstance(own, dict):
            raise InvalidArgument(f"[defects] {one}", own, f"a table, {place}")
        zones = own.get("zones", [])
        if not isinstance(zones, list):
            raise InvalidArgument(f"{place} zones", zones, "a list of tables")
        own = own | {"zones": tuple(_table(Zone, zone, f"{place} zones") for zone in zones)}
        kinds.append(_table(Defects, own, place, name=one))
    sensor = given.get("sensor", {})
    return _table(Sensor, sensor, "[sensor]", kinds=tuple(kinds), name=name, **rest)


def _table(kind: type, given: Any, place: str, **known: Any) -> Any:
    """A table's keys as a value of that class; errors name the place."""
    if not isinstance(given, dict):
        raise InvalidArgument(place, given, "a table")
    keys = {field.name: field for field in dataclasses.fields(kind) if field.name not in known}
    if kind is Sensor:
        keys = {name: keys[name] for name in ("height", "width", "filter", "bits")}
    for key in given:
        if key not in keys:
            raise InvalidArgument(f"{place} {key}", None, f"some of {', '.join(keys)}")
    for key, field in keys.items():
        if field.default is dataclasses.MISSING and key not in given:
            raise InvalidArgument(place, None, f"the key {key}")
    try:
        return kind(**given, **known)
    except InvalidArgument as error:
        if error.argument.startswith("["):
            raise
        raise error.of(f"{place} {error.argument}") from None


def _shown(value: Any) -> str:
    quoted = isinstance(value, str) and " " not in value  # or it is ours, "rows 3 to 5"
    return json.dumps(value, ensure_ascii=False) if quoted else str(value)


# Sensors that come with the library, by name: files to start from.
EXAMPLES = {path.stem: path for path in sorted((Path(__file__).parent / "examples").glob("*.toml"))}
