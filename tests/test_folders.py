"""Folders of pictures: which are for testing, and what is said of those that fail."""

import functools
import itertools
import os
import pickle
import re
import shutil

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
from PIL import Image

from robust_tf import data as data_lib
from robust_tf import runs
from robust_tf.data import listings, picture_files
from robust_tf.data.splitting import ranked, stratified
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.runs.sources import Sources
from tests.test_picture_files import H, W, colours, save


@pytest.fixture
def photos(tmp_path):
    """Three classes of ten pictures of many sizes."""
    for label, i in itertools.product(("emu", "cat", "dog"), range(10)):
        array = colours(i, 10 + i, 20 - i) // 4 + 60 * ("cat", "dog", "emu").index(label)
        save(tmp_path / "photos" / label / f"{i}.{('png', 'jpg', 'webp')[i % 3]}", array)
    return tmp_path / "photos"


def lay_out(root, *places, size=(6, 6)):
    """Two pictures in each folder."""
    for k, place in enumerate(places):
        for i in range(2):
            save(root / place / f"{i}.png", colours(2 * k + i, *size))


def content(data):
    """All that a dataset has."""
    parts = (data.train.images, data.train.labels, data.test.images, data.test.labels)
    return [part.numpy() for part in parts] + [data.label_names]


def load(folder, **settings):
    settings = {"image_size": (8, 8)} | settings
    return data_lib.from_folder(folder, **settings)


# --- Which are for testing

keys_of_classes = st.lists(
    st.tuples(st.integers(0, 3), st.text(min_size=1, max_size=8)),
    unique_by=lambda pair: pair[1],
    min_size=1,
    max_size=60,
)


@hypothesis.given(keys_of_classes, st.floats(0.01, 0.99), st.integers(0, 9), st.randoms())
def test_each_class_has_its_share_whatever_the_order(pairs, fraction, seed, random):
    labels, keys = np.array([label for label, _ in pairs]), [key for _, key in pairs]
    test = stratified(labels, keys, fraction, seed)
    for label in set(labels.tolist()):
        own = test[labels == label]
        wanted = fraction * len(own)
        fits = abs(own.sum() - wanted) <= 0.5 + 1e-9
        assert fits or own.sum() == 1 > wanted or own.sum() == len(own) - 1
        assert 0 < own.sum() < len(own) or len(own) == 1 > own.sum()
    shuffled = list(range(len(keys)))
    random.shuffle(shuffled)
    again = stratified(labels[shuffled], [keys[i] for i in shuffled], fraction, seed)
    np.testing.assert_array_equal(again, test[shuffled])


@hypothesis.given(keys_of_classes, st.randoms())
def test_the_order_of_examples_is_that_of_their_keys(pairs, random):
    keys = [key for _, key in pairs]
    order = ranked(keys, "order", 0)
    assert sorted(order.tolist()) == list(range(len(keys)))
    shuffled = random.sample(keys, len(keys))
    again = ranked(shuffled, "order", 0)
    assert [keys[i] for i in order] == [shuffled[i] for i in again]


def test_seeds_draw_other_pictures():
    keys, labels = [f"{i}.png" for i in range(400)], np.arange(400) % 4
    drawn = [stratified(labels, keys, 0.25, seed) for seed in range(30)]
    assert all(one.sum() == 100 for one in drawn)
    shares = np.mean(drawn, axis=0)  # of seeds by picture: binomial, and so about a quarter
    assert abs(shares.std() - np.sqrt(0.25 * 0.75 / 30)) < 0.02
    assert stratified(labels, keys, 1.0).all()


# --- Folders


def test_a_folder_is_a_dataset(photos):
    data = load(photos)
    assert (data.name, data.source, data.image_shape) == ("folder:photos", "folder", (8, 8, 3))
    assert data.label_names == ("cat", "dog", "emu")
    assert (np.bincount(data.train.labels), np.bincount(data.test.labels)) == (
        pytest.approx([8, 8, 8]),
        pytest.approx([2, 2, 2]),
    )
    found = {}
    for split in (data.train, data.test):
        for image, label in zip(split.images.numpy(), split.labels.numpy()):
            found[image.tobytes()] = data.label_names[label]
    expected = {
        picture_files.read(path, (8, 8, 3), "crop").tobytes(): path.parent.name
        for path in photos.rglob("*.*")
    }
    assert found == expected and len(found) == 30


