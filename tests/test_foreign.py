"""Perturbations of other libraries as tests, against the libraries called by hand."""

import functools
import importlib.metadata
import math
import random
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf

from robust_tf.data import Data, Split
from robust_tf.errors import InvalidArgument
from robust_tf.evaluation import Evaluator, Natural, evaluate, foreign, libraries
from robust_tf.evaluation import evaluator as evaluator_lib
from tests.foreign_cases import (
    INVERTED,
    MOVED,
    NOISE,
    RAIN,
    by_hand,
    composed,
    factory,
    images_of,
    module,
    perturber,
)
from tests.foreign_cases import photos as photos
from tests.foreign_cases import written as written

# By file, and whether the seed matters.
TRANSFORMS = {
    "noise.json": (NOISE, True),
    "rain.yaml": (composed(RAIN, MOVED), True),
    "one.yml": (composed(NOISE, MOVED, INVERTED, by="OneOf"), True),
    "wave.json": (composed({"__class_fullname__": "ElasticTransform", "p": 0.7}), True),
    "inverted.yaml": (composed(INVERTED), False),
}
# The names that work with NumPy 2 as imagecorruptions has them, and whether the seed matters.
AS_THEY_ARE = {
    "gaussian_noise": True, "shot_noise": True, "motion_blur": True, "snow": True, "frost": True,
    "elastic_transform": True, "speckle_noise": True, "spatter": True, "defocus_blur": False,
    "zoom_blur": False, "brightness": False, "contrast": False, "pixelate": False,
    "jpeg_compression": False, "saturate": False,
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSFORMS)
def test_albumentations_are_those_of_the_library(photos, written, name):
    library = module("albumentations")
    config, varies = TRANSFORMS[name]
    asked = written(name, config)
    (condition,) = foreign.load(asked, photos)
    assert (condition.kind, condition.random) == (f"albumentations:{name}", varies)
    assert math.isnan(condition.level) and str(condition) == condition.kind
    form = "json" if name.endswith("json") else "yaml"
    transform = library.load(asked.partition(":")[2], data_format=form)

    def perturb(image, seed):
        transform.set_random_seed(seed)
        return transform(image=image)["image"]

    index = [4, 0, 29, 7]
    expected = by_hand(photos, index, perturb)
    np.testing.assert_array_equal(images_of(condition, photos, index), expected)
    assert (expected != photos.test.images.numpy()[index]).any()


@pytest.mark.parametrize("name", AS_THEY_ARE)
def test_imagecorruptions_are_those_of_the_library(photos, name):
    library = module("imagecorruptions")
    (condition,) = foreign.load(f"imagecorruptions:{name}_4", photos)
    assert (condition.kind, condition.level) == (f"imagecorruptions:{name}", 4.0)
    assert condition.random == AS_THEY_ARE[name]

    def perturb(image, seed):
        np.random.seed(seed)  # noqa: NPY002  (all that the library knows)
        return library.corrupt(image, severity=4, corruption_name=name)

    index = [11, 2]
    expected = by_hand(photos, index, perturb)
    np.testing.assert_array_equal(images_of(condition, photos, index), expected)


def test_imagecorruptions_that_need_older_packages_do_what_they_say(photos):
    module("imagecorruptions")
    natural = photos.test.images.numpy()[:8].astype(float)
    sigmas = (1, 2, 3, 4, 6)
    gaussian = module("skimage.filters").gaussian
    for condition, sigma in zip(foreign.load("imagecorruptions:gaussian_blur", photos), sigmas):
        expected = [np.clip(gaussian(one / 255, sigma, channel_axis=-1), 0, 1) for one in natural]
        found = images_of(condition, photos, range(8))
        np.testing.assert_array_equal(found, np.uint8(np.array(expected) * 255))
        assert not condition.random
    amounts = (0.03, 0.06, 0.09, 0.17, 0.27)
    for condition, amount in zip(foreign.load("imagecorruptions:impulse_noise", photos), amounts):
        found = images_of(condition, photos, range(30))
        share = np.isin(found, (0, 255)).mean()
        assert abs(share - amount) < 5 * np.sqrt(amount / found.size)
        assert condition.random
    by_level = [
        images_of(one, photos, range(8)) for one in foreign.load("imagecorruptions:fog", photos)
    ]
    contrast = [np.mean([image.std() for image in images]) for images in by_level]
    assert len(by_level) == 5 and len(set(contrast)) == 5
    (glass,) = foreign.load("imagecorruptions:glass_blur_1", photos)
    # Pixels change places with their neighbours between two blurs: the mean stays, nearly.
    means = images_of(glass, photos, range(8)).mean((1, 2)) - natural.mean((1, 2))
    assert glass.random and 0 < np.abs(means).max() < 8


