"""Decoded images beside TFDS's files: the same as without them, whatever becomes of the file."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from robust_tf.data import tfds as tfds_lib
from robust_tf.errors import Unavailable
from tests.test_data import load_tiny
from tests.test_data import no_network as no_network
from tests.test_data import prepared as prepared
from tests.test_data import prepared_once as prepared_once

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture(autouse=True)
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


@pytest.fixture
def decoding(monkeypatch) -> list[str]:
    """The splits that are decoded from now on."""
    seen = []
    examples = tfds_lib._examples
    monkeypatch.setattr(
        tfds_lib,
        "_examples",
        lambda builder, split, where: seen.append(split) or examples(builder, split, where),
    )
    return seen


def folder(directory: Path) -> Path:
    return directory / "tiny_shapes" / "1.0.0"


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in (folder(directory) / "robust_tf").glob("*"))


def content(data) -> list:
    splits = [data.train, data.test]
    arrays = [part.numpy() for split in splits for part in (split.images, split.labels)]
    return [array.tobytes() for array in arrays] + [data.train_digest, data.test.digest]


def test_images_are_decoded_once(prepared, decoding, monkeypatch):
    monkeypatch.setenv("ROBUST_TF_DECODED", "off")
    expected = content(load_tiny(prepared))
    assert files(prepared) == [] and decoding == ["train", "test"]
    monkeypatch.delenv("ROBUST_TF_DECODED")
    for _ in range(3):
        assert content(load_tiny(prepared)) == expected
    assert files(prepared) == ["test.decoded", "train.decoded"]
    assert decoding == ["train", "test"] * 2
    few = load_tiny(prepared, train_examples=3, divisor=256).train
    assert few.digest == load_tiny(prepared).train.digest
    monkeypatch.setenv("ROBUST_TF_DECODED", "off")
    assert content(load_tiny(prepared)) == expected and decoding == ["train", "test"] * 3


def test_of_changed_files_nothing_old_is_believed(prepared, decoding):
    """Not even where size and time are the same."""
    before = load_tiny(prepared)
    (shard,) = folder(prepared).glob("*train*tfrecord*")
    stat, records = shard.stat(), list(tf.data.TFRecordDataset(str(shard)))
    with tf.io.TFRecordWriter(str(shard)) as writer:
        for record in records[::-1]:
            writer.write(record.numpy())
    os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (shard.stat().st_size, shard.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    for _ in range(2):
        after = load_tiny(prepared)
        np.testing.assert_array_equal(after.train.images, before.train.images[::-1])
        np.testing.assert_array_equal(after.train.labels, before.train.labels[::-1])
        assert after.test.digest == before.test.digest
    assert decoding == ["train", "test", "train"]
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(Unavailable, match="expected a directory of prepared TFDS data"):
        load_tiny(prepared)


def test_files_that_change_while_they_are_decoded_are_not_kept(prepared, monkeypatch):
    examples = tfds_lib._examples

    def changing(builder, split, where):
        yield from examples(builder, split, where)
        (shard,) = folder(prepared).glob(f"*{split}*tfrecord*")
        shard.write_bytes(shard.read_bytes() + b"more")

    monkeypatch.setattr(tfds_lib, "_examples", changing)
    load_tiny(prepared)
    assert files(prepared) == []


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def extend(path):
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path):
    path.write_bytes(b"")


def foreign(path):
    path.write_bytes(os.urandom(len(path.read_bytes())))


def version(path):
    path.write_bytes(path.read_bytes().replace(b"images 1", b"images 2"))


def other_split(path):
    path.write_bytes(path.with_name("test.decoded").read_bytes())


def flip(place):
    def damage(path):
        changed = bytearray(path.read_bytes())
        changed[place] ^= 1
        path.write_bytes(bytes(changed))

    damage.__name__ = f"flip {place}"
    return damage


# In the first line, the key, the digest, the labels, and the images.
FLIPS = [flip(place) for place in (0, 30, 91, 92, 100, 155, 157, 158, 200, 400, -1)]


@pytest.mark.parametrize(
    "damage",
    [cut, extend, empty, foreign, version, other_split, *FLIPS],
    ids=lambda one: one.__name__,
)
def test_a_damaged_file_is_decoded_again(prepared, decoding, damage):
    expected = content(load_tiny(prepared))
    path = folder(prepared) / "robust_tf" / "train.decoded"
    good = path.read_bytes()
    damage(path)
    assert path.read_bytes() != good
    assert content(load_tiny(prepared)) == expected
    assert decoding == ["train", "test", "train"] and path.read_bytes() == good
    assert files(prepared) == ["test.decoded", "train.decoded"]


@pytest.mark.parametrize("what", ["folder", "file"])
def test_something_else_in_its_place_stays(prepared, what):
    place = folder(prepared) / "robust_tf"
    if what == "folder":
        place = place / "train.decoded"
        place.mkdir(parents=True)
    else:
        place.write_text("mine")
    assert len(load_tiny(prepared).train) == 30
    assert place.is_dir() if what == "folder" else place.read_text() == "mine"


def test_where_nobody_may_write_nothing_is_written(prepared, decoding):
    """Not even by root."""
    folder(prepared).chmod(0o555)
    try:
        expected = content(load_tiny(prepared))
        assert not (folder(prepared) / "robust_tf").exists()
        folder(prepared).chmod(0o755)
        load_tiny(prepared)
        assert decoding == ["train", "test"] * 2
        for place in (folder(prepared) / "robust_tf", folder(prepared)):
            place.chmod(0o555)
        assert content(load_tiny(prepared)) == expected  # what is there is read
        assert decoding == ["train", "test"] * 2
    finally:
        for place in (folder(prepared), folder(prepared) / "robust_tf"):
            place.chmod(0o755)


def test_a_full_disk_is_no_matter(prepared, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("robust_tf.data.decoded._write", full)
    assert len(load_tiny(prepared).train) == 30
    assert files(prepared) == []


def test_processes_at_once_write_whole_files(prepared):
    lines = (
        "import sys",
        "from tests.test_data import TinyShapes, load_tiny",
        "data = load_tiny(sys.argv[1])",
        "print(data.train_digest, data.test.digest)",
    )
    command = [sys.executable, "-c", "\n".join(lines), str(prepared)]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    answers = [process.communicate(timeout=120)[0].split() for process in processes]
    data = load_tiny(prepared)
    assert answers == [[data.train_digest, data.test.digest]] * 2
    assert files(prepared) == ["test.decoded", "train.decoded"]
