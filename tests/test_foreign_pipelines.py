"""Perturbations of other libraries in tables and on command lines, and what is refused."""

import importlib.metadata
import json
import math
import sys

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from robust_tf.data import Data, Split
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.evaluation import Evaluator, Natural, foreign, libraries
from robust_tf.perturbations import Perturbation
from robust_tf.results import trials as trials_lib
from tests.foreign_cases import (
    INVERTED,
    MOVED,
    NOISE,
    RAIN,
    composed,
    module,
    perturber,
)
from tests.foreign_cases import photos as photos
from tests.foreign_cases import written as written
from tests.helpers import check_one_line


def test_an_edited_file_is_measured_again(trained, small, written, tmp_path):
    module("albumentations")
    path = tmp_path / "run" / "trials.csv"
    columns = dict.fromkeys(("run", "dataset", "data_source", "model", "saved_model"), "a")
    columns |= {"strategy": "natural", "train_perturb": "none", "train_level": None, "seed": 0}

    def measured(std_range) -> tuple[int, str]:
        asked = written("noise.json", NOISE | {"std_range": std_range})
        conditions = [Natural(), *foreign.load(asked, small), Perturbation("hot", 2)]
        passes = len(pd.read_csv(path)) if path.exists() else 0
        table = trials_lib.complete(
            path, trained, small.test, conditions, columns, trials=2, seed=0
        )
        assert table["test_perturb"].tolist() == [
            "none",
            *["albumentations:noise.json"] * 2,
            *["hot"] * 2,
        ]
        return len(pd.read_csv(path)) - passes, table["test_digest"][1]

    new, first = measured([0.1, 0.3])
    assert new == 5 and first != small.test.digest
    assert measured([0.1, 0.3]) == (0, first)
    new, second = measured([0.1, 0.4])
    assert new == 2 and second != first
    # How a file is laid out is no matter.
    (condition,) = foreign.load(written("noise.json", NOISE), small)
    text = (tmp_path / "noise.json").read_text()
    (tmp_path / "noise.json").write_text(json.dumps(json.loads(text), indent=4, sort_keys=True))
    assert foreign.load(f"albumentations:{tmp_path / 'noise.json'}", small) == (condition,)


@pytest.mark.parametrize(
    ("name", "text", "error", "message"),
    [
        ("a.json", '{"transform":', InvalidArgument, "in the form of json"),
        ("a.yaml", "a: [1\nb: {", InvalidArgument, "in the form of yaml"),
        ("a.json", "[1]", InvalidArgument, "a configuration of albumentations"),
        ("a.json", "{}", InvalidArgument, "KeyError: 'transform'"),
        (
            "a.json",
            '{"transform": {"__class_fullname__": "Rein", "p": 1}}',
            InvalidArgument,
            "'Rein'",
        ),
        (
            "a.json",
            '{"transform": {"__class_fullname__": "GaussNoise", "p": 1, "std_range": [3, 1]}}',
            InvalidArgument,
            "std_range",
        ),
        (
            "a.yml",
            "transform: {__class_fullname__: Resize, p: 1, height: 9, width: 7}",
            InvalidArgument,
            r"returns uint8 images \[32, 32, 3\], not uint8 \[9, 7, 3\]",
        ),
        (
            "a.yaml",
            "transform: {__class_fullname__: ToFloat, p: 1}",
            InvalidArgument,
            r"not float32 \[32, 32, 3\]",
        ),
        (
            "a.yaml",
            "transform: {__class_fullname__: RandomCrop, p: 1, height: 99, width: 99}",
            InvalidArgument,
            "images that the library takes",
        ),
        ("a.txt", "{}", InvalidArgument, "a file that ends in .json or .yaml or .yml"),
        ("a.yaml", None, Unavailable, "it cannot be read"),
    ],
)
def test_files_that_are_no_configuration(photos, tmp_path, name, text, error, message):
    module("albumentations")
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(error, match=message) as caught:
        foreign.load(f"albumentations:{tmp_path / name}", photos)
    assert str(caught.value).startswith(f"eval=albumentations:{tmp_path / name}: ")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_names_and_images_that_do_not_fit(photos, small, tmp_path):
    module("imagecorruptions")
    for name in ("fogg", "fog_0", "fog_6", "fog_", ""):
        with pytest.raises(
            InvalidArgument, match=f"eval=imagecorruptions:{name}: expected some of"
        ):
            foreign.load(f"imagecorruptions:{name}", photos)
    with pytest.raises(InvalidArgument, match="eval=imagecorruptions:fog: .*at least 32 pixels"):
        foreign.load("imagecorruptions:fog", small)
    (fog,) = foreign.load("imagecorruptions:fog_1", photos)
    with pytest.raises(InvalidArgument, match=r"imagecorruptions:fog: expected images of shape"):
        Evaluator(tf.identity, small.test).accuracy(fog)
    two = Split.of_arrays(np.zeros((1, 32, 32, 2), np.uint8), np.zeros(1))
    with pytest.raises(InvalidArgument, match="1 or 3 channels, not 2"):
        foreign.load("imagecorruptions:fog", Data("two", "tfds", two, two, ("a",)))
    with pytest.raises(InvalidArgument, match="a library of nrtk, albumentations"):
        foreign.load("kornia:fog", photos)