def test_nrtk_is_that_of_the_library(photos, written):
    noise = module("nrtk.impls.perturb_image.photometric.noise")
    blur = module("nrtk.impls.perturb_image.photometric.blur")
    index = [1, 20, 3]
    one = written("one.json", perturber("photometric.noise.SaltNoisePerturber", amount=0.2), "nrtk")
    (condition,) = foreign.load(one, photos)
    expected = by_hand(
        photos, index, lambda image, n: noise.SaltNoisePerturber(amount=0.2, seed=n)(image=image)[0]
    )
    np.testing.assert_array_equal(images_of(condition, photos, index), expected)
    assert condition.random and condition.kind == "nrtk:one.json"

    fixed = written(
        "fixed.json", perturber("photometric.blur.AverageBlurPerturber", ksize=5), "nrtk"
    )
    (condition,) = foreign.load(fixed, photos)
    expected = by_hand(
        photos, index, lambda image, _: blur.AverageBlurPerturber(ksize=5)(image=image)[0]
    )
    np.testing.assert_array_equal(images_of(condition, photos, index), expected)
    assert not condition.random

    # The second random part of a composition has the next seed, so that the two are independent.
    parts = [
        perturber("photometric.noise.GaussianNoisePerturber", var=0.01, seed=7),
        perturber("photometric.blur.MedianBlurPerturber", ksize=3),
        perturber("photometric.noise.PepperNoisePerturber", amount=0.1),
    ]
    several = written("several.json", perturber("ComposePerturber", perturbers=parts), "nrtk")
    (condition,) = foreign.load(several, photos)

    def perturb(image, seed):
        image, _ = noise.GaussianNoisePerturber(var=0.01, seed=seed)(image=image)
        image, _ = blur.MedianBlurPerturber(ksize=3)(image=image)
        return noise.PepperNoisePerturber(amount=0.1, seed=seed + 1)(image=image)[0]

    expected = by_hand(photos, index, perturb)
    np.testing.assert_array_equal(images_of(condition, photos, index), expected)


def test_a_factory_of_nrtk_has_a_test_per_value(photos, written):
    noise = module("nrtk.impls.perturb_image.photometric.noise")
    kind = "nrtk.impls.perturb_image.photometric.noise.GaussianNoisePerturber"
    settings = {"perturber": kind, "theta_key": "var", "start": 0.01, "stop": 0.05, "num": 3}
    config = factory("PerturberLinspaceFactory", **settings)
    # The second is a file of NRTK's command line.
    for name, whole in (("a.json", config), ("b.json", {"PerturberFactory": config})):
        conditions = foreign.load(written(name, whole, "nrtk"), photos)
        assert [str(one) for one in conditions] == [
            f"nrtk:{name} 0.01", f"nrtk:{name} 0.03", f"nrtk:{name} 0.05",
        ]  # fmt: skip
        for condition in conditions:
            made = functools.partial(noise.GaussianNoisePerturber, var=condition.level)
            expected = by_hand(
                photos, [5], lambda image, n, made=made: made(seed=n)(image=image)[0]
            )
            np.testing.assert_array_equal(images_of(condition, photos, [5]), expected)
        assert len({one.digest("x") for one in conditions}) == 3
    for stop in (0.1, 0.05):
        steps = {"perturber": kind, "theta_key": "var", "start": 0.1, "stop": stop, "step": 0.1}
        with pytest.raises(InvalidArgument, match="expected a factory with a step at least"):
            foreign.load(
                written("d.json", factory("PerturberStepFactory", **steps), "nrtk"), photos
            )
    two = {"theta_keys": ["mean", "var"], "thetas": [[0.0, 0.1], [0.01, 0.02, 0.03]]}
    many = factory("PerturberMultivariateFactory", perturber=kind, **two)
    conditions = foreign.load(written("c.json", many, "nrtk"), photos)
    assert [one.level for one in conditions] == [1, 2, 3, 4, 5, 6]
    expected = by_hand(
        photos, [5], lambda image, n: made(mean=0.1, var=0.02, seed=n)(image=image)[0]
    )
    np.testing.assert_array_equal(images_of(conditions[4], photos, [5]), expected)


def test_an_image_depends_on_seed_trial_and_index_only(photos, written):
    module("albumentations")
    (condition,) = foreign.load(written("noise.json", NOISE), photos)
    all_images = images_of(condition, photos, range(30))
    for index in ([17], [29, 3, 17], range(10, 20)):
        np.testing.assert_array_equal(images_of(condition, photos, index), all_images[[*index]])
    for other in ({"trial": 1}, {"seed": 4}):
        assert (
            (images_of(condition, photos, range(30), **other) != all_images)
            .any(axis=(1, 2, 3))
            .all()
        )
    seeds = foreign.image_seeds(3, 2, range(1000))
    assert len(set(seeds)) == 1000 and seeds.min() >= 0 and seeds.max() < 2**31


