"""Saved models and datasets put together: classes by name, values of the input, forms of scores."""

import dataclasses
import json
import re
import unicodedata
import warnings

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from robust_tf import data as data_lib
from robust_tf.data import Data, Split
from robust_tf.data.classes import places
from robust_tf.errors import InvalidArgument
from robust_tf.evaluation import Natural
from robust_tf.perturbations import Perturbation
from robust_tf.saved_models import classifiers, matched
from robust_tf.studies import comparison, robustness, sensor_map
from tests.helpers import FRUIT, check_one_line, rows_data, rows_of, spec


def save(folder, function, inputs, label_names=None):
    """A SavedModel of a function, with the names of its classes if there are some."""
    signature = tf.function(lambda images: {"scores": function(images)}, autograph=False)
    signatures = {"serving_default": signature.get_concrete_function(inputs)}
    tf.saved_model.save(tf.Module(), str(folder), signatures=signatures)
    if label_names is not None:
        (folder / "assets.extra").mkdir()
        metadata = {"label_names": list(label_names), "training": {}}
        (folder / "assets.extra" / "metadata.json").write_text(json.dumps(metadata))
    return folder


@pytest.fixture(scope="module")
def fruit_model(tmp_path_factory):
    """A model that is right on every image of `rows_data`, and names its classes."""
    folder = tmp_path_factory.mktemp("models") / "fruit"
    return save(folder, lambda images: rows_of(images, 3), spec(), FRUIT)


def accuracy(classifier, data) -> float:
    table = robustness.measure(classifier, data, [Natural()], trials=1, seed=0, progress=False)
    return table["accuracy"].item()


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)], ids=str)
def test_classes_in_another_order_are_matched_by_name(fruit_model, order, tmp_path):
    names = [FRUIT[order.index(place)] for place in range(3)]
    data = rows_data(names, order=order)
    classifier = classifiers.load(fruit_model)
    with pytest.warns(UserWarning, match="fruit has the classes of fruit in another order, apple"):
        assert accuracy(classifier, data) == 1
    with pytest.warns(UserWarning, match=f"instead of {', '.join(names)}: matched by name"):
        own = matched(classifier, data)
    assert own.identity != classifier.identity
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert matched(own, data) is own
        by_place = classifiers.load(fruit_model, same_classes=True)
        assert accuracy(by_place, data) == np.mean(np.equal(order, range(3)))


def test_studies_measure_matched_classes(fruit_model, tmp_path):
    data = rows_data(["cherry", "apple", "banana"], order=[1, 2, 0])
    classifier = classifiers.load(fruit_model)
    options = {"output_dir": tmp_path, "progress": False}
    with pytest.warns(UserWarning, match="another order"):
        _, trials = robustness.write(classifier, data, [Natural()], trials=1, seed=0, **options)
        _, positions, summary = sensor_map.write(classifier, data, "dead", **options)
        other = classifiers.load(fruit_model, input_range=(0.0, 2.0))
        dead = Perturbation("dead", 1)
        _, found = comparison.write(
            [classifier, dataclasses.replace(other, name="other")], data, [Natural(), dead],
            baseline=0, trials=1, seed=0, **options,
        )  # fmt: skip
    assert (trials["accuracy"] == 1).all() and (summary["natural_accuracy"] == 1).all()
    assert (positions["accuracy"] == 1).all()
    assert (found.tests["accuracy"] == 1).all() and (found.tests["unanswered"] == 0).all()


@pytest.mark.parametrize(
    "names",
    [
        ("car", "bus", "tram"),
        ("Apple", "Banana", "Cherry"),
        ("apple", "banana", "plum"),
        ("1", "2", "3"),
        ("a\nb", "x" * 300, "日本語"),
    ],
    ids=["other", "capitals", "one", "from one", "long"],
)
def test_other_classes_are_refused_unless_they_mean_the_same(fruit_model, names):
    data = rows_data(names)
    with pytest.raises(
        InvalidArgument, match="^dataset=fruit .*: expected the classes of"
    ) as error:
        accuracy(classifiers.load(fruit_model), data)
    message = str(error.value)
    assert "apple, banana, cherry; or --same_classes" in message
    assert "\n" not in message and len(message) < 250
    assert accuracy(classifiers.load(fruit_model, same_classes=True), data) == 1


def test_numbers_name_no_classes(fruit_model, tmp_path):
    with pytest.warns(UserWarning, match=r"of fruit \(0, 1, 2\) are taken in order"):
        assert accuracy(classifiers.load(fruit_model), rows_data("012")) == 1
    numbers = save(tmp_path / "m", lambda images: rows_of(images, 3), spec(), "012")
    with pytest.warns(UserWarning, match=r"model m \(0, 1, 2\) and of fruit \(apple"):
        assert accuracy(classifiers.load(numbers), rows_data()) == 1
    with pytest.warns(UserWarning, match="in another order"):  # of names that are numbers
        assert accuracy(classifiers.load(numbers), rows_data("120", order=[2, 0, 1])) == 1


LONG = tuple(f"a{place}" for place in range(10))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((*LONG[:8], "a9", "a8"), "(class 8 is a8 instead of a9)"),
        (LONG[:9], "(10 instead of 9)"),
        ((*LONG[:9], "b"), "(class 9 is a9 instead of b)"),
        (("a0", "a1", "a2", "a3", "x", *LONG[5:]), "(class 4 is a4 instead of x)"),
        (("a0", "a1", "a2", "a3 ", *LONG[4:]), "(class 3 is 'a3' instead of 'a3 ')"),
    ],
)
def test_lists_that_begin_alike_are_told_apart(names, said):
    chosen = {"argument": "dataset", "value": "d", "other": "model m"}
    if sorted(names) == sorted(LONG):
        with pytest.warns(UserWarning, match=re.escape(said)):
            assert places(LONG, names, **chosen) == [*range(8), 9, 8]
    else:
        with pytest.raises(InvalidArgument, match=re.escape(said)):
            places(LONG, names, **chosen)