def test_configurations_of_nrtk_that_are_none(photos, written):
    module("nrtk")
    wrong = {
        "photometric.noise.NoNoisePerturber": {},
        "photometric.blur.AverageBlurPerturber": {"ksize": -3},
        "photometric.noise.SaltNoisePerturber": {"size": 3},
    }
    for kind, settings in wrong.items():
        asked = written("a.json", perturber(kind, **settings), "nrtk")
        with pytest.raises(
            InvalidArgument, match="a.json: expected a configuration of nrtk"
        ) as caught:
            foreign.load(asked, photos)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("library", "hidden"),
    [
        ("albumentations", "albumentations"),
        ("imagecorruptions", "imagecorruptions"),
        ("nrtk", "nrtk.interfaces"),
        ("nrtk", "smqtk_core.configuration"),
    ],
)
def test_a_library_that_is_not_installed(photos, monkeypatch, library, hidden):
    monkeypatch.setitem(sys.modules, hidden, None)
    with pytest.raises(
        Unavailable, match=rf"eval={library}:x: .*pip install robust_tf\[{library}\]"
    ):
        foreign.load(f"{library}:x", photos)


def test_what_does_not_follow_its_seed_is_refused(photos, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "1")
    free = np.random.default_rng()
    shift = {1.0: lambda image, _: image + free.integers(0, 9, dtype=np.uint8)}
    monkeypatch.setitem(libraries.LIBRARIES, "free", lambda name: (name, name, shift))
    with pytest.raises(InvalidArgument, match="eval=free:x: expected a perturbation that follows"):
        foreign.load("free:x", photos)


def test_what_fails_later_is_an_error_of_one_line(photos, monkeypatch):
    """For one image of the test set, and not for that which it was tried with."""
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "1")

    def fails(image, seed):
        if seed > 31:
            raise RuntimeError("no such\nimage")
        return image

    def shrinks(image, seed):
        return image[1:] if seed > 31 else image

    for perturb, message in (
        (fails, "RuntimeError: no such image"),
        (shrinks, r"not uint8 \[31, 32, 3\]"),
    ):
        found = "x", "x", {math.nan: perturb}
        monkeypatch.setitem(libraries.LIBRARIES, "late", lambda _, found=found: found)
        (condition,) = foreign.load("late:x", photos)
        evaluator = Evaluator(lambda images: images[:, 0, 0], photos.test)
        for _ in range(2):
            with pytest.raises(InvalidArgument, match=f"eval=late:x: .*{message}") as caught:
                evaluator.accuracy(condition)
            assert "\n" not in str(caught.value)
        assert evaluator.accuracy(Natural()) >= 0


def test_the_pipelines_have_them_in_the_same_tables(in_process, exported, other, written, tmp_path):
    module("albumentations")
    module("nrtk")
    asked = ",".join(
        [
            written("rain.yaml", composed(RAIN, MOVED)),
            written(
                "blur.json", perturber("photometric.blur.AverageBlurPerturber", ksize=3), "nrtk"
            ),
        ]
    )
    flags = ["--data_source=sample", "--test_examples=60", "--trials=2"]
    tests = ["none", "hot", "hot", *["albumentations:rain.yaml"] * 2, "nrtk:blur.json"]
    model = f"--model={exported}"
    done = in_process(model, *flags, f"--eval={asked}", pipeline="pipelines.evaluate")
    assert done.returncode == 0, done.stderr
    assert "albumentations:rain.yaml" in done.stdout and "nrtk:blur.json" in done.stdout
    (folder,) = (tmp_path / "results").glob("digits*")
    table = pd.read_csv(folder / "trials.csv")
    assert table["test_perturb"].tolist() == [test for test in tests if test != "hot"]
    assert table["n_examples"].eq(60).all() and table["test_digest"].nunique() == 3

    done = in_process(
        str(exported), str(other), *flags, f"--eval={asked}", pipeline="pipelines.compare"
    )
    assert done.returncode == 0, done.stderr
    (compared,) = (tmp_path / "results").glob("comparison*")
    found = pd.read_csv(compared / "tests.csv").set_index(["model", "test_perturb"])["accuracy"]
    means = table.groupby("test_perturb")["accuracy"].mean()
    for kind in means.index:
        assert found[f"{exported.parent.name}/{exported.name}", kind] == pytest.approx(
            means[kind], abs=1e-12
        )

    done = in_process(model, *flags, f"--eval=hot,{asked}", pipeline="pipelines.confusions")
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "results").glob("digits*confusions*")
    changes = pd.read_csv(folder / "changes.csv")
    sums = changes.groupby(["test_perturb", "test_level"], dropna=False)["images"].sum()
    assert set(changes["test_perturb"]) == set(tests) - {"none"} and sums.round(9).eq(60).all()
    assert "albumentations:rain.yaml" in done.stdout.partition("for the first time")[2]


def test_bad_names_on_a_command_line(in_process, exported, written, tmp_path):
    module("albumentations")
    flags = [f"--model={exported}", "--data_source=sample", "--test_examples=60"]
    first = written("a.json", NOISE)
    (tmp_path / "other").mkdir()
    second = written("other/a.json", INVERTED)
    for asked, code, message in (
        (f"{first},{second}", 2, f"--eval={second}: expected files of different names"),
        ("albumentations:none.json", 1, "--eval=albumentations:none.json: it cannot be read"),
        (
            "kornia:rain",
            2,
            "--eval=kornia:rain: expected auto, all, corrupted, tfds:NAME, npy:FOLDER",
        ),
    ):
        done = in_process(*flags, f"--eval={asked}", pipeline="pipelines.evaluate")
        check_one_line(done, code, message)
    done = in_process("--strategy=constant", f"--perturb={first}", "--data_source=sample")
    check_one_line(done, 2, f"--perturb={first}")
    from pipelines.shared_flags import Tests
    from robust_tf.data import load

    digits = load("mnist", data_source="sample", test_examples=5)
    assert (
        len(Tests(eval=(first, f"albumentations:{tmp_path}/./a.json")).of_other_libraries(digits))
        == 1
    )
