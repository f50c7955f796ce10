"""Defect maps: their files, what they do to images, and a device as a condition."""

import csv
import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from robust_tf import models, runs, saved_models
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.evaluation import Evaluator, InBits
from robust_tf.perturbations import Mixture, Perturbation
from robust_tf.results import defect_maps
from robust_tf.saved_models import classifiers
from robust_tf.seeds import fold_in, stream_seed
from robust_tf.sensors import DefectMap, Device, kinds_of_defects
from robust_tf.training import Constant, Incremental, Recipe
from tests.helpers import check_one_line, outcome

SHAPE = (5, 6, 3)
IMAGES = np.random.default_rng(0).random((4, *SHAPE), np.float32)


@st.composite
def maps(draw) -> DefectMap:
    """Maps of some positions of the sensor, each with a value or an offset."""
    every = [*np.ndindex(SHAPE)]
    whole = draw(st.lists(st.sampled_from([*np.ndindex(SHAPE[:2])]), unique=True, max_size=6))
    single = draw(st.lists(st.sampled_from(every), unique=True, max_size=6))
    places = [(*one, -1) for one in whole] + [one for one in single if one[:2] not in whole]
    # TensorFlow takes numbers that are not normal for 0.
    floats = st.floats(0, 1, width=32, allow_subnormal=False)
    number = st.one_of(st.sampled_from([0.0, 1.0]), floats)
    shown = []
    for _ in places:
        has_value = draw(st.booleans())
        offset = 0.0 if has_value else draw(number) * draw(st.sampled_from([-1, 1]))
        shown.append((draw(number) if has_value else math.nan, offset))
    since = [draw(st.integers(0, 2**40)) for _ in places]
    columns = [*zip(*places)] or [(), (), ()]
    return DefectMap(*map(np.array, [*columns, *([*zip(*shown)] or [(), ()]), since]))


def by_definition(image: np.ndarray, defects: DefectMap) -> np.ndarray:
    """An image [H, W, C] with its defects, one after the other."""
    image = image.copy()
    for row, column, channel, value, offset in zip(
        defects.rows, defects.columns, defects.channels, defects.values, defects.offsets
    ):
        for own in range(image.shape[-1]) if channel < 0 else [channel]:
            old = image[row, column, own]
            new = np.clip(old + offset, 0, 1) if math.isnan(value) else value
            image[row, column, own] = new
    return image


def contents(defects: DefectMap) -> set[tuple]:
    names = ("rows", "columns", "channels", "values", "offsets", "since")
    found = zip(*(getattr(defects, name).tolist() for name in names))
    return {tuple(None if one != one else one for one in row) for row in found}


@settings(max_examples=40, deadline=None)
@given(defects=maps())
def test_a_device_does_to_images_what_its_map_says(defects):
    expected = np.stack([by_definition(image, defects) for image in IMAGES])
    np.testing.assert_array_equal(Device(defects)(IMAGES), expected)
    changeable = by_definition(np.full(SHAPE, np.nan, np.float32), defects)
    offsets = np.zeros(SHAPE, bool)
    for row, column, channel in zip(defects.rows, defects.columns, defects.channels):
        offsets[row, column, slice(None) if channel < 0 else channel] = True
    np.testing.assert_array_equal(defects.mask(SHAPE), offsets)
    assert (np.isnan(changeable) | offsets).all()
    assert defects.pixels == np.count_nonzero(offsets.any(axis=-1))


@settings(max_examples=40, deadline=None)
@given(defects=maps())
def test_a_written_map_is_read_back_as_it_is(tmp_path_factory, defects):
    path = tmp_path_factory.mktemp("maps") / "map.csv"
    defects.write(path)
    again = DefectMap.read(path)
    assert contents(again) == contents(defects) and again.digest == defects.digest
    with path.open(newline="") as file:  # as another program reads it
        rows = [*csv.DictReader(file)]
    assert [int(row["row"]) for row in rows] == defects.rows.tolist()
    order = np.random.default_rng(1).permutation(len(defects))
    assert defects.part(order).digest == defects.digest
    if len(defects):
        assert defects.part(order[1:]).digest != defects.digest


