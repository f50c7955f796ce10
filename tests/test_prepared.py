"""Prepared images on disk: the same as in memory, complete or absent, and checked."""

import dataclasses
import json
import os
import pickle
import shutil
import threading
import time
import warnings

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from robust_tf import data as data_lib
from robust_tf.data import Split, records
from robust_tf.errors import Unavailable
from tests.test_data import no_network as no_network
from tests.test_data import prepared_once as prepared_once

SHAPE = (5, 4, 3)
# Columns that are no numbers of the experiment.
TIMES = ["seconds", "images_per_second"]


def arrays(count=23, shape=SHAPE, seed=0) -> tuple[np.ndarray, np.ndarray]:
    """Images of noise, and labels."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *shape), np.uint8), rng.integers(0, 9, count)


def stored(folder, images, labels, key="k", **options) -> Split:
    return data_lib.store(zip(images, labels), folder, images.shape[1:], key=key, **options)


def untouched(folder, key="k", shape=SHAPE) -> Split:
    """Opens a folder that needs no examples."""

    def examples():
        raise AssertionError("the folder was prepared again")
        yield

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return data_lib.store(examples(), folder, shape, key=key)


def on_disk(split: Split, folder) -> Split:
    """The same examples, read from disk."""
    again = stored(folder, split.images.numpy(), split.labels.numpy())
    return dataclasses.replace(
        again,
        divisor=split.divisor,
        digest_of_whole=split.digest_of_whole,
    )


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> tuple[Split, Split]:
    """A split in memory and on disk."""
    images, labels = arrays()
    folder = tmp_path_factory.mktemp("both") / "a"
    return Split.of_arrays(images, labels), stored(folder, images, labels)


@pytest.fixture(scope="module")
def small_on_disk(small, tmp_path_factory) -> data_lib.Data:
    """`small`, of which both splits are on disk."""
    place = tmp_path_factory.mktemp("small")
    train, test = (on_disk(getattr(small, name), place / name) for name in ("train", "test"))
    return dataclasses.replace(small, train=train, test=test)


@pytest.mark.parametrize("divisor", [255, 256])
@settings(deadline=None, max_examples=30)
@given(index=st.lists(st.integers(0, 22), max_size=40), kind=st.sampled_from(["int32", "int64"]))
def test_any_indices_give_the_same_bits(both, divisor, index, kind):
    memory, disk = (dataclasses.replace(split, divisor=divisor) for split in both)
    index = np.array(index, kind)
    expected = memory.images_at(index)
    found = disk.images_at(index)
    assert found.dtype == expected.dtype and found.shape == (len(index), *SHAPE)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(disk.bytes_at(index), memory.images.numpy()[index])


@pytest.mark.parametrize("batch", [1, 4, 7, 23, 50])
def test_in_graphs_they_are_the_same_and_shapes_are_known(both, batch):
    memory, disk = both
    order = np.random.default_rng(batch).permutation(23)
    indices = tf.data.Dataset.from_tensor_slices(order).batch(batch, drop_remainder=batch == 7)
    mapped = [indices.map(split.images_at, num_parallel_calls=3) for split in both]
    assert mapped[0].element_spec == mapped[1].element_spec
    for one, other in zip(*mapped, strict=True):
        np.testing.assert_array_equal(one, other)

    @tf.function
    def total(split: Split, index: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(split.images_at(index) * tf.cast(split.labels[0] + 1, tf.float32))

    assert total(disk, tf.constant(order)) == total(memory, tf.constant(order))
    assert total(disk.first(9), tf.range(9)) == total(memory.first(9), tf.range(9))


def test_the_face_is_the_same(both, tmp_path):
    memory, disk = both
    assert (len(disk), disk.image_shape, disk.digest) == (23, SHAPE, memory.digest)
    assert disk.identity == memory.identity
    assert (disk.bytes_in_memory, memory.bytes_in_memory) == (0, 23 * 60)
    np.testing.assert_array_equal(disk.labels, memory.labels)
    for count in (0, 1, 22, 23, 99):
        few, expected = disk.first(count), memory.first(count)
        assert few.identity == expected.identity
        np.testing.assert_array_equal(few.labels, expected.labels)
        np.testing.assert_array_equal(
            few.images_at(tf.range(len(few))), expected.images_at(tf.range(len(few)))
        )
    again = pickle.loads(pickle.dumps(disk))
    np.testing.assert_array_equal(again.images_at([3, 1]), memory.images_at([3, 1]))
    # Other labels make another split, whose digest is that of the same in memory.
    labels = (memory.labels + 1) % 9
    other = dataclasses.replace(disk, labels=labels, digest_of_whole=None)
    assert other.digest == Split(memory.images, labels).digest != disk.digest


@given(st.lists(st.integers(0, 2000), max_size=400), st.lists(st.integers(0, 2000), max_size=30))
@settings(deadline=None, max_examples=40)
def test_a_few_images_are_known_among_others(learned, asked):
    """All of up to 256 different ones, whatever their order; of more, those of some numbers."""
    values = np.arange(2001, dtype=np.uint16).view(np.uint8).reshape(-1, 1, 2, 1)
    train, test = (Split.of_arrays(values[own], [0] * len(own)) for own in (learned, asked))
    sketch = train.sketch
    assert len(sketch) == min(len({*learned}), 256) and sketch == sorted({*sketch})
    assert Split.of_arrays(values[learned[::-1]], [1] * len(learned)).sketch == sketch
    both = sum(one in learned for one in asked)
    assert test.among({*sketch}) == both if len({*learned}) <= 256 else test.among(sketch) <= both
    assert train.among({*sketch}) >= len(sketch) and test.among(()) == 0


def test_sketches_are_those_of_memory(both):
    memory, disk = both
    assert disk.sketch == memory.sketch and disk.first(5).among(memory.sketch) == 5
    assert disk.among(memory.first(5).sketch) == 5


@pytest.mark.parametrize("index", [[23], [-1], [0, 5, 1000], [2**31 - 1]])
def test_an_index_outside_is_an_error_and_not_another_image(both, index):
    _, disk = both
    with pytest.raises(ValueError, match=r"is not in 0 … 22"):
        disk.images_at(index)
    with pytest.raises(ValueError, match=r"is not in 0 … 3"):
        disk.first(4).images_at(index)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"is not in 0 … 22"):
        tf.function(disk.images_at)(tf.constant(index))


@pytest.mark.parametrize(
    ("count", "shape"),
    [(0, (2, 2, 1)), (1, (1, 1, 1)), (3, (224, 224, 3)), (1234, (7, 5, 1)), (10**12, (9, 9, 4))],
)
def test_numpy_knows_the_format(tmp_path, count, shape):
    path = tmp_path / "images.npy"
    images, _ = arrays(min(count, 2000), shape)
    path.write_bytes(records.header((count, *shape)) + images.tobytes())
    if count > 2000:  # more than fit here: the header alone
        with open(path, "rb") as file:
            assert np.lib.format.read_magic(file) == (1, 0)
            expected = ((count, *shape), False, np.dtype("uint8"))
            assert np.lib.format.read_array_header_1_0(file) == expected
            assert file.tell() == len(records.header((0, *shape)))
        return
    np.testing.assert_array_equal(np.load(path, mmap_mode="r" if count else None), images)


def damage_cut(folder):
    path = folder / "images.npy"
    path.write_bytes(path.read_bytes()[:-1])


def damage_extend(folder):
    with open(folder / "images.npy", "ab") as file:
        file.write(b"more")


def damage_pixel(folder):
    path = folder / "images.npy"
    content = bytearray(path.read_bytes())
    content[700] ^= 1
    path.write_bytes(bytes(content))


def damage_shape(folder):
    path = folder / "images.npy"
    content = path.read_bytes()
    path.write_bytes(records.header((23, 4, 5, 3)) + content[128:])


def damage_labels(folder):
    labels = np.load(folder / "labels.npy")
    labels[4] += 1
    np.save(folder / "labels.npy", labels)


def damage_fewer_labels(folder):
    np.save(folder / "labels.npy", np.load(folder / "labels.npy")[:-1])


def damage_other_labels(folder):
    np.save(folder / "labels.npy", np.zeros(23))


def damage_pickled_labels(folder):
    (folder / "labels.npy").write_bytes(pickle.dumps([1, 2, 3]))


def damage_empty_labels(folder):
    (folder / "labels.npy").write_bytes(b"")


def damage_lose_images(folder):
    (folder / "images.npy").unlink()


def damage_lose_labels(folder):
    (folder / "labels.npy").unlink()


def damage_lose_description(folder):
    (folder / "split.json").unlink()


def damage_garble_description(folder):
    (folder / "split.json").write_bytes(b"\xff{")


def damage_foreign_description(folder):
    (folder / "split.json").write_text("[1, 2]")


def damage_digest(folder):
    path = folder / "split.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "digest": "sha256:00000000"}))


def damage_version(folder):
    path = folder / "split.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 0}))


DAMAGES = [value for name, value in list(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda one: one.__name__)
def test_a_damaged_folder_is_made_again_with_a_line(tmp_path, damage):
    images, labels = arrays()
    folder = tmp_path / "a"
    expected = stored(folder, images, labels).digest
    assert untouched(folder).digest == expected
    damage(folder)
    with pytest.warns(UserWarning, match=r"a: .*; it is prepared again$") as said:
        again = stored(folder, images, labels)
    assert len(said) == 1 and "\n" not in str(said[0].message)
    assert again.digest == expected
    np.testing.assert_array_equal(again.bytes_at(range(23)), images)
    assert untouched(folder).digest == expected
    assert sorted(os.listdir(tmp_path)) == ["a"]


def test_what_was_copied_or_touched_is_read_through_once(tmp_path, monkeypatch):
    images, labels = arrays()
    expected = stored(tmp_path / "a", images, labels).digest
    time.sleep(0.01)
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)
    os.utime(tmp_path / "a" / "images.npy")
    through = []
    chunks = Split.chunks
    monkeypatch.setattr(Split, "chunks", lambda split: through.append(1) or chunks(split))
    for name in ("a", "b"):
        assert untouched(tmp_path / name).digest == expected
        assert untouched(tmp_path / name).digest == expected
    assert len(through) == 2


def test_other_images_replace_those_of_before(tmp_path):
    (first, labels), (second, _) = arrays(), arrays(seed=1)
    before = stored(tmp_path / "a", first, labels, key="monday")
    with pytest.warns(UserWarning, match="from other images; it is prepared again"):
        after = stored(tmp_path / "a", second[:9], labels[:9], key="tuesday")
    assert len(after) == 9 and after.digest == Split.of_arrays(second[:9], labels[:9]).digest
    # Whoever reads the earlier ones goes on with them.
    np.testing.assert_array_equal(before.bytes_at(range(23)), first)


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_is_not_ours_is_never_removed(tmp_path, kind):
    images, labels = arrays()
    place, own = tmp_path / "a", tmp_path / "own"
    own.mkdir()
    (own / "photo.jpg").write_text("mine")
    if kind == "folder":
        own.rename(place)
    elif kind == "link":
        place.symlink_to(own)
    else:
        place.write_text("mine")
    with pytest.raises(Unavailable, match="^data_dir=.*a: .*something else$"):
        stored(place, images, labels)
    mine = place if kind == "file" else place / "photo.jpg"
    assert mine.read_text() == "mine"


def test_an_error_half_way_leaves_nothing(tmp_path):
    images, labels = arrays()
    folder = tmp_path / "new" / "a"

    def examples(error):
        yield from zip(images[:9], labels[:9])
        raise error

    for error in (Unavailable("dataset", "x", "gone"), KeyboardInterrupt(), RuntimeError("odd")):
        with pytest.raises(type(error)):
            data_lib.store(examples(error), folder, SHAPE, key="k")
        assert not list(tmp_path.rglob("*"))
    for wrong in (images[:, :4], images.astype(np.float32), images[..., :1]):
        with pytest.raises(ValueError, match=r"example 0: expected uint8 \(5, 4, 3\), not "):
            data_lib.store(zip(wrong, labels), folder, SHAPE, key="k")
        assert not list(tmp_path.rglob("*"))
    assert len(stored(folder, images, labels)) == 23


def test_who_waits_for_one_that_fails_goes_on(tmp_path):
    images, labels = arrays()
    begun, found = threading.Event(), []

    def failing():
        begun.set()
        time.sleep(0.3)
        raise RuntimeError("odd")
        yield

    def wait():
        begun.wait(60)
        found.append(stored(tmp_path / "new" / "a", images, labels))

    thread = threading.Thread(target=wait)
    thread.start()
    with warnings.catch_warnings(), pytest.raises(RuntimeError):
        warnings.simplefilter("ignore")  # that one waits for the other
        data_lib.store(failing(), tmp_path / "new" / "a", SHAPE, key="k")
    thread.join(60)
    np.testing.assert_array_equal(found[0].bytes_at(range(23)), images)


def test_no_room_is_known_before_the_work(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=23 * 60 - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    with pytest.raises(Unavailable, match="^data_dir=.*a: no room for 1.29e-06 GiB of images"):
        stored(tmp_path / "a", *arrays(), count=23)
    with pytest.raises(Unavailable, match="^cache=.*no room"):
        stored(tmp_path / "a", *arrays(), count=23, argument="cache")
    assert len(stored(tmp_path / "a", *arrays(22), count=22)) == 22
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unavailable, match="^data_dir=.*writing failed"):
        stored(tmp_path / "file" / "a", *arrays())


def test_several_at_once_prepare_one(tmp_path):
    images, labels = arrays()
    begun, found = [], []
    together = threading.Barrier(4)

    def examples():
        begun.append(threading.get_ident())
        for example in zip(images, labels):
            time.sleep(0.002)
            yield example

    def prepare():
        together.wait()
        found.append(data_lib.store(examples(), tmp_path / "a", SHAPE, key="k"))

    threads = [threading.Thread(target=prepare) for _ in range(4)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that they wait for each other
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert len(begun) == 1 and len(found) == 4
    for split in found:
        np.testing.assert_array_equal(split.bytes_at(range(23)), images)


def test_a_file_that_is_cut_while_it_is_read_is_an_error(tmp_path):
    split = stored(tmp_path / "a", *arrays())
    os.truncate(tmp_path / "a" / "images.npy", 128 + 60 * 20 + 59)
    assert split.bytes_at([19]).shape == (1, *SHAPE)
    for index in (20, 21, 22):
        with pytest.raises(OSError, match=f"ends within image {index}"):
            split.bytes_at([index])
    shutil.rmtree(tmp_path / "a")
    sent = pickle.dumps(split)
    with pytest.raises(Unavailable, match=r"^memory_budget=.*images.npy: images on disk"):
        pickle.loads(sent)
