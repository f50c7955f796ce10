"""Sensors as TOML files: what they say, and what is refused in one line."""

import dataclasses

import pytest

from robust_tf import sensors
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.sensors import (
    Defects,
    Growth,
    Input,
    Region,
    Sensor,
    Zone,
)

FULL = """
[sensor]
height = 40
width = 60
filter = "GRBG"
bits = 10

[input]
region = { top = 3, left = 5, height = 32, width = 40 }
binning = 2
crop = "none"
demosaic = "malvar"

[defects.hot]
expected = 3
zones = [{ top = 0, left = 0, height = 4, width = 6, expected = 500, per = "megapixel" }]

[defects.warm]
expected = 1.5
offset = [-0.1, 0.3]

[defects.cluster]
expected = 0.5
sizes = [2, 5]
shares = [3, 1]
shows = "stuck"

[defects.column]
expected = 0.1

[noise]
K = 0.25
full_well = 4000
sigma_d = 2.5
black_level = 16

[growth]
law = "linear"
per_year = 2.5
source = "nobody"
"""


def written(tmp_path, text, name="one.toml"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_file_is_what_it_says(tmp_path):
    found = Sensor.read(written(tmp_path, FULL))
    zone = Zone(height=4, width=6, expected=500, per="megapixel")
    assert found == Sensor(
        height=40,
        width=60,
        filter="GRBG",
        bits=10,
        input=Input(
            region=Region(top=3, left=5, height=32, width=40),
            binning=2,
            crop="none",
            demosaic="malvar",
        ),
        kinds=(
            Defects(name="column", expected=0.1),
            Defects(name="hot", expected=3, zones=(zone,)),
            Defects(name="warm", expected=1.5, offset=(-0.1, 0.3)),
            Defects(name="cluster", expected=0.5, sizes=(2, 5), shares=(3, 1), shows="stuck"),
        ),
        noise=sensors.Noise(K=0.25, full_well=4000, sigma_d=2.5, black_level=16),
        growth=Growth(law="linear", per_year=2.5, source="nobody"),
    )
    assert [(one.shape, one.shows, round(one.mean, 6)) for one in found.sources(2)] == [
        ("pixel", "hot", 3.0),
        ("pixel", "hot", 0.012),
        ("pixel", "warm", 1.5),
        ("cluster", "stuck", 0.5),
        ("column", "hot", 0.1),
        ("pixel", "hot", 5.0),
    ]
    assert found.window == Region(top=3, left=5, height=32, width=40)
    assert found.kind == f"sensor/one-{found.digest[:8]}"
    other = Sensor.read(
        written(tmp_path, FULL.replace("expected = 3\n", "expected = 3.0\n"), "b.toml")
    )
    assert other == found and other.digest == found.digest and hash(other) == hash(found)
    assert (
        Sensor.read(written(tmp_path, FULL.replace("K = 0.25", "K = 0.3"))).digest != found.digest
    )


@pytest.mark.parametrize("name", sorted(sensors.EXAMPLES))
def test_the_examples_are_sensors_with_a_source(name):
    sensor = Sensor.read(sensors.EXAMPLES[name])
    text = sensors.EXAMPLES[name].read_text()
    assert "Data sheet:" in text or "Manual:" in text
    assert sensor.name == name and len(sensor.defects(0, 0)) < 100
    assert sensor.window.height == sensor.window.width == sensor.height


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("bits = 10", "bitz = 10", "[sensor] bitz: expected some of height, width, filter, bits"),
        ("height = 40\n", "", "[sensor]: expected the key height"),
        ("height = 40", "height = 41", "[sensor] height = 41: expected an even number"),
        ('"GRBG"', '"RGBW"', '[sensor] filter = "RGBW": expected one of mono, RGGB'),
        ("bits = 10", "bits = 17", "[sensor] bits = 17: expected a whole number from 1 to 16"),
        (
            "top = 3",
            "top = 9",
            "[input] region = rows 9 to 40, columns 5 to 44: expected photosites",
        ),
        ("height = 32", "height = 31", "[input] region height = 31: expected an even number"),
        ("height = 32", "height = 0", "[input] region height = 0: expected a whole number"),
        ("binning = 2", "binning = 3", "[input] binning = 3: expected 1, 2 or 4"),
        (
            "width = 40 }\nbinning = 2",
            "width = 38 }\nbinning = 4",
            "divides the region's width, 38",
        ),
        (
            "expected = 3\n",
            "expected = -1\n",
            "[defects.hot] expected = -1: expected a number from 0",
        ),
        (
            "expected = 3\n",
            "expected = 3000\n",
            "[defects.hot] expected = 3000.0: expected defects of at most 2,400 photosites",
        ),
        ("expected = 3\n", "", "[defects.hot]: expected the key expected"),
        (
            "expected = 500",
            "expected = 1e9",
            "[defects.hot] zone 1 expected = 1000000000.0: expected",
        ),
        ("height = 4,", "height = 50,", "[defects.hot] zones = rows 0 to 49, columns 0 to 5"),
        ("[defects.hot]", "[defects.lukewarm]", "[defects.lukewarm]: expected kinds hot, dead"),
        ("offset = [-0.1, 0.3]", "", "[defects.warm] offset: expected a value with warm"),
        ("[-0.1, 0.3]", "[0.3, 0.1]", "[defects.warm] offset = (0.3, 0.1): expected a number from"),
        ("sizes = [2, 5]\n", "", "[defects.cluster] sizes: expected a list with cluster"),
        ("shares = [3, 1]", "shares = [3]", "[defects.cluster] shares = (3,): expected numbers"),
        ("sizes = [2, 5]", "sizes = [2, 2]", "expected different whole numbers from 2 to 49"),
        (
            'shows = "stuck"',
            'shows = "pink"',
            '[defects.cluster] shows = "pink": expected one of hot',
        ),
        ("K = 0.25\n", "", "[noise]: expected the key K"),
        ("K = 0.25", "K = 0", "[noise] K = 0: expected a number above 0"),
        (
            "black_level = 16",
            "black_level = 1023",
            "[noise] black_level = 1023.0: expected a number",
        ),
        ("sigma_d = 2.5", "read_noise = 2.5", "[noise] read_noise: expected some of K, full_well"),
        ('law = "linear"', 'law = "power"', "[growth] per_year = 2.5: expected no value with law"),
        ('source = "nobody"', "", "[growth]: expected the key source"),
        ('source = "nobody"', "source = 3", "[growth] source = 3: expected some text"),
        ("per_year = 2.5", "per_year = 2401", "[growth] per_year = 2401.0: expected a law with"),
        ("height = 40\n", 'height = "40"\n', '[sensor] height = "40": expected a whole number'),
        ("height = 40\n", "height = 40.0\n", "[sensor] height = 40.0: expected a whole number"),
        ("bits = 10", "bits = 10\n[[x]]", "x: expected tables sensor, input, defects, noise"),
        ("expected = 1.5\n", "expected = 2399\n", "all kinds together, not 2,402"),
        ("expected = 0.5\n", "expected = 1201\n", "at most 2,400 photosites, not 3,3"),
        ("height = 32", "height = 2", "[input] region height = 2: expected at least 4"),
        ("K = 0.25", "K = 1e300", "[noise] K = 1e+300: expected a number at which white"),
        ("K = 0.25", "K = 1e-4", "[noise] K = 0.0001: expected a number at which"),
        (
            "K = 0.25",
            "K = 0.25\ndark_current = 4000\nexposure = 1",
            "well below 4000 e-, which are",
        ),
        (
            "K = 0.25",
            "K = 1\nDSNU_1288 = 1008",
            "DSNU_1288 = 1008.0: expected a number from 0 to 1007",
        ),
        ("K = 0.25", f"K = 1{'0' * 400}", "expected a number above 0"),
        (
            "expected = 0.5\nsizes = [2, 5]\nshares = [3, 1]",
            "expected = 60\nsizes = [2, 49]\nshares = [1, 99]",
            "[defects.cluster] expected = 60.0: expected defects of at most 2,400",
        ),
        ("expected = 0.1\n", "expected = 61\n", "defects of at most 60 columns, not 61"),
        ("full_well = 4000", "full_well = 1e10", "full_well = 10000000000.0: expected a number"),
        (
            "K = 0.25",
            "K = 1\nwhite = 1100",
            "white = 1100.0: expected a number above 0, at most 1007",
        ),
        (
            "K = 0.25",
            "K = 0.25\nwhite = 4001",
            "white = 4001.0: expected a number above 0, at most",
        ),
        (
            "K = 0.25",
            "K = 0.25\ndark_current = 1e30\nexposure = 1e30",
            "[noise] dark_current = 1e+30: expected a number that times exposure is well below",
        ),
        (
            "sigma_d = 2.5",
            "DSNU_1288 = 5e3",
            "[noise] DSNU_1288 = 5000.0: expected a number from 0",
        ),
        ("[growth]", "[grwth]", "[grwth]: expected tables sensor, input, defects, noise, growth"),
        ("[sensor]", "[sensor", "expected a TOML file"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, old, new, expected):
    assert old in FULL
    path = written(tmp_path, FULL.replace(old, new, 1))
    with pytest.raises(InvalidArgument) as error:
        Sensor.read(path)
    text = str(error.value)
    assert expected in text and str(path) in text and "\n" not in text


def test_a_file_that_is_not_there():
    with pytest.raises(Unavailable, match="sensor=nowhere.toml: it cannot be read"):
        Sensor.read("nowhere.toml")


POWER = {"coefficient": 1e-4, "pixel_um": 2.2, "pixel_exponent": -3.3, "iso": 400.0}


def test_laws_beyond_all_numbers_are_refused():
    law = Growth(law="power", source="a test", iso_exponent=0.5, **POWER)
    sensor = Sensor(height=40, width=60, growth=law)
    with pytest.raises(InvalidArgument, match="per=megapixel: expected no value with law=power"):
        dataclasses.replace(law, per="megapixel")
    for changes in ({"iso_exponent": 1e6}, {"pixel_exponent": 1e6}, {"coefficient": 1e300}):
        growth = dataclasses.replace(law, **changes)
        with pytest.raises(InvalidArgument, match=r"\[growth\] coefficient=.*at most 2,400 new"):
            dataclasses.replace(sensor, growth=growth)
    with pytest.raises(InvalidArgument, match="device=9223372036854775808: expected a whole"):
        sensor.defects(0, 2**63)