def test_libraw_text_is_column_row_and_time(tmp_path):
    path = tmp_path / "camera.badpixels"
    path.write_text("# my camera\n4 3 0\n\n 0 2 1262304000 # since 2010\n")
    defects = DefectMap.read(path)
    assert contents(defects) == {(3, 4, -1, 0.0, 0.0, 0), (2, 0, -1, 0.0, 0.0, 1262304000)}
    assert contents(DefectMap.read(path, value=1.0).at(1262303999)) == {(3, 4, -1, 1.0, 0.0, 0)}
    assert len(defects.at(1262304000)) == 2
    defects.write(tmp_path / "again.txt")
    assert DefectMap.read(tmp_path / "again.txt").digest == defects.digest
    DefectMap([], []).write(path)
    assert len(DefectMap.read(path)) == 0


def test_libraw_text_refuses_what_it_cannot_hold(tmp_path):
    for own in ({"channels": 1, "values": 0.0}, {"values": 0.5}, {"offsets": 0.5}):
        with pytest.raises(InvalidArgument, match=r"row 3, column 4.*hot or dead pixels"):
            DefectMap([3], [4], **own).write(tmp_path / "map.txt")
    assert not [*tmp_path.iterdir()]


def test_kinds_are_read_in_capitals_too(tmp_path):
    (tmp_path / "map.csv").write_text("Row,Column,Kind\n1,2,Hot\n")
    assert DefectMap.read(tmp_path / "map.csv").digest == DefectMap([1], [2], values=1.0).digest


def test_a_map_without_defects_changes_nothing(tmp_path):
    path = tmp_path / "map.csv"
    DefectMap([], []).write(path)
    assert path.read_text() == "row,column,kind\n"
    np.testing.assert_array_equal(Device.read(path)(IMAGES), IMAGES)


BAD = {
    "": "the file is empty",
    "\n\n": "the file is empty",
    "row,column\n1,2\n": r"a column kind, value, offset.*\(line 1\)",
    "row,kind\n1,hot\n": r"a column column.*\(line 1\)",
    "row,column,kind,colour\n1,2,hot,3\n": r"no column colour.*\(line 1\)",
    "row,column,row,kind\n1,2,3,hot\n": r"one column row.*\(line 1\)",
    "row,column,kind\n1,2,warm\n": r"kind hot or dead, not warm \(line 2\)",
    "row,column,kind\n1,2\n": r"3 cells, as the header has, not 2 \(line 2\)",
    'row,column,kind\n1,2,"hot\n': r"short cells, quotes in pairs around whole ones \(line 2\)",
    "row" * 100_000 + "\n": r"no column rowrow.*… *, but some of row.*\(line 1\)",
    f"row,column,kind\n1,2,{'x' * 200_000}\n": r"short cells, .*\(line 2\)",
    "1,2,hot\n": r"a header first, with names of columns.*\(line 1\)",
    "row;column;kind\n1;2;hot\n": r"cells separated by commas.*\(line 1\)",
    "-1 14 0\n": r"column a whole number from 0 on, not -1 \(line 1\)",
    "20.5 14 0\n": r"column a whole number from 0 on, not 20.5 \(line 1\)",
    "row,column,kind\n1,2\0,hot\n": r"column a whole number from 0 on, not '2\\x00' \(line 2\)",
    "row,column,kind\n1,,hot\n": r"column a whole number from 0 on, not an empty cell \(line 2\)",
    "row,column,kind\n1,2.5,hot\n": r"column a whole number from 0 on, not 2.5 \(line 2\)",
    "row,column,kind\n-1,2,hot\n": r"row a whole number from 0 on, not -1 \(line 2\)",
    "row,column,kind\n1,1e30,hot\n": r"column a whole number from 0 on, not 1e30 \(line 2\)",
    "row,column,value\n#\n1,2,1.5\n": r"value a number from 0 to 1, not 1.5 \(line 3\)",
    "row,column,value\n1,2,nan\n": r"value a number from 0 to 1, not nan \(line 2\)",
    "row,column,offset\n1,2,-2\n": r"offset a number from -1 to 1, not -2 \(line 2\)",
    "row,column,kind,value\n1,2,hot,1\n": r"one of kind, value, offset, not kind and value",
    "row,column,kind,value\n1,2,,\n": r"one of kind, value, offset, not none \(line 2\)",
    "row,column,channel,kind\n1,2,-2,hot\n": r"channel a whole number from 0 on.*\(line 2\)",
    "row,column,channel,kind\n1,2,-1,hot\n": r"channel a whole number from 0 on.*\(line 2\)",
    "row,column,kind,since\n1,2,hot,-5\n": r"since a whole number from 0 on, not -5 \(line 2\)",
    "row,column,kind\n1,2,hot\n3,4,hot\n1,2,dead\n": r"row 1, column 2 once, not in line 2",
    "row,column,channel,kind\n1,2,0,hot\n1,2,,hot\n": r"not in line 2 and again \(line 3\)",
    "4 3 0\n5 3\n": r"column, row and UNIX time, not 5 3 \(line 2\)",
    "4 3 0\n4 x 0\n": r"row a whole number from 0 on, not x \(line 2\)",
    "4 3 0\n\n4 3 7\n": r"not in line 1 and again \(line 3\)",
}


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_a_bad_file_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "map.csv"
    path.write_text(text)
    with pytest.raises(InvalidArgument, match=BAD[text]) as caught:
        DefectMap.read(path)
    assert str(caught.value).startswith(f"defects={path}: expected ")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_unavailable(tmp_path):
    with pytest.raises(Unavailable, match="defects=.*cannot be read"):
        DefectMap.read(tmp_path / "none.csv")
    (tmp_path / "bytes.csv").write_bytes(b"a\xff\xfe\0")
    with pytest.raises(InvalidArgument, match="expected text in UTF-8; byte 1 is 0xff"):
        DefectMap.read(tmp_path / "bytes.csv")
    with pytest.raises(InvalidArgument, match="expected a file, not a folder"):
        DefectMap.read(tmp_path)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"rows": [1, 2], "columns": [1, 2, 3]}, r"columns=shape \(3,\).*each of 2"),
        ({"rows": [-1], "columns": [1]}, "rows=-1: expected whole numbers from 0 on"),
        ({"rows": ["a"], "columns": [1]}, "rows"),
        ({"rows": [1], "columns": [1], "values": 2.0}, "values=2: expected numbers from 0 to 1"),
        ({"rows": [1], "columns": [1], "values": 1.0, "offsets": 0.1}, "0 where the pixel has"),
        ({"rows": [1], "columns": [1], "offsets": math.nan}, "offsets=nan: expected"),
        ({"rows": [1, 1], "columns": [1, 1], "values": 1.0}, "row 1, column 1: expected each"),
    ],
)
def test_a_bad_map_is_refused(own, message):
    with pytest.raises(InvalidArgument, match=message):
        DefectMap(**own)


