"""Training, tests and studies of images on disk: what they give, and how much memory they take."""

import dataclasses
import math
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import PIL.Image
import pytest
import tensorflow as tf

from robust_tf import data as data_lib
from robust_tf import machine, models
from robust_tf.data import prepared, records
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.evaluation import Evaluator, Natural, Recorded
from robust_tf.perturbations import Perturbation
from robust_tf.studies import confusions, sensor_map
from robust_tf.training import STRATEGIES, Adam, Constant, Recipe, fit, retained
from tests.helpers import ROOT, assert_same_weights, carry_out, check_one_line, short
from tests.test_data import load_tiny
from tests.test_data import no_network as no_network
from tests.test_data import prepared_once as prepared_once
from tests.test_prepared import TIMES, arrays, stored
from tests.test_prepared import both as both
from tests.test_prepared import small_on_disk as small_on_disk

PERTURBATIONS = {
    "hot": Perturbation("hot", 3),
    "noise": Perturbation("noise", 0.1),
    "blur": Perturbation("blur", 1.0),
}


def train(strategy, split, pretrained):
    """A model after two epochs, the second with an incomplete batch."""

    def build():
        if strategy.__class__.__name__ == "Transfer":
            return models.with_new_head(pretrained, 10, [16], freeze_base=False, seed=1)
        return models.build("mnist_cnn", (28, 28, 1), 10)

    recipe = Recipe(epochs=2, batch_size=60, optimizer=Adam(learning_rate=0.01))
    started = strategy.prepare(split.first(130), build, recipe, seed=4)
    fit(started)
    return started.model


@pytest.mark.parametrize(
    ("name", "perturbation", "settings"),
    [
        ("natural", None, {}),
        ("constant", "hot", {}),
        ("constant", "noise", {"fresh": True}),
        ("incremental", "noise", {}),
        ("transfer", "blur", {}),
    ],
)
def test_every_strategy_learns_the_same(
    small, small_on_disk, trained, name, perturbation, settings
):
    given = {"perturbation": PERTURBATIONS[perturbation], **settings} if perturbation else {}
    strategy = STRATEGIES[name](**given)
    assert_same_weights(*(train(strategy, data.train, trained) for data in (small, small_on_disk)))


@pytest.mark.parametrize("condition", [Natural(), *PERTURBATIONS.values()], ids=str)
def test_every_condition_is_measured_the_same(small, small_on_disk, trained, condition):
    memory, disk = (Evaluator(trained, data.test) for data in (small, small_on_disk))
    for trial in (0, 1):
        np.testing.assert_array_equal(
            disk.scores(condition, trial), memory.scores(condition, trial)
        )
    recorded = Recorded("other", 1.0, small_on_disk.train)
    expected = Evaluator(trained, small.train).predictions(Natural())
    np.testing.assert_array_equal(disk.predictions(recorded), expected)


def test_a_run_from_disk_writes_the_same_tables(finished, folders, small_on_disk, tmp_path):
    """All that a run does: plan, train, export, test, draw."""
    places = {name: tmp_path / "disk" / name for name in folders}
    run = short(small_on_disk)
    assert run.name == finished.name
    trials = carry_out(run, small_on_disk, places)
    before = pd.read_csv(folders["output_dir"] / run.name / "trials.csv")
    pd.testing.assert_frame_equal(trials[before.columns], before, check_dtype=False)
    histories = [
        pd.read_csv(place["output_dir"] / run.name / "history.csv").drop(columns=TIMES)
        for place in (folders, places)
    ]
    pd.testing.assert_frame_equal(*histories, check_exact=True)


def test_studies_take_splits_on_disk(both):
    weights = tf.constant(arrays(9)[0].reshape(9, -1), tf.float32)

    def model(images: tf.Tensor) -> tf.Tensor:
        return tf.matmul(tf.reshape(images, [-1, 60]), weights, transpose_b=True)

    memory, disk = (sensor_map.measure(model, split) for split in both)
    np.testing.assert_array_equal(disk.predictions, memory.predictions)
    np.testing.assert_array_equal(disk.natural, memory.natural)
    conditions = [Natural(), Perturbation("hot", 3)]
    data = [data_lib.Data("d", "tfds", split, split, tuple("abcdefghi")) for split in both]
    one, other = (confusions.measure(model, each, conditions, trials=2, seed=0) for each in data)
    pd.testing.assert_frame_equal(one.changes, other.changes)
    pd.testing.assert_frame_equal(one.flips, other.flips)


