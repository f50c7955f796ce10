"""Images of a user's own: in lists and arrays, and what the commands do with them."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from robust_tf import data as data_lib
from robust_tf import runs
from robust_tf.errors import InvalidArgument, Unavailable
from tests.helpers import check_one_line, outcome

SIZE = 28


def picture(label, i):
    """Of another brightness for each label, and unlike all others."""
    noise = np.random.default_rng(100 * label + i).integers(0, 50, (SIZE + i, SIZE, 3))
    return (noise + 60 * label).astype(np.uint8)


@pytest.fixture
def photos(tmp_path):
    """Three classes of ten pictures."""
    for label, name in enumerate(("cat", "dog", "emu")):
        for i in range(10):
            path = tmp_path / "photos" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(label, i)).save(path)
    return tmp_path / "photos"


# --- Lists


def write_list(photos, rows, columns="path,label"):
    file = photos.parent / "list.csv"
    file.write_text("\n".join([columns, *rows]) + "\n", encoding="utf-8")
    return file


def rows_of(photos, label=lambda path: path.parent.name, more=lambda path: ""):
    paths = sorted(photos.rglob("*.png"))
    return [f"{path.relative_to(photos.parent)},{label(path)}{more(path)}" for path in paths]


def test_a_list_is_the_same_data_as_the_folder(photos):
    file = write_list(photos, rows_of(photos))
    data = data_lib.from_list(file, image_size=8, test_fraction=0.3, seed=1)
    assert (data.name, data.source, data.label_names) == ("csv:list", "csv", ("cat", "dog", "emu"))
    folder = data_lib.from_folder(photos, image_size=8, test_fraction=1)

    def found(split):
        return {
            image.tobytes(): int(label) for image, label in zip(split.images.numpy(), split.labels)
        }

    assert found(data.train) | found(data.test) == found(folder.test)
    assert np.bincount(data.test.labels).tolist() == [3, 3, 3]


def test_a_list_says_what_is_for_testing(photos):
    absolute = photos / "cat" / "0.png"
    rows = [
        f'"{absolute}", cat ,Test',
        "photos/dog/1.png,dog,train,x",
        "photos/cat/2.png,cat,TRAIN,",
        "photos/cat/3.png,cat,val,y",
    ]
    file = write_list(photos, rows, "path, Label,split,note")
    with pytest.raises(InvalidArgument, match="line 2"):  # three of four cells are there
        data_lib.from_list(write_list(photos, ["photos/dog/1.png,dog"], "path,label,split"))
    file = write_list(photos, rows, "path, Label,split,note")
    data = data_lib.from_list(file, image_size=8)
    assert (len(data.train), len(data.test)) == (2, 1)
    only = [row.replace("Test", "valid") for row in rows]
    data = data_lib.from_list(write_list(photos, only, "path,Label,split,note"), image_size=8)
    assert (len(data.train), len(data.test)) == (2, 2)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (("9", "10", "8"), ("8", "9", "10")),
        (("0.5", "-3", "12"), ("-3", "0.5", "12")),
        (("10", "9", "x"), ("10", "9", "x")),
        (("NA", "None", "nan"), ("NA", "None", "nan")),
        ((f"{10**17}", f"{10**17 + 1}", "7"), ("7", f"{10**17}", f"{10**17 + 1}")),
    ],
)
def test_numbers_are_sorted_as_numbers(photos, labels, names):
    new = dict(zip(("cat", "dog", "emu"), labels))
    file = write_list(photos, rows_of(photos, lambda path: new[path.parent.name]))
    data = data_lib.from_list(file, image_size=8)
    assert data.label_names == names
    brightest = data.test.images.numpy().mean(axis=(1, 2, 3)).argmax()
    assert data.label_names[data.test.labels[brightest]] == new["emu"]


# One file, by several paths.
TWICE = ["photos/cat/0.png,cat,train", "../{}/photos/cat/0.png,cat,test", "link/0.png,dog,test"]
BAD_LISTS = {
    "no columns": ("", [], "a list with the columns path and label"),
    "other columns": ("file,class", ["a,b"], "the columns path, label .*; it has file, class"),
    "other commas": ("path;label", ["a;b"], "by commas; it has path;label, no label$"),
    "tabs": ("path\tlabel", ["a\tb"], "separated by commas; it has path label, no label$"),
    "two labels": ("path,label,label", ["a,b,c"], "expected one column label$"),
    "two splits": ("path,Split,label,split ", ["a,train,b,"], "expected one column split$"),
    "no rows": ("path,label", [], "pictures .*; none can be read"),
    "no label": ("path,label", ["photos/cat/0.png,"], "no empty cell; line 2 has no label"),
    "no path": ("path,label", ["photos/cat/0.png,cat", " ,cat"], "line 3 has no path"),
    "no split": ("path,label,split", ["photos/cat/0.png,cat,"], "line 2 has no split"),
    "more cells": ("path,label", ["photos/cat/0.png,cat,1"], "commas in quotes; line 2"),
    "unknown split": ("path,label,split", ["photos/cat/0.png,cat,dev"], "not dev in line 2"),
    "twice": ("path,label", ["photos/0.png,cat", "./photos/0.png,dog"], "once, not photos/0.png"),
    "twice from above": ("path,label,split", TWICE[:2], r"each path once, not \.\./.* again$"),
    "twice by a link": ("path,label,split", TWICE[::2], "each path once, not link/0.png again"),
    "away": ("path,label", ["photos/cat/0.png,cat", "cow.png,cow"], "1 of the 2 .*: cow.png"),
    "a folder": ("path,label", ["photos/cat,cat"], "1 of the 1 .* are not there: photos/cat"),
    "one class": ("path,label", ["photos/cat/0.png,cat"], "there is cat alone"),
    "cases": ("path,label", ["photos/cat/0.png,Cat", "photos/cat/1.png,cat"], "Cat and cat"),
    **{
        f"{one} and {other}": (
            "path,label",
            [f"photos/cat/{i}.png,{label}" for i, label in enumerate((one, other, more))],
            f"differ by more than form, unlike {one} and {other}$",
        )
        for one, other, more in [("1", "1.0", "2"), ("01", "1", "x"), ("-0.50", "-5e-1", "0")]
    },
}


@pytest.mark.parametrize(("columns", "rows", "message"), BAD_LISTS.values(), ids=BAD_LISTS)
def test_bad_lists_give_one_line(photos, columns, rows, message):
    (photos.parent / "link").symlink_to(photos / "cat")
    file = write_list(photos, [row.format(photos.parent.name) for row in rows], columns)
    with pytest.raises((InvalidArgument, Unavailable), match=message) as caught:
        data_lib.from_list(file, image_size=8)
    assert str(caught.value).startswith(f"dataset=csv:{file}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"path,label\n\xff\xfe,a\n", b'path,label\n"a,b\n', None])
def test_lists_that_cannot_be_read_give_one_line(tmp_path, content):
    file = tmp_path / "list.csv"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(Unavailable, match="the list cannot be read"):
        data_lib.from_list(file)


# --- Arrays


def test_arrays_are_a_dataset():
    images = np.random.default_rng(0).integers(0, 256, (50, 6, 5, 3), np.uint8)
    labels = np.arange(50) % 5
    data = data_lib.from_arrays(images, labels, test_fraction=0.4, seed=2, name="mine")
    assert (data.name, data.source, data.image_shape) == ("mine", "arrays", (6, 5, 3))
    assert data.label_names == ("0", "1", "2", "3", "4")
    assert np.bincount(data.test.labels).tolist() == [4] * 5
    places = {image.tobytes(): place for place, image in enumerate(images)}
    splits = (data.train, data.test)
    found = [[places[one.tobytes()] for one in split.images.numpy()] for split in splits]
    assert sorted(sum(found, [])) == list(range(50))
    for part, own in zip(splits, found):
        assert own == sorted(own)  # as they were
        np.testing.assert_array_equal(part.labels, labels[own])


def test_arrays_with_a_test_split():
    images = np.zeros((4, 3, 3), np.uint8)
    data = data_lib.from_arrays(
        images, [[1], [0], [1], [0]], images[:1] + np.uint8(9), [[1]], label_names=["no", "yes"]
    )
    assert data.train.labels.numpy().tolist() == [1, 0, 1, 0]
    assert data.test.labels.numpy().tolist() == [1]
    assert data.image_shape == (3, 3, 1) and data.test.images.numpy().min() == 9


@pytest.mark.parametrize(
    ("dtype", "value_range"),
    [
        (np.float32, (0, 1)),
        (np.float64, (-1, 1)),
        (np.float16, (0, 255)),
        (np.uint16, (0, 65535)),
        (np.int64, None),
        (np.int8, (-128, 127)),
    ],
)
def test_other_numbers_become_bytes(dtype, value_range):
    values = np.arange(256).reshape(2, 8, 16, 1)
    low, high = value_range or (0, 255)
    images = (values * ((high - low) / 255) + low).astype(dtype)
    data = data_lib.from_arrays(images, ["a", "b"], value_range=value_range, test_fraction=1)
    np.testing.assert_array_equal(data.test.images, values)


@pytest.mark.parametrize("kind", [list, np.array, lambda names: np.array(names, object), pd.Series])
def test_labels_may_be_names(kind):
    labels = ["dog", "cat", "emu", "cat"]
    images = np.zeros((4, 3, 3, 1), np.uint8)
    both = (images, kind(labels), images, kind(labels))
    data = data_lib.from_arrays(*both)
    assert data.label_names == ("cat", "dog", "emu")
    assert data.train.labels.numpy().tolist() == [1, 0, 2, 0]
    data = data_lib.from_arrays(*both, label_names=("emu", "dog", "cat"))
    assert data.test.labels.numpy().tolist() == [1, 2, 0, 2]


IMAGES, LABELS = np.zeros((4, 3, 3, 1), np.uint8), [0, 1, 0, 1]
BAD_ARRAYS = {
    "floats": ((IMAGES / 255, LABELS), {}, "images=float64 .*: expected bytes, or value_range"),
    "too large": ((IMAGES + np.int32(256), LABELS), {}, "from 0 to 255, not from 256 to 256"),
    "negative": ((IMAGES - 1.0, LABELS), {"value_range": (0, 1)}, "from 0 to 1, not from -1"),
    "not a number": ((IMAGES * np.nan, LABELS), {"value_range": (0, 1)}, "not from nan"),
    "range": ((IMAGES, LABELS), {"value_range": (1, 0)}, "value_range=1,0: expected two numbers"),
    "one number": ((IMAGES, LABELS), {"value_range": 255}, "value_range=255: expected two"),
    "flat": ((IMAGES.reshape(4, 9), LABELS), {}, r"\[N, H, W, C\] or \[N, H, W\]"),
    "empty": ((IMAGES[:0], []), {}, r"\[N, H, W, C\] or \[N, H, W\]"),
    "channels first": ((np.zeros((4, 3, 9, 9), np.uint8), LABELS), {}, "channels last"),
    "texts": ((np.full((4, 3, 3), "a"), LABELS), {}, "images=str32 .*: expected numbers"),
    "one-hot": ((IMAGES, np.eye(4)), {}, r"take labels.argmax\(axis=-1\)"),
    "fewer labels": ((IMAGES, [0, 1]), {}, r"one class per image, shape \(4,\)"),
    "float labels": ((IMAGES, [0.0, 1, 0, 1]), {}, "whole numbers from 0 on, or texts"),
    "none to test": ((IMAGES[:3], [0, 1, 2]), {}, "images=3 of 3 classes: expected two images"),
    "none of names": ((IMAGES[:2], ["a", "b"]), {"seed": 3}, "; each has one alone; or test_im"),
    "ragged": ((IMAGES, [[0], [0, 1], [0], [1]]), {}, "labels: expected an array"),
    "years": ((IMAGES, [2024, 2025, 10**12, 2024]), {}, "labels=2024, 2025, 1000000000000: exp"),
    "gap": ((IMAGES, [0, 2, 0, 2]), {}, "labels=0, 2: expected all numbers from 0 on, or label"),
    "from 1": ((IMAGES, [1, 2, 1, 2]), {}, "labels=1, 2: expected all numbers from 0 on"),
    "below 0": ((IMAGES, [-1, 0, 1, 0]), {}, "labels=-1, 0, 1: expected all numbers from 0 on"),
    "one class": ((IMAGES, [0, 0, 0, 0]), {}, "labels=0: expected two classes or more"),
    "few names": ((IMAGES, LABELS), {"label_names": ["a"]}, "label_names=a: expected two names"),
    "same names": ((IMAGES, LABELS), {"label_names": ["a", "a"]}, "each once"),
    "no name": ((IMAGES, [0, 2, 0, 2]), {"label_names": ["a", "b"]}, "from 0 to 1, not 2"),
    "other names": ((IMAGES, list("abab")), {"label_names": ["a", "c"]}, "labels=b: expected some"),
    "half a test": ((IMAGES, LABELS, IMAGES), {}, "test_labels: expected test_images and test_l"),
    "other shape": ((IMAGES, LABELS, IMAGES[:, :2], LABELS), {}, r"images of shape \(3, 3, 1\)"),
    "unknown": ((IMAGES, list("abab"), IMAGES, list("abac")), {}, "test_labels=c: expected some"),
    "two kinds": ((IMAGES, list("abab"), IMAGES, LABELS), {}, "what labels have, too"),
    "fraction": ((IMAGES, LABELS), {"test_fraction": 0}, "test_fraction=0: expected a number"),
    "no share": ((IMAGES, LABELS, IMAGES, LABELS), {"seed": 1}, "seed=1: expected no value with"),
    "seed": ((IMAGES, LABELS), {"seed": -1}, "seed=-1: expected a whole number"),
}


@pytest.mark.parametrize(("arguments", "settings", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_bad_arrays_give_one_line(arguments, settings, message):
    with pytest.raises(InvalidArgument, match=message) as caught:
        data_lib.from_arrays(*arguments, **settings)
    assert "\n" not in str(caught.value)


def test_arrays_make_runs():
    images = np.zeros((24, 28, 28), np.uint8)
    run = runs.resolve(data_lib.from_arrays(images, list("abc") * 8), epochs=1)
    assert run.name.startswith("arrays-natural-") and run.data_source == "arrays"
    images[5] += 1
    other = runs.resolve(data_lib.from_arrays(images, list("abc") * 8), epochs=1)
    assert other.name != run.name
    with pytest.raises(InvalidArgument, match="training images; all of it is for testing"):
        runs.resolve(data_lib.from_arrays(images, list("abc") * 8, test_fraction=1))


# --- Commands


@pytest.fixture
def trained(photos, in_process):
    """What a run on the photos printed, and its SavedModel's folder."""
    done = in_process(
        f"--dataset=folder:{photos}", f"--image_size={SIZE}", "--color=gray", "--epochs=1",
        "--test_fraction=0.3", "--split_seed=5", "--eval=hot", "--trials=1", "--resize=pad",
    )  # fmt: skip
    assert done.returncode == 0, outcome(done)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("SavedModel"))
    return done, line.split()[-1]