def test_labels_are_keras_own(photos):
    truth = keras.utils.image_dataset_from_directory(
        photos, image_size=(8, 8), batch_size=None, shuffle=False, crop_to_aspect_ratio=True
    )
    assert list(load(photos).label_names) == truth.class_names
    listing = data_lib.Pictures(image_size=(8, 8)).find(f"folder:{photos}")
    ours = {str(one.path): listing.label_names.index(one.label) for one in listing.pictures}
    theirs = dict(zip(truth.file_paths, (int(label) for _, label in truth)))
    assert len(theirs) == 21 and theirs.items() <= ours.items()  # Keras reads no WebP


def test_the_same_pictures_are_the_same_data(photos, tmp_path, monkeypatch):
    data = load(photos, seed=3)
    moved = shutil.copytree(photos, tmp_path / "elsewhere" / "photos")
    walk = os.walk

    def other_order(*arguments, **options):
        for place, folders, names in walk(*arguments, **options):
            yield place, folders, sorted(names, reverse=True)

    monkeypatch.setattr(os, "walk", other_order)
    again = load(f"{moved}/", seed=3)
    assert again.name == data.name
    for one, other in zip(content(data), content(again)):
        np.testing.assert_array_equal(one, other)
    assert load(moved, seed=4).test.digest != data.test.digest


def test_the_first_examples_are_of_all_classes(photos):
    data = data_lib.load(
        f"folder:{photos}", train_examples=12, pictures=data_lib.Pictures(image_size=4)
    )
    assert len(data.train) == 12 and set(data.train.labels.numpy()) == {0, 1, 2}


@pytest.mark.parametrize("form", ["png", "jpg", "bmp", "gif"])
@pytest.mark.parametrize("limit", [10, 50, None])
def test_large_pictures_are_read(tmp_path, monkeypatch, recwarn, form, limit):
    """Pillow warns of more pixels than its limit, and refuses more than twice as many."""
    array = np.full((8, 8), 7, np.uint8)
    for label in "ab":
        save(tmp_path / label / f"0.{form}", array)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    monkeypatch.setattr(picture_files, "_LARGE", 10)
    data = data_lib.from_folder(tmp_path, test_fraction=1)
    np.testing.assert_array_equal(data.test.images, array.reshape(1, 8, 8, 1).repeat(2, 0))
    assert not recwarn and limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize(
    ("place", "limit", "form"),
    [((picture_files, "MAX_PIXELS"), 63, "png"), ((picture_files, "MAX_PIXELS"), 63, "webp"),
     ((Image, "MAX_IMAGE_PIXELS"), 31, "webp")],
)  # fmt: skip
def test_pictures_that_are_too_large_are_named(tmp_path, monkeypatch, place, limit, form):
    for label in "ab":
        save(tmp_path / label / "0.png", colours(0, 5, 5))
    save(tmp_path / "b" / f"large.{form}", colours(0, 8, 8))
    (tmp_path / "a" / "none.png").touch()
    monkeypatch.setattr(*place, limit)
    most = 62 if place[0] is Image else 63
    with pytest.warns(UserWarning) as caught:
        data = data_lib.from_folder(tmp_path, test_fraction=1)
    lines = [str(one.message).partition(": ")[2] for one in caught]
    assert lines == [
        f"1 of 4 files left out, which are no {picture_files.FORMATS} or are damaged: a/none.png",
        f"1 of 4 files left out, which have more than {most} pixels: b/large.{form}",
    ]
    assert len(data.test) == 2


def test_what_is_no_picture_is_named_and_left_out(photos, recwarn):
    before = content(load(photos))
    (photos / "cat" / ".DS_Store").write_bytes(b"hidden")
    (photos / "README.txt").write_text("of no class")
    assert not recwarn
    for one, other in zip(before, content(load(photos))):
        np.testing.assert_array_equal(one, other)
    assert not recwarn
    (photos / "cat" / "Thumbs.db").write_bytes(b"cache")
    (photos / "dog" / "empty.jpg").touch()
    (photos / "emu" / "notes.png").write_text("no picture")
    (photos / "emu" / "new\nline.tif").write_bytes(b"II*\0")
    os.mkfifo(photos / "emu" / "pipe.jpg")
    whole = photos / "dog" / "3.png"
    whole.write_bytes(whole.read_bytes()[:-200])
    with pytest.warns(UserWarning) as caught:
        data = load(photos)
    (line,) = (str(one.message) for one in caught)
    assert "\n" not in line and ": 6 of 35 files left out" in line and line.endswith(", …")
    assert "cat/Thumbs.db, dog/3.png, dog/empty.jpg, emu/new line.tif" in line
    assert len(data.train) + len(data.test) == 29