@pytest.fixture
def tiny(prepared_once, tmp_path):
    """TFDS data, 30 + 20 images of 90 bytes, that a test may change."""
    shutil.copytree(prepared_once, tmp_path, dirs_exist_ok=True)
    return tmp_path


NOTHING = 1e-7  # GiB: 107 bytes, less than two images


def test_a_tfds_dataset_that_does_not_fit_is_on_disk(tiny, no_network, monkeypatch):
    expected = load_tiny(tiny)
    data = load_tiny(tiny, memory_budget=NOTHING, train_examples=29)
    assert isinstance(data.train.images, records.Records)
    assert data.train_digest == expected.train_digest
    assert data.test.identity == expected.test.identity
    np.testing.assert_array_equal(data.train.labels, expected.train.labels[:29])
    np.testing.assert_array_equal(
        data.train.bytes_at(range(29)), expected.train.bytes_at(range(29))
    )
    folder = tiny / "tiny_shapes" / "1.0.0" / "robust_tf"
    assert sorted(each.name for each in folder.iterdir() if each.is_dir()) == ["test", "train"]
    assert len(np.load(folder / "train" / "images.npy", mmap_mode="r")) == 30

    def never(*_):
        raise AssertionError("prepared again")

    monkeypatch.setattr(prepared, "_write", never)
    assert load_tiny(tiny, memory_budget=NOTHING).train_digest == expected.train_digest
    # TFDS goes on knowing its own folder, and the other kind of split too.
    assert load_tiny(tiny).test.digest == expected.test.digest


@pytest.mark.parametrize(
    ("images", "kinds"),
    [(50, "memory, memory"), (49, "memory, disk"), (30, "memory, disk"), (29, "disk, memory"),
     (20, "disk, memory"), (19, "disk, disk")],
)  # fmt: skip
def test_what_fits_stays_in_memory(tiny, no_network, images, kinds):
    data = load_tiny(tiny, memory_budget=images * 90 / 2**30)
    on_disk = [isinstance(split.images, records.Records) for split in (data.train, data.test)]
    assert ", ".join("disk" if each else "memory" for each in on_disk) == kinds
    held = sum(len(s) for s, disk in zip((data.train, data.test), on_disk) if not disk)
    assert data.train.room == data.test.room == pytest.approx((images - held) * 90)


def test_tfds_data_that_were_made_anew_are_prepared_anew(tiny, no_network):
    load_tiny(tiny, memory_budget=NOTHING)
    files = tiny / "tiny_shapes" / "1.0.0"
    train, test = (next(files.glob(f"*{split}.tfrecord*")) for split in ("train", "test"))
    os.utime(test)
    with pytest.warns(UserWarning, match="from other images; it is prepared again") as said:
        data = load_tiny(tiny, memory_budget=NOTHING)
    assert len(said) == 1
    assert data.test.digest == load_tiny(tiny).test.digest
    train.write_bytes(train.read_bytes()[:-100])
    shutil.rmtree(files / "robust_tf" / "train")
    with pytest.raises(Unavailable, match="^data_dir=.*split train of tiny_shapes"):
        load_tiny(tiny, memory_budget=NOTHING)
    assert [each.name for each in (files / "robust_tf").iterdir() if each.is_dir()] == ["test"]


def test_a_place_that_cannot_be_written_has_one_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    open_to = prepared.place(tmp_path / "data", "robust_tf", "train")
    assert open_to == tmp_path / "data" / "robust_tf" / "train"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    shut = prepared.place(tmp_path / "data", "robust_tf", "train")
    far = prepared.place("gs://bucket/data", "robust_tf", "train")
    other = prepared.place("gs://bucket/other", "robust_tf", "train")
    assert len({shut, far, other}) == 3
    for place in (shut, far, other):
        assert place.is_relative_to(tmp_path / "cache" / "robust_tf" / "prepared")
        assert len(stored(place, *arrays())) == 23
    open_to.mkdir(parents=True)  # prepared by somebody who may
    assert prepared.place(tmp_path / "data", "robust_tf", "train") == open_to


