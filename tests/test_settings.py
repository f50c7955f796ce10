"""Settings on a tree of dataclasses that has nothing to do with runs."""

import dataclasses
import pickle
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robust_tf import settings
from robust_tf.errors import InvalidArgument
from robust_tf.settings import OneOf, Parsed, choice, names, number, switch, whole, wholes


@dataclasses.dataclass(frozen=True)
class Circle:
    radius: Annotated[float, number("Half of its width.", above=0)] = 1.0


@dataclasses.dataclass(frozen=True)
class Square:
    side: Annotated[int, whole("Its width.")] = 2
    solid: Annotated[bool, switch("Fill it.")] = False


@dataclasses.dataclass(frozen=True)
class Frame:
    colour: Annotated[str, choice("Of the frame.", ("red", "blue"), name="frame")] = "red"
    widths: Annotated[tuple[int, ...], wholes("Of its sides.", 0, empty=True)] = ()

    def __post_init__(self):
        settings.check_fields(self)


def _place(values) -> complex:
    return complex(values.get("across", 0), values.get("down", 0))


@dataclasses.dataclass(frozen=True)
class Picture:
    title: str
    shape: Annotated[
        Circle | Square, OneOf("What is drawn.", {"circle": Circle, "square": Square})
    ] = Circle()
    place: Annotated[
        complex,
        Parsed(
            {"across": whole("From the left.", 0), "down": whole("From the top.", 0)},
            _place,
            lambda place: {"across": int(place.real), "down": int(place.imag)},
        ),
    ] = 0j
    frame: Frame = Frame()


ALL = ["shape", "radius", "side", "solid", "across", "down", "frame", "widths"]


def picture(asked=(), **values) -> Picture:
    return settings.make(Picture, values, asked, title="t")


def test_a_walk_meets_every_setting_in_order_and_says_what_decides_whether_it_exists():
    found = list(settings.walk(Picture))
    assert [one.name for one in found] == ALL
    chosen_by = {one.name: one.chosen_by for one in found if one.chosen_by}
    assert chosen_by == dict.fromkeys(("radius", "side", "solid"), "shape")
    defaults = {one.name: one.default for one in found}
    assert defaults["shape"] == "circle" and defaults["side"] == 2 and defaults["widths"] == ()
    assert defaults["across"] is dataclasses.MISSING
    shape = found[0].setting
    assert shape.choices == ("circle", "square") and shape.expected == "one of circle, square"


def test_settings_of_several_members_are_declared_once():
    @dataclasses.dataclass(frozen=True)
    class Two:
        side: Annotated[int, whole("Its longer side.")] = 5

    @dataclasses.dataclass(frozen=True)
    class Either:
        shape: Annotated[Square | Two, OneOf("Which.", {"square": Square, "two": Two})] = Square()

    assert [one.name for one in settings.walk(Either)] == ["shape", "side", "solid", "side"]
    assert list(settings.declared(Either)) == ["shape", "side", "solid"]
    assert settings.make(Either, {"shape": "two", "side": 7}, ["side"]).shape == Two(7)


def test_defaults_are_those_of_the_declaration():
    assert picture() == Picture("t")
    assert picture(shape="square") == Picture("t", Square())


def test_values_reach_their_places():
    made = picture(shape="square", side=3, solid=True, down=4, frame="blue", widths=(1, 0))
    assert made == Picture("t", Square(3, True), 4j, Frame("blue", (1, 0)))


def test_values_for_other_members_are_left_out_unless_a_user_has_asked_for_them():
    assert picture(radius=2.0, side=3) == Picture("t", Circle(2.0))
    with pytest.raises(InvalidArgument) as caught:
        picture(["radius", "side"], radius=2.0, side=3)
    assert str(caught.value) == "side=3: expected no value with shape=circle"
    assert picture(["radius"], radius=2.0) == Picture("t", Circle(2.0))


@given(
    st.one_of(
        st.builds(Circle, st.floats(1e-9, 1e9)),
        st.builds(Square, st.integers(1), st.booleans()),
    ),
    st.tuples(st.integers(0, 2**40), st.integers(0, 2**40)),
    st.builds(
        Frame, st.sampled_from(["red", "blue"]), st.lists(st.integers(0)).map(tuple)
    ),
)  # fmt: skip
def test_what_is_made_of_all_settings_of_a_value_is_that_value(shape, place, frame):
    whole_one = Picture("t", shape, complex(*place), frame)
    flat = settings.flatten(whole_one)
    del flat["title"]
    assert set(flat) < set(ALL)
    checked = settings.check(Picture, flat)
    assert settings.make(Picture, checked, checked, title="t") == whole_one


