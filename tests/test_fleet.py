"""Fleets: beside plain loops over devices and images, SciPy's statistics, and simulation."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import app
from robust_tf.data import Split
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.evaluation import Evaluator
from robust_tf.perturbations import Mixture, Perturbation
from robust_tf.saved_models import classifiers
from robust_tf.sensors import DefectMap, Defects, Device, Fleet, Input, Sensor, SensorDevice
from robust_tf.sensors import fleet as fleets
from robust_tf.sensors.asked import least_devices
from robust_tf.studies import fleet as study
from robust_tf.studies import limits, sensor_map
from tests.helpers import check_one_line, outcome

SHAPE = (5, 4, 1)
RNG = np.random.default_rng(0)
WEIGHTS = tf.constant(RNG.normal(size=(20, 3)), tf.float32)
ONE_TEST = ("--data_source=sample", "--test_examples=20")


def split_of(count: int, classes: int = 3) -> Split:
    images, labels = RNG.integers(0, 256, (count, *SHAPE)), RNG.integers(0, classes, count)
    return Split(tf.constant(images, tf.uint8), tf.constant(labels, tf.int64))


def linear(images: tf.Tensor) -> tf.Tensor:
    return tf.reshape(images - 0.5, [-1, 20]) @ WEIGHTS


def test_it_is_what_a_loop_over_devices_finds():
    split = split_of(23)
    fleet = Fleet.drawn(Mixture((("stuck", 1, 3), ("dead", 2, 4))), SHAPE, 3, study._AT_ONCE + 7)
    found = study.measure(linear, split, fleet, 4)
    table, classes = found.devices(fleet), found.by_class(fleet, ("a", "b", "c", "d"))
    evaluator, labels = Evaluator(linear, split), split.labels.numpy()
    natural = linear(split.images_at(range(23))).numpy().argmax(axis=1)
    assert found.natural_accuracy == np.mean(natural == labels)
    for device in (0, 50, study._AT_ONCE, len(fleet) - 1):
        own = fleet.maps[str(device)]
        predicted = evaluator.predictions(Device(own))
        row = table.iloc[device]
        assert row["device"] == str(device) and row["defects"] == own.pixels
        assert row["accuracy"] == np.mean(predicted == labels)
        assert row["drop"] == found.natural_accuracy - row["accuracy"]
        assert row["answered_otherwise"] == np.mean(predicted != natural)
        rows = classes[classes["device"] == str(device)].set_index("class")
        for place, name in enumerate("abc"):
            of_class = labels == place
            assert rows.loc[name, "accuracy"] == np.mean(predicted[of_class] == place)
            assert rows.loc[name, "n_examples"] == of_class.sum()
        assert math.isnan(rows.loc["d", "accuracy"])  # of which there are no images
    assert table["answered_otherwise"].nunique() > 3


def test_images_without_an_answer_are_wrong_and_counted():
    def model(images: tf.Tensor) -> tf.Tensor:  # a hot pixel at the upper left is too much
        broken = tf.where(images[:, :1, 0, 0] > 0.99, math.nan, 0.0)
        return tf.concat([broken + 1, broken], axis=1)

    images, labels = RNG.integers(0, 200, (7, *SHAPE)), np.zeros(7, int)
    split = Split(tf.constant(images, tf.uint8), tf.constant(labels, tf.int64))
    every = Fleet.at_every_position(Perturbation("hot", 1), SHAPE)
    found = study.measure(model, split, every, 2)
    assert found.unanswered == 7 and found.otherwise.tolist() == [7] + [0] * 19
    assert found.right.sum(axis=1).tolist() == [0] + [7] * 19


@pytest.mark.parametrize("kind", ["hot", "dead"])
def test_all_positions_are_the_sensor_map_to_the_digit(exported, small, kind):
    split, model = small.test.first(15), classifiers.load(exported)
    every = Fleet.at_every_position(Perturbation(kind, 1), small.image_shape)
    found = study.measure(model, split, every, 10)
    mapped = sensor_map.measure(model, split, kind)
    expected = mapped.positions(small.label_names)
    table = found.devices(every)
    np.testing.assert_array_equal(table["accuracy"], expected["accuracy"])
    np.testing.assert_array_equal(table["answered_otherwise"], expected["flipped"])
    summary = fleets.summarize(table["accuracy"].to_numpy(), 1, 15, fleets.Asked(0.9), every.sample)
    assert summary["mean_accuracy"] == mapped.summary()["mean_accuracy"]
    assert summary["mean_low"] == summary["mean_high"] == summary["mean_accuracy"]
    assert summary["share_low"] == summary["share_bound"] == summary["share_below"]
    places = study.positions(table, every)
    assert places[["row", "column"]].to_numpy().tolist() == [*map(list, np.ndindex(28, 28))]
    assert (places["devices"] == 1).all()
    np.testing.assert_array_equal(places["drop"], table["drop"])


def test_a_planted_weak_column_is_found():
    def model(images: tf.Tensor) -> tf.Tensor:  # looks at column 2 alone
        return tf.one_hot(tf.cast(tf.reduce_max(images[:, :, 2, 0], axis=1) > 0.99, tf.int32), 2)

    images, labels = RNG.integers(0, 200, (40, *SHAPE)), np.zeros(40, int)
    split = Split(tf.constant(images, tf.uint8), tf.constant(labels, tf.int64))
    fleet = Fleet.drawn(Perturbation("hot", 2), SHAPE, 0, 300)
    table = study.measure(model, split, fleet, 2).devices(fleet)
    weak = [2 in own.columns for own in fleet.maps.values()]
    np.testing.assert_array_equal(table["drop"] == 1, weak)
    places = study.positions(table, fleet)
    worst = places.nlargest(5, "cost")
    assert {*worst["column"]} == {2} and {*worst["row"]} == {*range(5)}
    assert (worst["drop"] == 1).all() and places["cost"].nlargest(6).iloc[5] < 0.2
    for row in places.itertuples():  # by definition
        there = np.array(
            [(row.row, row.column) in zip(m.rows, m.columns) for m in fleet.maps.values()]
        )
        drop = table["drop"].to_numpy()
        assert row.devices == there.sum()
        assert row.cost == pytest.approx(drop[there].mean() - drop[~there].mean())
    alone = Fleet("one", {"x": DefectMap([1], [2], values=1.0)})
    own = study.measure(model, split, alone, 2).devices(alone)
    assert study.positions(own, alone)["cost"].isna().all()


def binomial(count: int, number: int, share: Fraction) -> Fraction:
    """P(at most `count` of `number`), exactly."""
    terms = (
        math.comb(number, k) * share**k * (1 - share) ** (number - k) for k in range(count + 1)
    )
    return sum(terms, Fraction(0))


@settings(max_examples=40, deadline=None)
@given(number=st.integers(1, 60), data=st.data())
def test_the_interval_of_a_share_is_that_of_clopper_and_pearson(number, data):
    count = data.draw(st.integers(0, number))
    low, high = fleets.share_interval(count, number)
    expected = scipy.stats.binomtest(count, number).proportion_ci(0.95, method="exact")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    if count:  # so few or more are as unlikely as was asked for
        assert 1 - binomial(count - 1, number, Fraction(low)) == pytest.approx(0.025)
    if count < number:
        assert binomial(count, number, Fraction(high)) == pytest.approx(0.025)


@settings(max_examples=40, deadline=None)
@given(number=st.integers(1, 120), percent=st.integers(1, 99))
def test_ranks_bound_quantiles_with_the_confidence(number, percent):
    share = Fraction(percent, 100)
    rank = fleets.lower_rank(number, percent / 100)
    assert not rank or binomial(rank - 1, number, share) <= Fraction(1, 20)
    if rank < number:
        assert binomial(rank, number, share) > Fraction(1, 20)
    upper = fleets.upper_rank(number, percent / 100)
    assert upper > number or binomial(upper - 1, number, share) >= Fraction(19, 20)
    assert binomial(upper - 2, number, share) < Fraction(19, 20)


@given(st.floats(0.002, 0.9))
def test_the_fewest_devices_that_can_be_accepted(share):
    least = least_devices(share)
    assert fleets.lower_rank(least, share) and not (
        least > 1 and fleets.lower_rank(least - 1, share)
    )


def test_the_worst_of_59_devices_is_below_the_5_percent_quantile():
    assert [fleets.lower_rank(number, 0.05) for number in (1, 58, 59, 92, 93)] == [0, 0, 1, 1, 2]
    assert fleets.lower_rank(1000, 0.05) == scipy.stats.binom.ppf(0.05, 1000, 0.05)
    rng = np.random.default_rng(1)
    lowest = rng.exponential(size=(4000, 59)).min(axis=1)
    covered = np.mean(lowest <= scipy.stats.expon.ppf(0.05))
    assert abs(covered - (1 - 0.95**59)) < 4 * math.sqrt(0.95 * 0.05 / 4000)


@settings(max_examples=60, deadline=None)
@given(
    right=st.lists(st.integers(0, 40), min_size=1, max_size=150),
    accept=st.integers(1, 40),
    share=st.sampled_from([0.02, 0.05, 0.3]),
    sample=st.booleans(),
)
def test_a_fleet_is_accepted_as_its_quantile_is(right, accept, share, sample):
    accuracies = np.array(right) / 40
    asked = fleets.Asked(accept / 40, share)
    found = fleets.summarize(accuracies, 1.0, 40, asked, sample)
    below = sum(one < accept for one in right)
    assert found["below"] == below and found["share_below"] == below / len(right)
    assert found["accepted"] == (found["quantile_low"] >= accept / 40)
    assert found["share_low"] <= found["share_below"] <= found["share_bound"] + 1e-12
    assert found["share_bound"] <= found["share_high"]
    assert sum(one / 40 <= found["quantile_accuracy"] for one in right) >= share * len(right) - 1e-9
    assert sum(one / 40 < found["quantile_accuracy"] for one in right) < share * len(right) + 1e-9
    if sample and accuracies.std():
        ends = scipy.stats.t.interval(
            0.95, len(right) - 1, accuracies.mean(), scipy.stats.sem(accuracies)
        )
        assert (found["mean_low"], found["mean_high"]) == pytest.approx(ends)
    without = fleets.summarize(accuracies, 1.0, 40, fleets.Asked(None, share), sample)
    assert "accepted" not in without and without["quantile_low"] is not None


@given(most=st.integers(1, 200), data=st.data())
def test_the_limit_is_found_in_few_steps(most, data):
    limit = data.draw(st.integers(0, most))
    asked = []

    def holds(level: int) -> bool:
        asked.append(level)
        return level <= limit

    assert limits.largest(holds, most) == limit
    assert len({*asked}) == len(asked) <= 2 * math.log2(most + 1) + 2
    assert all(1 <= level <= most for level in asked)


def test_devices_depend_on_seed_and_number_alone():
    few, many = (Fleet.drawn(Perturbation("hot", 2), SHAPE, 5, count) for count in (3, 40))
    for device, own in few.maps.items():
        assert many.maps[device].digest == own.digest
        assert own.digest == DefectMap.drawn(Perturbation("hot", 2), SHAPE, 5, int(device)).digest
    assert few.digest != many.digest
    assert few.digest == Fleet("another name", few.maps).digest


def test_fleets_of_every_position_are_of_one_known_pixel():
    for perturbation, argument in (
        (Perturbation("hot", 2), "level=2"),
        (Perturbation("stuck", 1), "perturb=stuck"),
        (Mixture((("hot", 1, 1), ("dead", 1, 1))), "perturb=hot,dead"),
    ):
        with pytest.raises(InvalidArgument, match=argument):
            Fleet.at_every_position(perturbation, SHAPE)


def test_a_real_fleet_is_a_file_per_device(tmp_path):
    folder = tmp_path / "maps"
    folder.mkdir()
    with pytest.raises(InvalidArgument, match="it is empty"):
        Fleet.read([folder])
    DefectMap([1], [2], values=1.0).write(folder / "b.csv")
    DefectMap([], []).write(folder / "a.txt")
    DefectMap([3], [2], values=0.5).write(tmp_path / "c.csv")
    fleet = Fleet.read([folder, tmp_path / "c.csv"])
    assert [*fleet.maps] == ["a", "b", "c"] and not fleet.sample
    assert [fleets.described(own) for own in fleet.maps.values()] == [
        "",
        "hot (1, 2)",
        "0.5 (3, 2)",
    ]
    DefectMap([1], [2], values=1.0).write(folder / "a.csv")
    assert [*Fleet.read([folder]).maps] == ["a.csv", "a.txt", "b.csv"]
    with pytest.raises(InvalidArgument, match=r"defects=b.csv: expected files of different names"):
        Fleet.read([folder, folder / "b.csv"])
    with pytest.raises(Unavailable, match="cannot be read"):
        Fleet.read([tmp_path / "none.csv"])


def test_a_fleet_of_a_sensor_has_its_defects_and_its_optics():
    kinds = (Defects(name="hot", expected=2.0), Defects(name="column", expected=0.1))
    sensor = Sensor(height=10, width=8, kinds=kinds, input=Input(binning=2))
    fleet, split = Fleet.of_sensor(sensor, 4, 9), split_of(11)
    found = study.measure(linear, split, fleet, 3)
    labels, without = split.labels.numpy(), SensorDevice(sensor, 0, 4, defects=DefectMap.none())
    evaluator = Evaluator(linear, split, seed=4)
    np.testing.assert_array_equal(found.natural, evaluator.predictions(without))
    for device in range(9):
        assert fleet.maps[str(device)].digest == sensor.defects(4, device).digest
        predicted = evaluator.predictions(SensorDevice(sensor, device, 4))
        assert found.right[device].sum() == np.sum(predicted == labels)
        assert found.otherwise[device] == np.sum(predicted != found.natural)
    places = study.positions(found.devices(fleet), fleet)
    assert places["row"].max() >= SHAPE[0] and places["row"].max() < 10  # of the sensor
    older = Fleet.of_sensor(sensor, 4, 9, years=0.0)
    assert older.digest == fleet.digest != Fleet.of_sensor(sensor, 5, 9).digest


def test_descriptions_are_short():
    own = DefectMap(np.arange(7), np.zeros(7), channels=np.array([-1, 2] + [-1] * 5), offsets=0.25)
    assert fleets.described(own).startswith("+0.25 (0, 0), +0.25 (1, 0, 2), ")
    assert fleets.described(own).endswith(" and 2 more")


def test_the_command_writes_tables_and_a_figure(in_process, exported, small, tmp_path):
    flags = (f"--model={exported}", *ONE_TEST, "--perturb=hot,stuck", "--level=1:3")
    done = in_process(*flags, "--devices=60", "--accept=0.0001", pipeline="pipelines.fleet")
    assert done.returncode == 0, outcome(done)
    (folder,) = (tmp_path / "results").iterdir()
    devices, classes, defects, positions, summary = (
        pd.read_csv(folder / f"{name}.csv")
        for name in ("devices", "by_class", "defects", "positions", "summary")
    )
    assert list(devices) == study.DEVICE_COLUMNS and len(devices) == 60
    assert list(classes) == study.CLASS_COLUMNS and len(classes) == 600
    assert list(positions) == study.POSITION_COLUMNS
    assert summary["accepted"].tolist() == [True] and summary["seed"].tolist() == [0]
    assert (folder / "figures" / "fleet.png").stat().st_size > 10_000
    weighted = classes.assign(right=classes["accuracy"] * classes["n_examples"])
    right = weighted.groupby("device")["right"].sum()
    np.testing.assert_allclose(right / 20, devices["accuracy"])
    perturbation = Mixture((("stuck", 1, 3), ("hot", 1, 3)))
    for device in (0, 59):  # as a file of its own, the map is what was drawn
        rows = defects[defects["device"] == device].drop(columns=["fleet", "device"])
        rows.astype({"channel": "Int64"}).to_csv(tmp_path / "own.csv", index=False)
        drawn = DefectMap.drawn(perturbation, small.image_shape, 0, device)
        assert DefectMap.read(tmp_path / "own.csv").digest == drawn.digest
    assert "accepted" in done.stdout and "5 % quantile" in done.stdout


def test_a_fleet_that_is_not_accepted_has_exit_code_3(in_process, exported, tmp_path):
    DefectMap([3], [4], values=1.0).write(tmp_path / "front.csv")
    DefectMap([], []).write(tmp_path / "rear.csv")
    flags = (
        f"--model={exported}",
        *ONE_TEST,
        f"--defects={tmp_path}/front.csv,{tmp_path}/rear.csv",
    )
    for accept, code in ((("--accept=1",), app.NOT_ACCEPTED), ((), 0)):
        done = in_process(*flags, *accept, pipeline="pipelines.fleet")
        assert done.returncode == code == (3 if accept else 0), outcome(done)
        assert ("not accepted" in done.stdout) == bool(accept)
    folder = max((tmp_path / "results").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    rows = pd.read_csv(folder / "devices.csv").set_index("device")
    assert rows.loc["rear", ["defects", "drop", "answered_otherwise"]].tolist() == [0, 0, 0]
    assert rows.loc["front", "description"] == "hot (3, 4)"


def test_the_limit_of_each_kind_is_found(in_process, exported, tmp_path):
    flags = (f"--model={exported}", *ONE_TEST, "--find_limit", "--devices=6", "--accept_share=0.4")
    done = in_process(*flags, "--perturb=hot,stuck", "--accept=0.6", pipeline="pipelines.fleet")
    assert done.returncode == 0, outcome(done)
    (folder,) = (tmp_path / "results").iterdir()
    table = pd.read_csv(folder / "limits.csv")
    assert list(table) == limits.COLUMNS
    for _, own in table.groupby("kind"):
        limit, accepted = own["limit"].iloc[0], own.set_index("level")["accepted"]
        assert limit in {0, *accepted.index} and not accepted.get(limit + 1, False)
        assert accepted.get(limit, True) and own["level"].is_monotonic_increasing
    assert {*table["kind"]} == {"hot", "stuck"} and table["limit"].max() > 0
    done = in_process(*flags, "--accept=1", pipeline="pipelines.fleet")
    assert "the accuracy is lower without defects" in done.stdout


BAD = {
    "--devices=0": "--devices=0: expected a whole number from 1 on, or all",
    "--devices=few": "--devices=few: expected",
    "--devices=all --level=2": "--level=2: expected 1 with devices=all",
    "--devices=all --perturb=hot,dead": "--perturb=hot,dead: expected hot or dead with devices=all",
    "--perturb=hot,hot": "--perturb=hot,hot: expected different kinds",
    "--perturb=all": "--perturb=all: expected some of stuck, dead, hot",
    "--defects=": "--defects=: expected one file or folder, or more",
    "--find_limit --accept=0.9 --accept_share=1e-5": "--devices=1000: expected at least 299572 for",
    "--accept=95": "--accept=95.0: expected a share above 0, at most 1",
    "--perturb=noise --level=0.1": "--perturb=noise: expected some of stuck, dead, hot",
    "--level=785": "--level=785: expected",
    "--accept=2": "--accept=2.0: expected",
    "--accept_share=0": "--accept_share=0.0: expected a number",
    "--find_limit": "--accept: expected",
    "--find_limit --accept=0.9 --level=2": "--level=2: expected no value with find_limit",
    "--find_limit --accept=0.9 --devices=58": "--devices=58: expected at least 59",
    "--find_limit --accept=0.9 --perturb=blur": "--perturb=blur: expected some of",
    "--defects=none.csv": "--defects=none.csv: it cannot be read",
    "--sensor=none.toml": "--sensor=none.toml: it cannot be read",
    "--sensor=none.toml --devices=all": "--devices=all: expected a number with sensor",
    "--sensor=none.toml --perturb=hot": "--perturb=hot: expected no value with sensor",
    "--years=3": "--years=3: expected no value without sensor",
    "--years=0:2 --find_limit --accept=0.9": "--years=0,1,2: expected no value with find_limit",
    "--sensor=none.toml --years=3,2": "--years=3,2: expected rising numbers from 0",
    "--sensor=none.toml --years=0:99999999": "--years=0:99999999: expected rising numbers",
    "--sensor=none.toml --years=0,nan": "--years=0,nan: expected rising numbers",
    "--sensor=none.toml --years=0:3": "--sensor=none.toml: it cannot be read",
    "--sensor=none.toml --find_limit --accept=1 --devices=all": "--devices=all: expected a number",
    "--defects=none.csv --level=2": "--level=2: expected no value with defects",
}


@pytest.mark.parametrize("flags", BAD)
def test_bad_flags_are_one_line(in_process, exported, tmp_path, flags):
    done = in_process(f"--model={exported}", *ONE_TEST, *flags.split(), pipeline="pipelines.fleet")
    check_one_line(done, 1 if "cannot be read" in BAD[flags] else 2, BAD[flags])
    assert not [*(tmp_path / "results").rglob("*")]


def test_what_is_interrupted_leaves_nothing(exported, small, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    fleet = Fleet.drawn(Perturbation("hot", 1), small.image_shape, 0, 2)
    monkeypatch.setattr(study.Tester, "answers", interrupted)
    with pytest.raises(KeyboardInterrupt):
        study.write(classifiers.load(exported), small, fleet, tmp_path, asked=fleets.Asked())
    assert not [*tmp_path.iterdir()]


def test_the_figure_has_a_line_per_model_and_a_panel_per_fleet():
    pairs = [*itertools.product(("a", "b"), ("hot 1", "hot 2"))]
    devices = pd.DataFrame(
        [
            {"model": model, "fleet": fleet, "accuracy": accuracy}
            for model, fleet in pairs
            for accuracy in (0.5, 0.9, 0.7)
        ]
    )
    own = fleets.summarize(np.array([0.5, 0.9, 0.7]), 0.95, 100, fleets.Asked(0.8))
    summary = pd.DataFrame([{"model": m, "training": m, "fleet": f, **own} for m, f in pairs])
    panels = study.figure(devices, summary).axes
    assert [axes.get_title() for axes in panels] == ["3 devices, hot 1", "3 devices, hot 2"]
    for axes in panels:
        steps = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
        assert len(steps) == 2
        np.testing.assert_allclose(steps[0].get_xdata(), [50, 70, 90])
        np.testing.assert_allclose(steps[0].get_ydata(), [100 / 3, 200 / 3, 100])