def test_a_folder_goes_through_the_commands(trained, photos, tmp_path, in_process):
    done, model = trained
    assert "on 9 test images of folder:photos\n" in done.stdout
    table = pd.read_csv(next((tmp_path / "results").glob("folder-photos-natural-*/runs.csv")))
    row = table.iloc[0]
    assert (row["dataset"], row["data_source"]) == ("folder:photos", "folder")
    assert (row["train_examples"], row["test_examples"]) == (21, 9)
    metadata = json.loads((tmp_path / model / "assets.extra" / "metadata.json").read_text())
    assert metadata["label_names"] == ["cat", "dog", "emu"]

    def evaluate(*flags):
        evaluated = in_process(
            f"--model={model}", "--eval=hot", "--trials=1", *flags, pipeline="pipelines.evaluate"
        )
        assert evaluated.returncode == 0, outcome(evaluated)
        place = [line for line in evaluated.stdout.splitlines() if line.startswith("results ")]
        trials = pd.read_csv(f"{place[0].split()[-1]}/trials.csv")
        return evaluated, trials

    def natural(trials):
        return trials.loc[trials["test_perturb"] == "none", "accuracy"].item()

    # The same pictures for testing, made images in the same way.
    for flags in ([], [f"--dataset=folder:{photos}/"]):
        evaluated, trials = evaluate(*flags)
        assert set(trials["test_digest"]) == {row["test_digest"]}
        assert natural(trials) == pytest.approx(row["natural_accuracy"])
        assert not evaluated.stderr.count("warning")
    # Another split of them.
    evaluated, trials = evaluate("--split_seed=6")
    assert "or is split otherwise; some of its test images may be among" in evaluated.stderr
    # All of a copy, with what the model needs to know of images; the same in a list.
    other = shutil.copytree(photos, tmp_path / "other")
    evaluated, trials = evaluate(f"--dataset=folder:{other}", "--test_fraction=1")
    assert set(trials["n_examples"]) == {30} and "folder:other" in set(trials["dataset"])
    assert "other: 21 or more of its 30 test images are among those that" in evaluated.stderr
    file = write_list(other, rows_of(other))
    evaluated, _ = evaluate(f"--dataset=csv:{file}", "--test_fraction=0.3", "--split_seed=6")
    assert "or more of its 9 test images are among those that" in evaluated.stderr
    # All of others.
    for path in other.rglob("*.png"):
        with Image.open(path) as image:
            pixels = np.asarray(image)
        Image.fromarray(pixels + np.uint8(1)).save(path)
    evaluated, trials = evaluate(f"--dataset=folder:{other}", "--test_fraction=1")
    assert set(trials["n_examples"]) == {30} and "warning" not in evaluated.stderr
    # Pictures that came later may take others' places.
    shutil.copy(photos / "cat" / "0.png", photos / "cat" / "new.png")
    evaluated, _ = evaluate()
    assert "warning: folder:" in evaluated.stderr and "is not as it was when" in evaluated.stderr
    for name in ("cat", "dog", "emu"):
        for split in ("train", "test"):
            shutil.copytree(photos / name, photos / split / name)
        shutil.rmtree(photos / name)
    evaluated, trials = evaluate()
    assert set(trials["n_examples"]) == {31} and "is not as it was when" in evaluated.stderr
    # Classes by name.
    (other / "dog").rename(other / "cow")
    of_other = (f"--model={model}", f"--dataset=folder:{other}")
    done = in_process(*of_other, pipeline="pipelines.evaluate")
    check_one_line(done, 2, "--dataset=folder:other (cat, cow, emu): expected the classes of")


