"""Mixtures: each image one kind at one level, by its seed alone."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import tensorflow as tf

from robust_tf import models, results
from robust_tf.errors import InvalidArgument
from robust_tf.evaluation import Natural, evaluate
from robust_tf.perturbations import all_kinds, example_seeds, mixtures
from robust_tf.perturbations.mixtures import Mixture
from robust_tf.results import trials
from robust_tf.runs import resolve
from robust_tf.seeds import stream_seed
from robust_tf.training import Incremental, Recipe
from tests.helpers import SMALL, check_one_line, outcome

FEW = Mixture((("hot", 1, 3), ("noise", 0.02, 0.02), ("blur", 0.5, 0.5)))
BASE = np.array([3, 4], np.int32)


def seeds(count: int) -> tf.Tensor:
    return example_seeds(BASE, tf.range(count))


def test_kinds_and_levels_are_drawn_evenly_and_apart():
    kinds, levels = (part.numpy() for part in mixtures.parse("all", None).choices(seeds(20_000)))
    assert scipy.stats.chisquare(np.bincount(kinds, minlength=5)).pvalue > 1e-4
    for kind in range(5):
        counts = np.bincount(levels[kinds == kind], minlength=10)
        assert len(counts) == 10 and scipy.stats.chisquare(counts).pvalue > 1e-4
    # The level tells nothing of the kind.
    assert scipy.stats.chi2_contingency(pd.crosstab(kinds, levels)).pvalue > 1e-4


def test_each_image_is_perturbed_as_its_kind_and_level_say(sample):
    images, own = sample.train.images_at(tf.range(300)), seeds(300)
    kinds, levels = FEW.choices(own)
    found = FEW(images, own).numpy()
    for i, (kind, level) in enumerate(zip(kinds.numpy(), levels.numpy())):
        alone = FEW.variants[kind][level](images[i : i + 1], own[i : i + 1])
        np.testing.assert_array_equal(found[i], alone[0])
    changed = (found != images.numpy()).reshape(300, -1).sum(axis=1)
    hot = kinds.numpy() == 0
    assert (changed[hot] <= levels.numpy()[hot] + 1).all() and changed[hot].max() == 3


@pytest.mark.parametrize("size", [1, 7, 64])
def test_an_image_does_not_depend_on_its_batch(sample, size):
    images, own = sample.train.images_at(tf.range(64)), seeds(64)
    whole = tf.function(FEW)(images, own).numpy()
    parts = [FEW(images[i : i + size], own[i : i + size]) for i in range(0, 64, size)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_incremental_training_perturbs_so_many_of_a_batch(small):
    training = Incremental(perturbation=Mixture((("stuck", 1, 3),))).prepare(
        small.train,
        lambda: models.build("mnist_cnn", (28, 28, 1), 10),
        Recipe(epochs=2, batch_size=50),
    )
    natural = {image.tobytes() for image in small.train.images_at(tf.range(200)).numpy()}
    counts = [
        sum(image.tobytes() not in natural for image in images.numpy())
        for images, _ in training.batches
    ]
    assert counts == [3] * 4 + [48] * 4  # 5 % and 95 % of 50, rounded half up


PARSED = {
    ("hot", "5"): None,
    ("hot", None): None,
    ("hot", "2:4"): "hot=2:4",
    ("noise,hot", None): "hot=1:10,noise=0.005:0.05",
    ("stuck,hot", "1:4"): "stuck=1:4,hot=1:4",
    ("hot,blur", "blur=0.2:0.3"): "hot=1:10,blur=0.2:0.3",
    ("noise", "0.0123456789:0.05"): "noise=0.0123456789:0.05",
}


@pytest.mark.parametrize("asked", PARSED)
def test_what_a_text_asks_for(asked):
    mixture = mixtures.parse(*asked)
    assert (mixture and str(mixture)) == PARSED[asked]
    if mixture:
        assert mixtures.parse(asked[0], str(mixture)) == mixture


BAD = {
    ("hot,rain", None): "perturb=rain: expected all, or some of stuck",
    ("all", "3"): "level=3: expected a range such as 1:10",
    ("hot", "5:2"): "level=5:2: expected the lower level first",
    ("hot", "0:2"): "level=0:2: expected a whole number from 1",
    ("hot,noise", "blur=0.1:1"): "level=blur=0.1:1: expected ranges of some of hot, noise",
    ("hot", "1:x"): "level=1:x: expected a range such as 1:10",
    ("noise", "0:nan"): "level=0:nan: expected a range",
    ("hot,hot", None): "perturb=hot,hot: expected different kinds",
    ("all", "1:10"): "level=1:10: expected a number from 0 to 1",
    ("hot", "hot=1:3,hot=1:5"): "level=hot=1:3,hot=1:5: expected one range of each kind",
    ("hot,dead", "1:3,1:5"): "level=1:3,1:5: expected one range of each kind, or one for all",
}


@pytest.mark.parametrize("asked", BAD)
def test_texts_that_ask_for_nothing(asked):
    with pytest.raises(InvalidArgument, match=BAD[asked]):
        mixtures.parse(*asked)


def test_levels_that_do_not_fit_the_images(small):
    with pytest.raises(InvalidArgument, match="level=1:800: expected a whole number from 1 to 784"):
        resolve(small, strategy="constant", perturb="hot", level="1:800")
    with pytest.raises(InvalidArgument, match=r"level=1:1e\+12: expected a whole number from 1"):
        resolve(small, strategy="constant", perturb="hot", level="1:1e12")


def test_a_range_has_no_extra_pixels(small):
    with pytest.raises(InvalidArgument, match="extra_pixels=2: expected no value with a range"):
        resolve(small, strategy="constant", perturb="hot", level="1:3", extra_pixels=2)
    published = resolve(small, strategy="constant", perturb="hot", level="1:3", preset="published")
    assert str(published.perturbation) == "hot=1:3"


def test_a_mixture_is_part_of_a_runs_name(small):
    def run(**options):
        return resolve(small, strategy="constant", **options)

    names = {
        run(perturb="all").name,
        run(perturb="all", level="hot=1:3").name,
        run(perturb="hot", level="1:3").name,
        run(perturb="hot", level=3).name,
        run(perturb="hot,noise").name,
    }
    assert len(names) == 5
    assert run(perturb=",".join(all_kinds())).name == run(perturb="all").name
    assert run(perturb="all").label == "constant all"
    assert run(perturb="hot", level="3").name == run(perturb="hot", level=3).name


ALL = mixtures.parse("all", None)
CONDITIONS = {
    "all": (ALL, "all", ("all", 0.0)),
    "hot,noise": (mixtures.parse("noise,hot", None), "hot,noise", ("hot,noise", 0.0)),
    # Ranges that are not the kinds' own are another test; one kind alone is not a level of it.
    "ranges": (FEW, "hot,noise,blur", ("hot=1:3,noise=0.02:0.02,blur=0.5:0.5", 0.0)),
    "one kind": (Mixture((("hot", 1, 10),)), "hot", ("hot=1:10", 0.0)),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_mixture_is_a_test_condition(name, small):
    mixture, kind, key = CONDITIONS[name]
    assert (mixture.kind, mixture.key, mixture.random) == (kind, key, True)
    assert np.isnan(mixture.level) and mixture.split(small.test) is small.test

    def scores(images):  # which tell how bright an image is
        return tf.one_hot(tf.cast(tf.reduce_mean(images, axis=(1, 2, 3)) * 50, tf.int32), 10)

    table = evaluate(scores, small.test, [Natural(), mixture], trials=3, seed=5)
    assert table["test_perturb"].tolist() == ["none", *[key[0]] * 3]
    assert table["test_level"].isna().all()
    labels = small.test.labels.numpy()
    for trial in range(3):
        base = stream_seed(5, f"evaluation/{trial}")
        images = mixture(small.test.images_at(tf.range(100)), example_seeds(base, tf.range(100)))
        right = (tf.argmax(scores(images), axis=1) == labels).numpy().mean()
        assert table["accuracy"][trial + 1] == right
        index = tf.constant([7, 3])
        seen = mixture.images(small.test, index, 5, trial)
        np.testing.assert_array_equal(seen, tf.gather(images, index))


def test_mixtures_of_other_ranges_are_not_told_done(small, tmp_path):
    path = tmp_path / "run" / "trials.csv"
    columns = dict.fromkeys([*results.TRAINING_COLUMNS, "saved_model"], "a")
    columns |= {"strategy": "natural", "train_perturb": "none", "train_level": None, "seed": 0}
    of_test = (100, small.test.digest)

    def scores(images):
        return tf.reduce_mean(images, axis=(1, 2))

    for mixture in (ALL, FEW):
        assert not trials.is_complete(path, of_test, [mixture], columns, trials=2)
        table = trials.complete(path, scores, small.test, [mixture], columns, trials=2, seed=0)
        assert len(table) == 2 and trials.is_complete(path, of_test, [mixture], columns, trials=2)
    assert len(pd.read_csv(path)) == 4


def test_one_model_for_all_kinds(command, tmp_path):
    flags = (*SMALL, "--strategy=transfer", "--perturb=hot,blur", "--level=hot=1:2,blur=1:1")
    done = command(*flags)
    assert done.returncode == 0, outcome(done)
    (run,) = (tmp_path / "results").glob("*hot-blur*")
    row = pd.read_csv(run / "runs.csv").iloc[0]
    assert (row["train_perturb"], row["train_range"]) == ("hot,blur", "hot=1:2,blur=1:1")
    assert pd.isna(row["train_level"])
    tests = pd.read_csv(run / "trials.csv")["test_perturb"].unique()
    assert set(tests) == {"none", "stuck", "dead", "hot", "blur"}
    assert "transfer hot,blur" in done.stdout


def test_kinds_that_are_none(command):
    done = command("--data_source=sample", "--perturb=hot,rain")
    check_one_line(
        done, 2, "--perturb=rain: expected all, or some of stuck, dead, hot, noise, blur"
    )