@pytest.mark.parametrize("color", ["auto", "gray", "rgb"])
def test_images_are_grey_where_all_pictures_are(tmp_path, color):
    grey = colours()[..., 0]
    save(tmp_path / "a" / "0.png", grey)
    save(tmp_path / "a" / "1.png", grey.astype(np.uint16) * 257)
    save(tmp_path / "b" / "0.jpg", grey)
    Image.fromarray(grey).convert("P").save(tmp_path / "b" / "1.gif")
    expected = {"auto": 1, "gray": 1, "rgb": 3}
    load_it = functools.partial(data_lib.from_folder, tmp_path, color=color)
    assert load_it().image_shape == (H, W, expected[color])
    save(tmp_path / "b" / "2.png", colours())
    assert load_it().image_shape == (H, W, expected[color] if color != "auto" else 3)


def test_pictures_are_read_when_they_are_used(photos, monkeypatch):
    """A few ahead, in order, by several threads."""
    read, opened = listings.read, []
    monkeypatch.setattr(listings, "read", lambda *args: (opened.append(args[0]), read(*args))[1])
    monkeypatch.setattr(listings.machine, "cores", lambda: 2)
    listing = data_lib.Pictures(image_size=(8, 8)).find(f"folder:{photos}")
    assert not opened
    examples = listing.iterate("train")
    first, label = next(examples)
    assert len(opened) <= 9
    one = listing.of("train")[0]
    np.testing.assert_array_equal(first, read(one.path, (8, 8, 3), "crop"))
    assert listing.label_names[label] == one.label
    assert len(list(examples)) == 23 and len(opened) == 24


def test_a_bar_says_what_takes_long(photos, monkeypatch, capsys):
    load(photos)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(listings, "_PATIENCE", 0)
    load(photos)
    lines = capsys.readouterr().err.splitlines()
    verbs = [line.partition(":")[0] for line in lines]
    assert verbs == ["looking at folder", "reading folder", "reading folder"]
    assert "30/30" in lines[0] and "24/24" in lines[1] and "6/6" in lines[2]


def test_workers_load_the_same_by_the_columns_of_a_run(photos):
    sources = Sources(pictures=data_lib.Pictures(image_size=(28, 28), color="gray"))
    data = sources.load(f"folder:{photos}")
    run = runs.resolve(data, epochs=1)
    assert run.name.startswith("folder-photos-natural-")
    places = {data.name: f"folder:{photos}"}
    there = pickle.loads(pickle.dumps(functools.partial(sources.of, places=places)))
    assert there(run).train_digest == data.train_digest
    with pytest.raises(Unavailable, match="datasets=folder:photos: .* not known here"):
        sources.of(run)


# --- What is refused


def nothing(root):
    shutil.rmtree(root)


def a_file(root):
    shutil.rmtree(root)
    root.write_text("")


def no_folders(root):
    shutil.rmtree(root)
    save(root / "0.png", colours())


def an_empty_class(root):
    (root / "fox").mkdir()


def a_class_of_text(root):
    save(root / "fox" / "a.png", colours())
    (root / "fox" / "a.png").write_text("none")


def one_class(root):
    for name in ("dog", "emu"):
        shutil.rmtree(root / name)


def two_cases(root):
    shutil.copytree(root / "cat", root / "Cat")


def nothing_readable(root):
    for path in root.rglob("*.*"):
        path.write_text("none")


def unknown_in_test(root):
    shutil.rmtree(root)
    lay_out(root, "train/a", "train/b", "test/b", "test/cow")


def unlabeled_test(root):
    shutil.rmtree(root)
    lay_out(root, "train/a", "train/b", "test")