def test_long_names_that_begin_alike_are_told_apart():
    ends = ("y" * 40 + "A", "y" * 40 + "B")
    with pytest.raises(InvalidArgument, match="class 0 is …yyyyA instead of …yyyyB"):
        places(ends[:1], ends[1:], argument="dataset", value="d", other="model m")


@pytest.mark.parametrize("name", ["caf\u00e9", "\u00fcber", "\uac00", "\u00c5"])
def test_accents_are_one_however_unicode_writes_them(name):
    split = unicodedata.normalize("NFD", name)
    assert split != name
    chosen = {"argument": "dataset", "value": "d", "other": "model m"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert places(["a", name], ["a", split], **chosen) is None
    with pytest.warns(UserWarning, match="another order"):
        assert places(["a", name], [split, "a"], **chosen) == [1, 0]


def store(folder, name: str, names, data: Data) -> None:
    """Prepares a TFDS dataset of the images of another."""
    images, labels = data.test.images.numpy(), data.test.labels.numpy()
    examples = tf.data.Dataset.from_tensor_slices({"image": images, "label": labels})
    tfds.dataset_builders.store_as_tfds_dataset(
        name,
        version="1.0.0",
        data_dir=folder,
        split_datasets={"train": examples, "test": examples},
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=images.shape[1:]),
                "label": tfds.features.ClassLabel(names=names),
            }
        ),
    )


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Datasets of the same images: with the classes in two orders, others, and without labels."""
    folder = tmp_path_factory.mktemp("tfds")
    store(folder, "fruit_a", FRUIT, rows_data())
    swapped = ["cherry", "apple", "banana"]
    store(folder, "fruit_b", swapped, rows_data(swapped, order=[1, 2, 0]))
    store(folder, "cars", ["car", "bus", "tram"], rows_data())
    store(folder, "unknown", FRUIT, rows_data(order=[-1, -1, -1]))
    store(folder, "numbers", ["0", "1", "2"], rows_data())
    store(folder, "fruit_a_corrupted", ["0", "1", "2"], rows_data())
    store(folder, "pair", ["no", "yes"], rows_data(["no", "yes"]))
    return str(folder)


def test_other_test_images_get_the_labels_of_the_dataset(stored):
    like = data_lib.load("fruit_a", data_dir=stored)

    def right(split: Split) -> bool:
        rows = rows_of(split.images, 3).numpy().argmax(axis=1)
        return bool((rows == split.labels.numpy()).all())

    assert right(data_lib.load_test("fruit_a", like, data_dir=stored))
    with pytest.warns(UserWarning, match="the dataset fruit_a has the classes of fruit_b in anoth"):
        assert right(data_lib.load_test("fruit_b", like, data_dir=stored))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        split = data_lib.load_test("fruit_b", like, data_dir=stored, same_classes=True)
        assert not right(split)
        assert right(data_lib.load_test("cars", like, data_dir=stored, same_classes=True))
        assert right(data_lib.load_test("fruit_a_corrupted", like, data_dir=stored))
    for name, of in (("numbers", like), ("fruit_a", data_lib.load("numbers", data_dir=stored))):
        with pytest.warns(UserWarning, match="are taken in order: one has numbers for names"):
            assert right(data_lib.load_test(name, of, data_dir=stored))
    with pytest.raises(InvalidArgument, match=r"^eval=cars \(car, bus, tram\): expected the class"):
        data_lib.load_test("cars", like, data_dir=stored)
    with pytest.raises(
        InvalidArgument, match=r"^eval=unknown: expected labels from 0 to 2, not -1"
    ):
        data_lib.load_test("unknown", like, data_dir=stored)


def test_the_command_compares_classes(stored, fruit_model, in_process):
    flags = (f"--model={fruit_model}", f"--data_dir={stored}", "--trials=1", "--eval=dead")
    done = in_process(*flags, "--dataset=cars", pipeline="pipelines.evaluate")
    check_one_line(done, 2, "--dataset=cars (car, bus, tram): expected the classes of model fruit")
    done = in_process(*flags, "--dataset=unknown", pipeline="pipelines.evaluate")
    check_one_line(done, 2, "expected labels from 0 to 2, not -1 as 60 have of 60")
    asked = "--eval=hot,tfds:fruit_b,tfds:pair"
    done = in_process(*flags, "--dataset=fruit_a", asked, pipeline="pipelines.evaluate")
    assert done.returncode == 2 and "in another order" in done.stderr
    line = f"error: {asked} with pair (2, (6, 6, 1)): expected a dataset of 3 classes"
    assert done.stderr.splitlines()[-1].startswith(line), done.stderr
    done = in_process(
        *flags, "--dataset=cars", "--same_classes", "--eval=tfds:fruit_a",
        pipeline="pipelines.evaluate",
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr.count("warning") == 0, done.stderr
    assert len(re.findall(r"(?<!, )100\.00", done.stdout)) == 2  # but as the end of an interval


@pytest.mark.parametrize("label", [-1, 3, 255])
@pytest.mark.parametrize("part", ["train", "test"])
def test_labels_that_are_no_class_are_refused_when_they_are_read(part, label):
    good = rows_data()
    bad = Split.of_arrays(good.test.images.numpy(), np.where(np.arange(60) < 7, label, 1))

    class Source:
        def load(self, dataset, memory):
            return dataclasses.replace(good, **{part: bad})

    with pytest.raises(InvalidArgument, match=f"0 to 2, not {label} as 7 have of 60$"):
        data_lib.load("fruit", data_source=Source())