def test_pictures_that_do_not_fit_are_on_disk(tmp_path):
    photos = tmp_path / "photos"
    for place in range(30):
        path = photos / f"class {place % 2}" / f"{place}.{('jpg', 'png', 'bmp')[place % 3]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(place).integers(0, 256, (20 + place, 30, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(path)
    expected = data_lib.from_folder(photos, image_size=(9, 8))
    for _ in range(2):
        data = data_lib.from_folder(photos, image_size=(9, 8), memory_budget=NOTHING)
        assert isinstance(data.train.images, records.Records)
        assert data.train_digest == expected.train_digest
        assert data.test.identity == expected.test.identity
        places = tf.range(len(data.test))
        np.testing.assert_array_equal(data.test.images_at(places), expected.test.images_at(places))
    with pytest.raises(InvalidArgument, match="^memory_budget=-1"):
        data_lib.from_folder(photos, memory_budget=-1)
    prepared_in = sorted((photos / ".robust_tf").glob("*/images.npy"))
    before = [path.stat().st_mtime_ns for path in prepared_in]
    data_lib.from_folder(photos, image_size=(9, 8), memory_budget=NOTHING)
    assert [path.stat().st_mtime_ns for path in prepared_in] == before and len(before) == 2
    # What is prepared is no picture; other settings have a folder of their own.
    other = data_lib.from_folder(photos, image_size=(7, 7), memory_budget=NOTHING)
    assert other.image_shape == (7, 7, 3) and len(other.train) == len(expected.train)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data_lib.from_folder(photos, image_size=(9, 8), memory_budget=NOTHING)
    PIL.Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(photos / "class 0" / "4.png")
    changed = data_lib.from_folder(photos, image_size=(9, 8))
    again = data_lib.from_folder(photos, image_size=(9, 8), memory_budget=NOTHING)
    assert (again.train_digest, again.test.digest) == (changed.train_digest, changed.test.digest)
    assert (again.train_digest, again.test.digest) != (data.train_digest, data.test.digest)


def bitmaps(tmp_path) -> Path:
    """Two classes of four pictures that are alike in size and time."""
    for place in range(8):
        path = tmp_path / "photos" / f"class {place % 2}" / f"{place}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(place).integers(0, 256, (6, 6, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(path)
        os.utime(path, (10**9, 10**9))
    return tmp_path / "photos"


def swap(one, other):
    one.rename(one.with_suffix(".old"))
    other.rename(one)
    one.with_suffix(".old").rename(other)


def write_anew(one, other):
    one.write_bytes(other.read_bytes())
    os.utime(one, (10**9, 10**9))


def put_a_copy(one, other):
    shutil.copy2(other, one.with_suffix(".new"))
    os.replace(one.with_suffix(".new"), one)


@pytest.mark.parametrize("change", [swap, write_anew, put_a_copy], ids=lambda one: one.__name__)
def test_pictures_of_one_size_and_time_are_told_apart(tmp_path, change):
    photos = bitmaps(tmp_path)
    before = data_lib.from_folder(photos, memory_budget=NOTHING)
    change(photos / "class 0" / "0.bmp", photos / "class 1" / "1.bmp")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that they are prepared again
        found = data_lib.from_folder(photos, memory_budget=NOTHING)
    expected = data_lib.from_folder(photos)
    for split in ("train", "test"):
        assert getattr(found, split).digest == getattr(expected, split).digest
    assert (found.train_digest, found.test.digest) != (before.train_digest, before.test.digest)