def twice_test(root):
    shutil.rmtree(root)
    lay_out(root, "train/a", "test/a", "testing/a")


def damaged_class(root):
    for path in (root / "dog").iterdir():
        save(path.with_suffix(".png"), colours(height=50))
        if path.suffix != ".png":
            path.unlink()
    for path in (root / "dog").iterdir():
        path.write_bytes(path.read_bytes()[:-100])


def one_of_each(root):
    for path in root.rglob("*.*"):
        if path.stem != "0":
            path.unlink()


def other_bytes(root):
    shutil.copytree(root / "cat", os.fsdecode(os.fsencode(root) + b"/caf\xe9"))


BAD = [
    (nothing, Unavailable, "there is no such folder"),
    (a_file, Unavailable, "a list of pictures is csv:FILE"),
    (no_folders, InvalidArgument, "folders of classes, .*; there is none"),
    (an_empty_class, InvalidArgument, "none can be read of folder fox"),
    (a_class_of_text, InvalidArgument, "none can be read of folder fox"),
    (one_class, InvalidArgument, "two classes or more; there is cat alone"),
    (two_cases, InvalidArgument, "differ by more than case, unlike Cat and cat"),
    (nothing_readable, InvalidArgument, "pictures .*; none can be read"),
    (unknown_in_test, InvalidArgument, "no class in test that is not in train, as cow"),
    (unlabeled_test, InvalidArgument, "folders of classes, .*; test has none"),
    (twice_test, InvalidArgument, "one folder per split, not test and testing"),
    (damaged_class, InvalidArgument, "none can be read of folder dog"),
    (one_of_each, InvalidArgument, "two pictures or more of a class, of which one is for test"),
    (other_bytes, InvalidArgument, "names of classes in UTF-8"),
]


@pytest.mark.parametrize(("spoil", "error", "message"), BAD, ids=[one.__name__ for one, *_ in BAD])
def test_bad_folders_give_one_line(photos, spoil, error, message):
    spoil(photos)
    with pytest.raises(error, match=message) as caught:
        load(photos)
    assert str(caught.value).startswith(f"dataset=folder:{photos}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "size",
    [np.array([8, 9]), np.array([8, 9], np.uint8), np.int64([8, 9]).tolist(), "8,9"]
    + [(np.int32(8), np.uint16(9)), [8, np.int64(9)]],
)
def test_a_size_may_be_numpys(photos, size):
    assert load(photos, image_size=size).image_shape == (8, 9, 3)
    assert load(photos, image_size=np.int16(8)).image_shape == (8, 8, 3)
    assert load(photos, image_size=np.array(8)).image_shape == (8, 8, 3)


BAD_SETTINGS = [
    ({"image_size": np.array([8.0, 8])}, "image_size=.*8.*: expected height and width"),
    ({"image_size": np.array([[8, 8]])}, "image_size=.*8.*: expected height and width"),
    ({"image_size": None}, "image_size: expected H,W .* have 10 sizes, .*×.* \\(3\\), .*, …"),
    ({"image_size": (8, 0)}, "image_size=8,0: expected height and width"),
    ({"image_size": (8.5, 8)}, "image_size=8.5,8: expected height and width"),
    ({"resize": "stretch"}, "resize=stretch: expected one of crop, pad, squash"),
    ({"color": "grey"}, "color=grey: expected one of auto, gray, rgb"),
    ({"test_fraction": 0}, "test_fraction=0: expected a number above 0, at most 1"),
    ({"test_fraction": 1.5}, "test_fraction=1.5: expected a number above 0, at most 1"),
    ({"seed": -1}, "seed=-1: expected a whole number from 0 on"),
]


@pytest.mark.parametrize(("settings", "message"), BAD_SETTINGS)
def test_bad_settings_give_one_line(photos, settings, message):
    with pytest.raises(InvalidArgument) as caught:
        load(photos, **settings)
    assert re.match(message, str(caught.value)), caught.value


def test_a_split_that_is_there_is_not_drawn(tmp_path):
    lay_out(tmp_path, "train/a", "train/b", "test/a")
    for settings in ({"test_fraction": 0.2}, {"seed": 0}):
        with pytest.raises(InvalidArgument, match="has a test split"):
            data_lib.from_folder(tmp_path, **settings)
