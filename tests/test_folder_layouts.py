"""Which pictures of which classes a folder has: splits, links, and what is there twice."""

import numpy as np
import pytest

from robust_tf import data as data_lib
from robust_tf.errors import InvalidArgument
from tests.test_folders import lay_out

LAYOUTS = {
    "split": (("train/a", "train/b", "test/a", "test/b"), (4, 4)),
    "class missing in test": (("train/a", "train/b", "test/b"), (4, 2)),
    "other words": (("Training/a", "Training/b", "TESTING/a"), (4, 2)),
    "validation": (("train/a", "train/b", "val/a"), (4, 2)),
    "both": (("train/a", "train/b", "validation/a", "validation/b", "test/b"), (4, 2)),
    "train alone": (("train/a", "train/b"), (2, 2)),
    "test alone": (("test/a", "test/b"), (0, 4)),
    "nested": (("a/x", "a/y/z", "b"), (4, 2)),
    "a class of trains": (("car", "plane", "train"), (3, 3)),
    "trains by type": (("car", "train/steam", "train/diesel"), (4, 2)),
    "hidden": (("a", "b", ".git", "__MACOSX", "b/.thumbnails"), (2, 2)),
}


@pytest.mark.parametrize(("places", "counts"), LAYOUTS.values(), ids=LAYOUTS)
def test_layouts(tmp_path, places, counts):
    lay_out(tmp_path / "photos", *places)
    data = data_lib.from_folder(tmp_path / "photos")
    assert (len(data.train), len(data.test)) == counts
    names = {"car", "plane", "train"} & {place.partition("/")[0] for place in places}
    assert data.label_names == tuple(sorted(names & set(data.label_names) or {"a", "b"}))
    assert data.image_shape == (6, 6, 3)


def test_what_is_beside_train_and_test_is_left_out(tmp_path):
    lay_out(tmp_path, "train/a", "train/b", "test/a", "unlabelled/c")
    with pytest.warns(UserWarning, match="left out, beside train and test: unlabelled"):
        data = data_lib.from_folder(tmp_path)
    assert data.label_names == ("a", "b") and (len(data.train), len(data.test)) == (4, 2)


def test_links_are_followed_once(tmp_path):
    lay_out(tmp_path / "store", "a", "b/deep")
    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        (tmp_path / "photos" / name).symlink_to(tmp_path / "store" / name)
    (tmp_path / "store" / "b" / "deep" / "loop").symlink_to(tmp_path / "store" / "b")
    with pytest.warns(UserWarning, match="left out, links to .*: b/deep/loop$"):
        data = data_lib.from_folder(tmp_path / "photos", test_fraction=1)
    assert np.bincount(data.test.labels).tolist() == [2, 2]


def link(tmp_path, place, target):
    place = tmp_path / "photos" / place
    place.parent.mkdir(exist_ok=True, parents=True)
    place.symlink_to(target)


LINKS = {
    "to all": ("b/x", "..", "b/x"),
    "to another class": ("a/x", "../b", "a/x"),
    "to above all": ("b/x", "../..", "b/x/photos"),
    "to a part of it": ("b/x", "../a/part", "b/x"),
}


@pytest.mark.parametrize(("place", "target", "left_out"), LINKS.values(), ids=LINKS)
def test_a_picture_is_of_one_class(tmp_path, place, target, left_out):
    lay_out(tmp_path / "photos", "a", "a/part", "b")
    link(tmp_path, place, target)
    with pytest.warns(UserWarning, match=f"left out, links to .* read anyway: {left_out}$"):
        data = data_lib.from_folder(tmp_path / "photos", test_fraction=1)
    assert np.bincount(data.test.labels).tolist() == [4, 2]


@pytest.mark.parametrize(
    ("place", "target"), [("c", "a"), ("c", "."), ("train/a", "../test/a"), ("train", "test")]
)
def test_a_folder_is_one_class(tmp_path, place, target):
    kinds = ("test/a", "test/b") if "t" in place else ("a", "b")
    lay_out(tmp_path / "photos", *kinds)
    link(tmp_path, place, target)
    with pytest.raises(InvalidArgument, match="each folder once, not .* again$"):
        data_lib.from_folder(tmp_path / "photos")


@pytest.mark.parametrize("place", ["train/b/again.png", "test/a/again.png", "train/a/again.png"])
def test_a_picture_is_there_once(tmp_path, place):
    lay_out(tmp_path / "photos", "train/a", "train/b", "test/a", "test/b")
    one, elsewhere = sorted((tmp_path / "photos/train/a").iterdir())
    (tmp_path / "photos" / place).symlink_to(one)
    with pytest.raises(InvalidArgument, match=f"each picture once, not {place} again$"):
        data_lib.from_folder(tmp_path / "photos")
    (tmp_path / "photos" / place).unlink()
    elsewhere.rename(tmp_path / "elsewhere.png")
    elsewhere.symlink_to(tmp_path / "elsewhere.png")
    assert len(data_lib.from_folder(tmp_path / "photos").train) == 4


def test_a_link_may_be_for_validation(tmp_path):
    lay_out(tmp_path / "photos", "train/a", "train/b", "test/a")
    link(tmp_path, "val", "test")
    data = data_lib.from_folder(tmp_path / "photos")
    assert (len(data.train), len(data.test)) == (4, 2)