def test_positions_outside_the_sensor_are_refused():
    for place, sensor in itertools.product([(5, 0, -1), (0, 6, -1), (0, 0, 3)], [SHAPE]):
        defects = DefectMap(*np.array([place]).T, values=1.0)
        for use in (defects.check, defects.tensors, defects.mask, Device(defects, "x").check):
            with pytest.raises(InvalidArgument, match="a position on the sensor, 5 x 6 x 3"):
                use(sensor)
        defects.check((None, None, None))


@pytest.mark.parametrize("kind", ["hot", "dead", "stuck"])
def test_a_drawn_device_is_what_the_kind_does(kind):
    perturbation = Perturbation(kind, 4)
    drawn = DefectMap.drawn_all(perturbation, SHAPE, 7, range(50))
    for number in (0, 13, 49):
        assert DefectMap.drawn(perturbation, SHAPE, 7, number).digest == drawn[number].digest
    assert len({one.digest for one in drawn}) == 50
    assert {one.pixels for one in drawn} == {4}
    assert DefectMap.drawn(perturbation, SHAPE, 8, 13).digest != drawn[13].digest
    values = {"hot": {1.0}, "dead": {0.0}}.get(kind)
    found = [{shown for _, _, _, shown, _, _ in contents(one)} for one in drawn]
    assert values is None or all(one == values for one in found)
    assert {len(one) for one in drawn} == {12 if kind == "stuck" else 4}


@pytest.mark.parametrize("kind", kinds_of_defects())
def test_a_drawn_map_does_to_images_what_the_kind_does_to_one(kind):
    perturbation = Perturbation(kind, 2)
    for number, defects in enumerate(DefectMap.drawn_all(perturbation, SHAPE, 1, range(4))):
        seeds = fold_in(stream_seed(1, "device"), tf.constant([number]))
        expected = perturbation(tf.constant(IMAGES[:1]), seeds)
        np.testing.assert_array_equal(Device(defects)(IMAGES[:1]), expected)


def test_a_mixture_gives_each_device_one_of_its_kinds():
    drawn = DefectMap.drawn_all(Mixture((("hot", 1, 2), ("dead", 3, 3))), SHAPE, 0, range(60))
    assert {(len(one), *{shown for *_, shown, _, _ in contents(one)}) for one in drawn} == {
        (1, 1.0),
        (2, 1.0),
        (3, 0.0),
    }