@pytest.mark.parametrize("budget", [None, NOTHING])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_picture_that_disappears_is_left_out(tmp_path, monkeypatch, budget, split):
    """Once all have been looked at; one for testing while others are read for training."""
    photos = bitmaps(tmp_path)
    hold = prepared.hold

    def holding(examples, *arguments, **settings):
        for path in photos.glob(gone):
            path.unlink()
        return hold(examples, *arguments, **settings)

    listing = data_lib.Pictures(test_fraction=0.5).find(f"folder:{photos}")
    gone = next(one.key for one in listing.of(split))
    monkeypatch.setattr(prepared, "hold", holding)
    with pytest.warns(UserWarning, match=f"1 of 8 files left out, .* damaged: {gone}$"):
        data = data_lib.from_folder(photos, test_fraction=0.5, memory_budget=budget)
    assert len(data.train) + len(data.test) == 7 and len(getattr(data, split)) == 3


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, -math.inf])
def test_a_budget_is_above_0(value):
    with pytest.raises(InvalidArgument, match="^memory_budget=.*: expected a number above 0"):
        data_lib.load("mnist", data_source="sample", memory_budget=value)


@pytest.mark.parametrize("value", ["0", "-2", "nan", "inf", "much", ""])
def test_a_flag_of_a_budget_is_checked(in_process, value):
    done = in_process("--data_source=sample", f"--memory_budget={value}", "--dry_run")
    check_one_line(done, 2, ": expected a number of GiB above 0")
    assert done.stderr.startswith(f"error: --memory_budget={value}")


def test_a_budget_changes_no_name(in_process, small):
    asked = ("--data_source=sample", "--train_examples=200", "--test_examples=100", "--dry_run")
    plain, few = in_process(*asked), in_process(*asked, "--memory_budget=0.5")
    assert few.returncode == 0 and few.stdout == plain.stdout


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:   700 kB\n"}, 700 * 1024),
        (
            {
                "proc/meminfo": "MemAvailable: 700 kB\n",
                "sys/fs/cgroup/memory.max": "5000\n",
                "sys/fs/cgroup/memory.stat": "anon 1200\nfile 90000\n",
            },
            3800,
        ),
        (
            {
                "proc/meminfo": "MemAvailable: 700 kB\n",
                "sys/fs/cgroup/memory.max": "max\n",
                "sys/fs/cgroup/memory.stat": "anon 1200\n",
            },
            700 * 1024,
        ),
        (
            {
                "proc/meminfo": "MemAvailable: 700 kB\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "600\n",
                "sys/fs/cgroup/memory/memory.stat": "cache 3\ntotal_rss 900\n",
            },
            0,
        ),
    ],
)
def test_free_memory_is_that_of_the_machine_or_of_its_container(tmp_path, files, expected):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine.free_memory(tmp_path) == expected


def test_free_memory_without_proc(tmp_path, monkeypatch):
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < machine.free_memory(tmp_path) <= total
    names = {name: number for name, number in os.sysconf_names.items() if "AVPHYS" not in name}
    monkeypatch.setattr(os, "sysconf_names", names)  # as on macOS
    assert machine.free_memory(tmp_path) == total
    monkeypatch.setattr(os, "sysconf_names", {})
    assert machine.free_memory(tmp_path) == 4 * 2**30
    assert 0 < machine.free_memory() <= total


@pytest.mark.parametrize(("room", "kept"), [(4 * 23 * 60, True), (4 * 23 * 60 - 1, False)])
def test_perturbed_images_are_kept_where_there_is_room(both, room, kept, monkeypatch):
    made, empty = [], retained.empty
    monkeypatch.setattr(
        retained, "empty", lambda shape, dtype: made.append(dtype) or empty(shape, dtype)
    )
    split = dataclasses.replace(both[0], room=room)
    strategy = Constant(perturbation=Perturbation("stuck", 2))
    recipe = Recipe(epochs=2, batch_size=10)
    found = list(strategy.prepare(split, keras.Sequential, recipe).batches)
    assert (np.float32 in made) == kept
    expected = list(strategy.prepare(both[1], keras.Sequential, recipe).batches)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one[0], other[0])


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="nothing says the peak")
def test_memory_does_not_grow_with_the_images(tmp_path):
    """A process of its own, in which 200 MB of images are read, digested and classified."""
    command = [sys.executable, "-m", "tests.disk_memory", str(tmp_path), "200"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    disk, memory = map(float, done.stdout.split())
    assert memory > 190  # MiB: what is measured is there to be measured
    assert disk < 80