def test_fields_are_checked_and_parsed_by_the_dataclass_itself():
    with pytest.raises(InvalidArgument, match="frame=green: expected one of red, blue"):
        Frame("green")
    with pytest.raises(InvalidArgument, match="widths=1,-1: expected whole numbers from 0 on"):
        Frame(widths=(1, -1))
    assert Frame(widths=[1, 2]) == Frame(widths="1,2") == Frame(widths=(1, 2))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sides": 4}, "sides=4: expected a setting that there is, such as side"),
        ({"title": "t"}, "title=t: expected one of the settings shape"),
        ({"shape": "star"}, "shape=star: expected one of circle, square"),
        ({"radius": 0.0}, "radius=0.0: expected a number above 0"),
        ({"radius": float("inf")}, "radius=inf: expected a number above 0"),
        ({"radius": True}, "radius=True: expected a number above 0"),
        ({"side": 2.0}, "side=2.0: expected a whole number from 1 on"),
        ({"solid": 1}, "solid=1: expected true or false"),
        ({"widths": "1,x"}, "widths=1,x: expected whole numbers from 0 on, separated by commas"),
    ],
)
def test_each_value_is_checked_by_itself(given, message):
    with pytest.raises(InvalidArgument) as caught:
        settings.check(Picture, given)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("setting", "allowed", "refused", "expected"),
    [
        (number("", 0, 1, noun="a fraction"), (0, 1, 0.5), (-0.1, 1.1), "a fraction from 0 to 1"),
        (number("", 0, below=1), (0, 0.99), (1, -1), "a number from 0 to below 1"),
        (number("", 0), (0, 1e300), (-1e-9, float("nan")), "a number from 0 on"),
        (number("", above=0), (1e-300,), (0, -1), "a number above 0"),
        (whole("", 0), (0, 10**20), (-1, 0.5, True), "a whole number from 0 on"),
        (choice("", "ab"), ("a",), ("c", "ab"), "one of a, b"),
        (switch(""), (True, False), (0, "true"), "true or false"),
    ],
)
def test_ranges_include_their_bounds_and_say_what_they_are(setting, allowed, refused, expected):
    assert setting.expected == expected
    for value in allowed:
        assert setting.check("s", value) == value
    for value in refused:
        with pytest.raises(InvalidArgument, match=f"s=.*: expected {expected}"):
            setting.check("s", value)


def test_names_come_each_once():
    assert names("").check("s", ["b", "a", "b"]) == ("b", "a")
    with pytest.raises(InvalidArgument, match="s=a,c: expected some of a, b"):
        names("", "ab").check("s", ["a", "c"])


def test_whole_numbers_are_some_unless_there_may_be_none():
    assert wholes("").check("s", "2,1,2") == (2, 1, 2)
    assert wholes("", empty=True).check("s", "") == ()
    with pytest.raises(InvalidArgument, match="s=: expected whole numbers from 1 on"):
        wholes("").check("s", "")


@pytest.mark.parametrize(
    ("setting", "text", "value"),
    [
        (whole(""), "12", 12),
        (number(""), "1e-3", 0.001),
        (choice("", "ab"), "a", "a"),
        (names(""), "a, b", ["a", "b"]),
        (names(""), "", []),
    ],
)
def test_a_text_is_read_as_its_type(setting, text, value):
    assert setting.read("s", text) == value


def test_a_text_of_another_type_is_refused():
    with pytest.raises(InvalidArgument, match="s=few: expected a whole number from 1 on"):
        whole("").read("s", "few")


def draw(canvas, *, dots: Annotated[int, whole("How many.")] = 3, hue: str = "any", **more):
    """Draws dots."""
    return canvas, dots, hue, more


def test_a_function_is_a_dataclass_of_its_settings():
    kind = settings.of_function(draw)
    assert kind is settings.of_function(draw)
    assert [one.name for one in settings.walk(kind)] == ["dots"]
    assert kind.__name__ == "draw" and kind.__doc__ == "Draws dots."
    drawing = settings.make(kind, {"dots": 5, "hue": "red"})
    assert drawing == kind(dots=5) != kind()
    assert settings.flatten(drawing) == {"dots": 5}
    assert drawing("paper", hue="red", size=1) == ("paper", 5, "red", {"size": 1})
    assert len({kind(), kind(dots=3), drawing}) == 2


def test_a_function_as_a_dataclass_can_be_pickled():
    drawing = settings.of_function(draw)(dots=7)
    again = pickle.loads(pickle.dumps(drawing))
    assert again == drawing and type(again) is type(drawing)