BAD_FLAGS = [
    (["--dataset=folder:{}"], "--image_size: expected H,W such as 96,96: pictures of folder:", 2),
    (["--dataset=folder:{}", "--image_size=9,9,9"], "--image_size=9,9,9: expected height", 2),
    (["--dataset=folder:{}x"], "--dataset=folder:", 1),
    (["--dataset=folder:"], "--dataset=folder:: expected folder:PATH, on this machine", 2),
    (["--dataset=folder:s3://bucket"], "expected folder:PATH, on this machine", 2),
    (
        ["--dataset=folder:{}", "--data_source=tfds"],
        "--data_source=tfds: expected no value with",
        2,
    ),
    (["--dataset=folder:{}", "--data_source=sample"], "--data_source=sample: expected no", 2),
    (["--data_source=sample", "--image_size=9"], "expected no value with dataset=mnist", 2),
    (["--data_source=sample", "--test_fraction=0.1"], "expected no value with dataset=mnist", 2),
    (
        ["--dataset=folder:{}", "--image_size=28", "--test_fraction=1"],
        "all of it is for testing",
        2,
    ),
]


@pytest.mark.parametrize(("flags", "message", "code"), BAD_FLAGS)
def test_bad_flags_give_one_line(photos, in_process, flags, message, code):
    done = in_process(*(flag.format(photos) for flag in flags), "--dry_run")
    check_one_line(done, code, message)


def test_folders_of_one_name_are_no_sweep(photos, tmp_path, in_process):
    other = shutil.copytree(photos, tmp_path / "other" / "photos")
    done = in_process(
        f"--datasets=folder:{photos},folder:{other}", "--image_size=28", "--dry_run",
        pipeline="pipelines.grid",
    )  # fmt: skip
    check_one_line(done, 2, "expected folders or lists of different names")
    done = in_process("--datasets=folder:none", "--dry_run", pipeline="pipelines.grid")
    check_one_line(done, 1, "--datasets=folder:none: there is no such folder")