def test_other_kinds_are_no_defects():
    for other in (Perturbation("noise", 0.1), Mixture((("hot", 1, 2), ("blur", 1, 1)))):
        with pytest.raises(InvalidArgument, match=r"perturb=(noise|blur): expected some of stuck"):
            DefectMap.drawn(other, SHAPE, 0, 0)
    with pytest.raises(InvalidArgument, match="level=31"):
        DefectMap.drawn(Perturbation("hot", 31), SHAPE, 0, 0)


def test_devices_are_known_by_name_and_content():
    one = Device(DefectMap([1, 2], [3, 3], values=1.0), "a")
    same = Device(DefectMap([2, 1], [3, 3], values=1.0), "a")
    assert one == same and len({one, same}) == 1
    assert one not in (Device(one.defects, "b"), Device(DefectMap([1], [3], values=1.0), "a"), 0)
    assert one.kind == str(one) == f"defects/a-{one.defects.digest[:8]}"
    assert one.key == (one.kind, 0.0) and not one.random
    assert str(InBits(one, 8)) == f"8-bit {one.kind}"


def test_all_devices_share_one_trace(small):
    traces = []

    def model(images):
        traces.append(images.shape)
        return tf.reduce_mean(images, axis=(1, 2))[:, :1] * tf.constant([[1.0, -1.0]])

    evaluator = Evaluator(model, small.test)
    for count in (1, 2, 40):
        positions = np.arange(count)
        device = Device(DefectMap(positions // 28, positions % 28, values=1.0))
        for condition in (device, InBits(device)):
            scores = evaluator.scores(condition)
            images = small.test.images_at(range(100)).numpy()
            images[:, positions // 28, positions % 28] = 1
            np.testing.assert_allclose(scores[:, 0], images.mean(axis=(1, 2))[:, 0], rtol=1e-5)
    assert len(traces) == 2  # with bits and without


def test_a_device_in_a_graph_needs_the_size_of_images():
    device = Device(DefectMap([1], [3], values=1.0))
    call = tf.function(device, autograph=False)
    np.testing.assert_array_equal(call(tf.constant(IMAGES)), device(IMAGES))
    with pytest.raises(InvalidArgument, match="images of a known size"):
        call.get_concrete_function(tf.TensorSpec([None, None, None, 3]))
    with pytest.raises(InvalidArgument, match="NaN"):
        device(IMAGES * np.nan)


@pytest.fixture
def front(tmp_path) -> Path:
    """The file of a device with two defects, which are easy to see on MNIST."""
    path = tmp_path / "front.csv"
    DefectMap([3, 14], [4, 14], values=[1.0, 0.0]).write(path)
    return path


def test_a_figure_shows_each_defect(front):
    defects = DefectMap(
        [0, 1, 2, 3], [3, 2, 1, 0], values=[1, 0, 0.5, math.nan], offsets=[0, 0, 0, 0.2]
    )
    (axes,) = defect_maps.figure(defects, SHAPE, "front").axes
    drawn = {one.get_label(): one.get_offsets().tolist() for one in axes.collections}
    assert drawn == {
        "hot: 1": [[3, 0]],
        "dead: 1": [[2, 1]],
        "another value: 1": [[1, 2]],
        "offset: 1": [[0, 3]],
    }
    assert axes.get_xlim() == (-0.5, 5.5) and axes.get_ylim() == (4.5, -0.5)
    device = Device.read(front)
    found = defect_maps.of_devices([InBits(device, 8), Perturbation("hot", 1)], (28, 28, 1))
    assert [*found] == [f"defects-front-{device.defects.digest[:8]}"]


def test_evaluate_tests_devices_beside_kinds(in_process, exported, front, tmp_path, sample):
    rear = tmp_path / "rear.txt"
    rear.write_text("14 14 0\n")
    done = in_process(
        f"--model={exported}", f"--defects={front},{rear}", "--eval=blur", "--bits=4",
        "--data_source=sample", "--test_examples=40", "--trials=3", pipeline="pipelines.evaluate",
    )  # fmt: skip
    assert done.returncode == 0, outcome(done)
    (folder,) = (tmp_path / "results").iterdir()
    trials = pd.read_csv(folder / "trials.csv")
    devices = [Device.read(path) for path in (front, rear)]
    own = trials[trials["test_perturb"].str.contains("defects/")]
    assert own["test_perturb"].tolist() == [f"4-bit {device.kind}" for device in devices]
    assert own["trial"].tolist() == [0, 0]  # not random
    split, model = sample.test.first(40), classifiers.load(exported)
    images = np.round(split.images_at(range(40)).numpy() * 15) / 15
    for row, device in zip(own.itertuples(), devices):
        expected = np.stack([by_definition(image, device.defects) for image in images])
        right = model.scores(tf.constant(expected)).argmax(axis=1) == split.labels.numpy()
        assert row.accuracy == right.mean()
    assert (folder / "figures" / f"{devices[0].kind.replace('/', '-')}.png").exists()


def test_compare_and_confusions_take_devices(in_process, exported, other, front, tmp_path):
    few = ("--data_source=sample", "--test_examples=20", "--eval=", f"--defects={front}")
    kind = Device.read(front).kind
    for pipeline, asked, table in (
        ("compare", (f"{exported}", f"{other}"), "tests.csv"),
        ("confusions", (f"--model={exported}",), "changes.csv"),
    ):
        done = in_process(*asked, *few, pipeline=f"pipelines.{pipeline}")
        assert done.returncode == 0, outcome(done)
        (path,) = (tmp_path / "results").glob(f"*/{table}")
        assert kind in set(pd.read_csv(path)["test_perturb"])


@pytest.mark.parametrize("strategy", [Constant, Incremental])
def test_a_strategy_trains_for_one_device(small, strategy, front):
    device, seen = Device.read(front), []
    training = strategy(perturbation=device).prepare(
        small.train,
        lambda: models.build("mnist_cnn", (28, 28, 1), 10, standardize="none"),
        Recipe(epochs=2, batch_size=50, shuffle=False),
    )
    for images, _ in training.batches.take(4):
        seen.append(images.numpy())
    images, natural = np.concatenate(seen), small.train.images_at(range(200)).numpy()
    expected = np.stack([by_definition(image, device.defects) for image in natural])
    has_map = (images == expected).all(axis=(1, 2, 3))
    assert has_map.all() if strategy is Constant else 0 < has_map.sum() < 200
    np.testing.assert_array_equal(images[~has_map], natural[~has_map])


def test_a_run_for_a_device_is_known_by_the_content_of_its_map(small, front, tmp_path):
    run = runs.resolve(small, defects=str(front))
    digest = Device.read(front).defects.digest[:8]
    assert run.label == f"constant defects/front-{digest}" and f"-{digest}-" in run.name
    columns = run.columns()
    assert "defects" not in columns and columns["train_level"] is None
    assert columns["train_perturb"] == f"defects/front-{digest}"
    assert run.natural.name == runs.resolve(small).name
    lines = front.read_text().splitlines()
    front.write_text("\n".join([lines[0], *reversed(lines[1:])]))
    assert runs.resolve(small, defects=str(front)).name == run.name
    DefectMap([3], [4], values=1.0).write(front)
    assert runs.resolve(small, defects=str(front)).name != run.name
    for others, message in (
        ({"perturb": "hot"}, "perturb=hot: expected no value with defects"),
        ({"level": 3}, "level=3: expected no value with defects"),
        ({"strategy": "natural"}, "expected no value with strategy=natural"),
        ({"extra_pixels": 1}, "extra_pixels=1: expected no value"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            runs.resolve(small, defects=str(front), **others)
    DefectMap([28], [4], values=1.0).write(front)
    with pytest.raises(InvalidArgument, match="row 28, column 4.*28 x 28 x 1"):
        runs.resolve(small, defects=str(front))


def test_run_trains_and_tests_for_the_device(in_process, front):
    few = ("--data_source=sample", "--train_examples=100", "--test_examples=20", "--dry_run")
    done = in_process(*few, f"--defects={front}")
    kind = Device.read(front).kind
    assert f"train_perturb = {kind}" in done.stdout
    # With the family of defective pixels, as a model trained with hot pixels.
    assert f"tests = natural, stuck 2, dead 2, hot 2, {kind}" in done.stdout
    done = in_process(*few, "--defects=none.csv")
    check_one_line(done, 1, "--defects=none.csv: it cannot be read")


def test_an_export_says_which_device_it_is_for(trained, sample, tmp_path):
    training = {
        "dataset": "mnist",
        "strategy": "constant",
        "train_perturb": "defects/front-1a2b3c4d",
    }
    folder = saved_models.export(
        trained, tmp_path / "front", label_names=sample.label_names, training=training
    )
    metadata = saved_models.metadata(folder)
    assert metadata["training"]["train_perturb"] == "defects/front-1a2b3c4d"