@pytest.mark.parametrize("size", [1, 4, 7, 1000])
def test_a_graph_sees_the_same_images_whatever_its_batches(photos, monkeypatch, size):
    module("imagecorruptions")
    (condition,) = foreign.load("imagecorruptions:elastic_transform_2", photos)  # by global seeds
    all_images = images_of(condition, photos, range(30))
    monkeypatch.setattr(evaluator_lib, "batch_size", lambda _: size)
    seen = []

    def model(images):
        scores = tf.numpy_function(
            lambda batch: seen.append(batch) or batch[:, 0, 0], [images], tf.float32
        )
        return tf.ensure_shape(scores, [None, 3])

    Evaluator(model, photos.test, seed=3).scores(condition, 2)
    found = np.rint(np.concatenate(seen) * 255)  # batches that run at the same time, in any order
    assert sorted(map(bytes, found.astype(np.uint8))) == sorted(map(bytes, all_images))


def test_the_generators_of_the_process_stay_as_they_are(photos, written):
    module("imagecorruptions")
    (snow,) = foreign.load("imagecorruptions:snow_1", photos)

    def drawn() -> tuple[float, float]:
        return random.random(), np.random.rand()  # noqa: NPY002

    drawn()
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    expected = drawn()
    random.setstate(before[0])
    np.random.set_state(before[1])  # noqa: NPY002
    images_of(snow, photos, range(3))
    assert drawn() == expected


def test_accuracies_counted_by_hand(photos, written):
    library = module("albumentations")
    module("imagecorruptions")
    names = [
        written("noise.json", NOISE),
        written("inverted.json", INVERTED),
        "imagecorruptions:fog_2",
    ]
    conditions = [condition for name in names for condition in foreign.load(name, photos)]

    def brightest(images):
        """The channel that is the brightest in the middle."""
        return tf.reduce_mean(images[:, 8:24, 8:24], axis=(1, 2))

    table = evaluate(brightest, photos.test, [Natural(), *conditions], trials=3, seed=9)
    assert table["trial"].tolist() == [0, 0, 1, 2, 0, 0, 1, 2]
    transform = library.from_dict({"transform": NOISE})
    labels = photos.test.labels.numpy()
    answers = []
    for trial in range(3):
        right = []
        for i, seed in enumerate(foreign.image_seeds(9, trial, range(30))):
            transform.set_random_seed(int(seed))
            image = transform(image=photos.test.images[i].numpy())["image"]
            right.append(image[8:24, 8:24].mean((0, 1)).argmax() == labels[i])
        answers.append(np.array(right))
    rows = table[table["test_perturb"] == "albumentations:noise.json"]
    assert rows["accuracy"].tolist() == [one.mean() for one in answers]
    changed = [np.mean(one != other) for one, other in zip(answers, answers[1:])]
    assert rows["changed"].tolist()[1:] == changed
    natural, inverted = (photos.test.images.numpy(), 255 - photos.test.images.numpy())
    for kind, images in (("none", natural), ("albumentations:inverted.json", inverted)):
        expected = (images[:, 8:24, 8:24].mean((1, 2)).argmax(1) == labels).mean()
        assert table.set_index("test_perturb").loc[kind, "accuracy"] == expected


def test_grey_images_are_the_first_of_three_channels(small, written):
    library = module("albumentations")
    (condition,) = foreign.load(written("noise.json", NOISE), small)
    transform = library.from_dict({"transform": NOISE})

    def perturb(image, seed):
        transform.set_random_seed(seed)
        return transform(image=np.repeat(image, 3, axis=-1))["image"][..., :1]

    expected = by_hand(small, [8, 1], perturb)
    np.testing.assert_array_equal(images_of(condition, small, [8, 1]), expected)


def test_bytes_come_and_go_by_the_divisor_of_the_dataset(photos, written):
    module("albumentations")
    asked = written("inverted.json", INVERTED)
    split = Split(photos.test.images, photos.test.labels, divisor=256)
    of_256 = Data("photos", "tfds", split, split, photos.label_names)
    (condition,) = foreign.load(asked, of_256)
    np.testing.assert_array_equal(
        images_of(condition, of_256, [3]), 255 - split.images.numpy()[[3]]
    )


def test_batches_at_the_same_time_have_their_own_draws(photos, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "1")

    def slow(image, _):
        time.sleep(0.001)  # another thread goes on
        return image ^ np.uint8(np.random.randint(256))  # noqa: NPY002

    monkeypatch.setitem(libraries.LIBRARIES, "slow", lambda name: (name, name, {1.0: slow}))
    (condition,) = foreign.load("slow:x", photos)
    images = photos.test.images.numpy()
    expected = condition.of_arrays(images, np.arange(30))
    with ThreadPoolExecutor(5) as threads:
        parts = threads.map(condition.of_arrays, np.split(images, 10), np.split(np.arange(30), 10))
        np.testing.assert_array_equal(np.concatenate(list(parts)), expected)
