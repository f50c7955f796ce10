"""Perturbed images on disk: what is written, and that models see the same when it is read back."""

import dataclasses
import json
import math
import shutil
import warnings

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from pipelines import shared_flags
from robust_tf import data as data_lib
from robust_tf.data import Data, Split
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.evaluation import Evaluator, InBits, Recorded, recordings
from robust_tf.perturbations import Perturbation
from robust_tf.saved_models import classifiers
from tests.helpers import check_one_line, rows_data

HOT, NOISE = Perturbation("hot", 2), Perturbation("noise", 0.05)
CONDITIONS = [HOT, Perturbation("hot", 5), NOISE, Perturbation("blur", 0.75)]


def coloured(count=30, names=("cat", "dog/wolf", "bird")) -> Data:
    """Random colours, with classes that are no names of folders."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (count, 7, 9, 3), np.uint8)
    split = Split.of_arrays(images, rng.integers(0, len(names), count))
    return Data("colours", "tfds", split, split, tuple(names))


def seen(data: Data, condition: Perturbation, seed: int, trial: int) -> np.ndarray:
    """The images of a trial, of the evaluator itself, rounded by NumPy."""

    def flat(images):
        return tf.reshape(images, [-1, math.prod(data.image_shape)])

    scores = Evaluator(flat, data.test, seed).scores(condition, trial)
    return np.round(scores * 255).astype(np.uint8).reshape(-1, *data.image_shape)


@pytest.mark.parametrize("trial", [0, 3])
@pytest.mark.parametrize(
    "condition", [HOT, Perturbation("stuck", 9), NOISE, CONDITIONS[-1]], ids=str
)
def test_bytes_are_those_that_a_trial_sees(condition, trial):
    for data in (coloured(), rows_data()):
        written = recordings.perturbed(data, condition, seed=5, trial=trial)
        assert written.dtype == np.uint8
        np.testing.assert_array_equal(written, seen(data, condition, 5, trial))


def test_arrays_have_the_layout_of_cifar_10_c(tmp_path):
    data = coloured()
    folder = recordings.write(data, CONDITIONS, tmp_path / "c", seed=1, trial=2, progress=False)
    hot, labels = np.load(folder / "hot.npy"), np.load(folder / "labels.npy")
    assert hot.shape == (60, 7, 9, 3) and hot.dtype == labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, np.tile(data.test.labels, 2))
    for level, part in ((2, hot[:30]), (5, hot[30:])):
        expected = recordings.perturbed(data, Perturbation("hot", level), seed=1, trial=2)
        np.testing.assert_array_equal(part, expected)
    assert np.load(folder / "blur.npy").shape == (30, 7, 9, 3)
    told = json.loads((folder / "perturbed.json").read_text())
    assert (told["seed"], told["trial"], told["bits"]) == (1, 2, 8)
    assert told["versions"]["tensorflow"] == tf.__version__
    first = told["tests"][0]
    assert (first["kind"], first["level"], first["unit"]) == ("hot", 2, "number of pixels")
    assert first["definition"].startswith("Sets distinct random pixels to 1 in all channels")
    assert first["digest"] == Split.of_arrays(hot[:30], data.test.labels.numpy()).digest


def test_folders_of_png_are_read_by_keras(tmp_path):
    data = coloured()
    folder = recordings.write(data, CONDITIONS, tmp_path / "p", form="png", progress=False)
    read = keras.utils.image_dataset_from_directory(
        folder / "noise" / "0.05", image_size=(7, 9), batch_size=None, shuffle=False
    )
    assert read.class_names == ["bird", "cat", "dog-wolf"]
    images = np.stack([image for image, _ in read])
    labels = np.array([label for _, label in read])
    order = np.argsort([[1, 2, 0][one] for one in data.test.labels], kind="stable")
    np.testing.assert_array_equal(images, recordings.perturbed(data, NOISE)[order])
    np.testing.assert_array_equal(labels, np.take([1, 2, 0], data.test.labels.numpy())[order])


@pytest.mark.parametrize("form", ["npy", "png"])
def test_what_is_read_back_is_what_was_written(form, tmp_path):
    data = coloured()
    folder = recordings.write(data, CONDITIONS, tmp_path / "x", form=form, seed=3, progress=False)
    moved = shutil.move(folder, tmp_path / "elsewhere")
    found = data_lib.load_files(f"{form}:{moved}", data)
    assert [(kind, level) for kind, level, _ in found] == [
        (f"{form}:elsewhere/{one.kind}", one.level) for one in CONDITIONS
    ]
    for (_, _, split), condition in zip(found, CONDITIONS):
        np.testing.assert_array_equal(split.images, recordings.perturbed(data, condition, seed=3))
        np.testing.assert_array_equal(split.labels, data.test.labels)
    (_, _, some), *_ = data_lib.load_files(f"{form}:{moved}", data, test_examples=4)
    assert len(some) == 4 and some.digest == found[0][2].digest
    # Classes in another order are matched by name.
    other = dataclasses.replace(data, label_names=("bird", "cat", "dog/wolf"))
    with pytest.warns(UserWarning, match="in another order"):
        (_, _, split), *_ = data_lib.load_files(f"{form}:{moved}", other)
    np.testing.assert_array_equal(split.labels, np.take([1, 2, 0], data.test.labels.numpy()))


def test_a_dataset_of_tfds_is_read_back_in_order(tmp_path):
    data = coloured()
    folder = recordings.write(data, CONDITIONS, tmp_path, form="tfds", progress=False)
    assert folder == tmp_path / "colours_perturbed"
    for condition in CONDITIONS:
        name = f"colours_perturbed/{condition.kind}_{condition.level:g}"
        split = data_lib.load_test(name, data, data_dir=str(tmp_path))
        np.testing.assert_array_equal(split.images, recordings.perturbed(data, condition))
        np.testing.assert_array_equal(split.labels, data.test.labels)
    with pytest.raises(Unavailable, match="output_dir=.*: expected a new folder"):
        recordings.write(data, CONDITIONS, tmp_path, form="tfds", progress=False)


@pytest.mark.parametrize("trial", [0, 1])
def test_scores_are_those_of_eight_bits_to_the_last_bit(trained, small, tmp_path, trial):
    conditions = [Perturbation("stuck", 3), NOISE, Perturbation("noise", 0.2), CONDITIONS[-1]]
    folder = recordings.write(
        small, conditions, tmp_path / "c", seed=4, trial=trial, progress=False
    )
    evaluator = Evaluator(trained, small.test, seed=4)
    for one, condition in zip(data_lib.load_files(f"npy:{folder}", small), conditions):
        read = evaluator.scores(Recorded(*one))
        np.testing.assert_array_equal(read, evaluator.scores(InBits(condition, 8), trial))
        assert (read != evaluator.scores(condition, trial)).any()


def test_arrays_of_others_are_read(tmp_path):
    data = rows_data(count=12, names=("0", "1", "2"))
    images, labels = data.test.images.numpy(), data.test.labels.numpy()
    np.save(tmp_path / "labels.npy", np.tile(labels, 5))
    np.save(tmp_path / "fog.npy", np.concatenate([images // level for level in range(1, 6)]))
    np.save(tmp_path / "frost.npy", np.concatenate([images[..., 0]] * 5))  # without channels
    found = data_lib.load_files(f"npy:{tmp_path}", data)
    name = f"npy:{tmp_path.name}"
    assert [one[:2] for one in found] == [
        (f"{name}/{kind}", level) for kind in ("fog", "frost") for level in (1, 2, 3, 4, 5)
    ]
    np.testing.assert_array_equal(found[2][2].images, images // 3)
    np.testing.assert_array_equal(found[7][2].images, images)
    # Labels that do not repeat are of one test.
    np.save(tmp_path / "labels.npy", np.append(np.tile(labels, 5)[:-1], 0))
    (_, level, split), _ = data_lib.load_files(f"npy:{tmp_path}", data)
    assert math.isnan(level) and len(split) == 60


def _damage(folder, what: str) -> None:
    if what == "a changed image":
        stacked = np.load(folder / "hot.npy")
        stacked[3, 0, 0] ^= 1
        np.save(folder / "hot.npy", stacked)
    elif what == "a cut file":
        (folder / "hot.npy").write_bytes((folder / "hot.npy").read_bytes()[:200])
    elif what == "a lost file":
        (folder / "hot.npy").unlink()
    elif what in ("an empty file", "a text"):
        (folder / "hot.npy").write_text("text" * (what == "a text"))
    elif what == "cut labels":
        (folder / "labels.npy").write_bytes((folder / "labels.npy").read_bytes()[:150])
    elif what == "lost labels":
        (folder / "labels.npy").unlink()
    else:
        text = {"a list": "[]", "nothing": "{}"}.get(what, "{")
        (folder / "perturbed.json").write_text(text)


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        ("a changed image", "hot 2 is not as it was written"),
        ("a cut file", "hot.npy is no whole file of an array"),
        ("an empty file", "hot.npy is no whole file of an array"),
        ("a text", "hot.npy is no whole file of an array"),
        ("cut labels", "labels.npy is no whole file of an array"),
        ("a lost file", "hot.npy: No such file"),
        ("lost labels", "labels.npy: No such file"),
        ("a damaged manifest", "Expecting"),
        ("a list", "perturbed.json is not as it was written"),
        ("nothing", "perturbed.json is not as it was written"),
    ],
)
def test_what_is_damaged_is_said_in_one_line(what, problem, tmp_path):
    data = coloured()
    folder = recordings.write(data, [HOT], tmp_path / "c", progress=False)
    _damage(folder, what)
    with pytest.raises(Unavailable, match=problem) as error:
        data_lib.load_files(f"npy:{folder}", data)
    assert "\n" not in str(error.value)


def test_a_lost_png_is_said_in_one_line(tmp_path):
    data = coloured()
    folder = recordings.write(data, [HOT], tmp_path / "c", form="png", progress=False)
    lost = sorted(folder.rglob("*.png"))[4]
    other = tf.io.encode_png(np.zeros([2, 2, 3], np.uint8)).numpy()
    for damage, problem in (
        (lambda: lost.write_bytes(b""), "is no PNG of this size"),
        (lambda: lost.write_bytes(other), "is no PNG of this size"),
        (lost.unlink, "No such file"),
    ):
        damage()
        with pytest.raises(Unavailable, match=f"{lost.name}.*{problem}"):
            data_lib.load_files(f"png:{folder}", data)


def test_another_number_of_images_is_said(tmp_path):
    data = coloured()
    few = dataclasses.replace(data, test=data.test.first(3))
    for form in ("npy", "png"):
        folder = recordings.write(few, [HOT], tmp_path / form, form=form, progress=False)
        with pytest.warns(UserWarning, match=f"{form} has 3 test images, natural images .* are of"):
            data_lib.load_files(f"{form}:{folder}", data)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            data_lib.load_files(f"{form}:{folder}", few)


@pytest.mark.parametrize(("bits", "said"), [(4, True), (16, True), (8, False), (None, False)])
def test_bits_of_recorded_images_are_those_of_their_files(tmp_path, bits, said):
    data = coloured()
    folder = recordings.write(data, [HOT], tmp_path / "c", progress=False)
    tests = shared_flags.Tests(eval=(f"npy:{folder}",), bits=bits)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tests.other_images(data, None, None)
    assert [str(one.message) for one in caught] == [
        f"--bits={bits}: it is not for npy:c/hot and the like, whose images have 8 bits"
    ] * said


def test_what_cannot_be_read_or_written(tmp_path):
    data = coloured()
    folder = recordings.write(data, [HOT], tmp_path / "c", progress=False)
    with pytest.raises(InvalidArgument, match=r"eval=png:.*: expected npy:.*, which it is"):
        data_lib.load_files(f"png:{folder}", data)
    with pytest.raises(InvalidArgument, match="expected 3 classes and images .6, 6, 1."):
        data_lib.load_files(f"npy:{folder}", rows_data())
    with pytest.raises(InvalidArgument, match="expected the classes of the dataset colours"):
        data_lib.load_files(f"npy:{folder}", coloured(names=("a", "b", "c")))
    for form in ("npy", "png"):
        with pytest.raises(Unavailable, match="expected a folder that pipelines.corrupt"):
            data_lib.load_files(f"{form}:{tmp_path}/nowhere", data)
    with pytest.raises(Unavailable, match="expected a new folder, but it is there already"):
        recordings.write(data, [HOT], folder, progress=False)
    with pytest.raises(InvalidArgument, match="level=64: expected"):
        recordings.write(data, [Perturbation("dead", 64)], tmp_path / "d", progress=False)
    wide = Split.of_arrays(np.zeros([2, 4, 4, 5], np.uint8), np.zeros(2, np.int64))
    many = Data("wide", "tfds", wide, wide, ("a",))
    with pytest.raises(InvalidArgument, match="format=png: expected npy or tfds for images of 5"):
        recordings.write(many, [HOT], tmp_path / "d", form="png", progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c"]


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    made = iter([recordings.perturbed(coloured(), HOT)])
    monkeypatch.setattr(recordings, "perturbed", lambda *_, **__: next(made))
    with pytest.raises(RuntimeError):
        recordings.write(coloured(), CONDITIONS, tmp_path / "c", progress=False)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("names", [("a b", "a-b", "c"), ("A", "a", "b"), ("", "!", "c")])
def test_classes_have_folders_of_their_own(names):
    folders = recordings.folders_of(names)
    assert len({folder.casefold() for folder in folders}) == 3 and all(folders)


def test_folders_of_one_name_are_refused(tmp_path):
    data = coloured()
    for parent in ("a", "b"):
        recordings.write(data, [HOT], tmp_path / parent / "c", progress=False)
    tests = shared_flags.Tests(eval=(f"npy:{tmp_path}/a/c", f"npy:{tmp_path}/b/c"))
    with pytest.raises(InvalidArgument, match="expected folders of different names"):
        tests.other_images(data, None, None)


FLAGS = ("--data_source=sample", "--test_examples=60")


def test_the_command_writes_what_evaluate_reads(in_process, exported, tmp_path):
    flags = [*FLAGS, "--kinds=noise,stuck", "--levels=noise=0.1,0.2,stuck=3", "--seed=2"]
    for form in ("npy", "png", "tfds"):
        folder = tmp_path / form
        where = [f"--format={form}", f"--output_dir={folder}"]
        dry = in_process(*flags, *where, "--dry_run", pipeline="pipelines.corrupt")
        assert dry.returncode == 0 and not folder.exists(), dry.stderr
        assert "noise 0.2    60 images, 47,040 bytes" in dry.stdout
        assert "3 tests of 60 test images of mnist (sample), 141,120 bytes" in dry.stdout
        done = in_process(*flags, *where, pipeline="pipelines.corrupt")
        assert done.returncode == 0, done.stderr
    names = ["stuck_3", "noise_0.1", "noise_0.2"]
    asked = [f"npy:{tmp_path}/npy", f"png:{tmp_path}/png"]
    asked += [f"tfds:mnist_perturbed/{name}" for name in names]
    model = [f"--model={exported}", *FLAGS, "--trials=1", f"--data_dir={tmp_path}/tfds"]
    done = in_process(*model, f"--eval={','.join(asked)}", pipeline="pipelines.evaluate")
    assert done.returncode == 0, done.stderr
    (table,) = (tmp_path / "results").rglob("trials.csv")
    rows = pd.read_csv(table).set_index("test_perturb")["accuracy"]
    assert list(rows.index) == [
        *["none", *(f"mnist_perturbed/{name}" for name in names)],
        *["npy:npy/stuck", *["npy:npy/noise"] * 2],
        *["png:png/stuck", *["png:png/noise"] * 2],
    ]
    accuracies = rows.to_numpy()[1:].reshape(3, 3)
    split = data_lib.load("mnist", data_source="sample", test_examples=60).test
    evaluator = Evaluator(classifiers.load(exported), split, 2)
    expected = [
        evaluator.accuracy(InBits(Perturbation(kind, level)))
        for kind, level in (("stuck", 3), ("noise", 0.1), ("noise", 0.2))
    ]
    for found in accuracies:
        assert found.tolist() == expected


def test_rows_with_and_without_bits_do_not_mix(in_process, exported, tmp_path):
    flags = [f"--model={exported}", *FLAGS, "--trials=2", "--eval=noise"]
    for more in ([], ["--bits=8"], ["--bits=1"]):
        done = in_process(*flags, *more, pipeline="pipelines.evaluate")
        assert done.returncode == 0, done.stderr
        assert ("8-bit noise 0.05" in done.stdout) == ("--bits=8" in more)
    (table,) = (tmp_path / "results").rglob("trials.csv")
    rows = pd.read_csv(table)
    counts = rows.groupby("test_perturb").size().to_dict()
    assert counts == {"none": 1, "noise": 6, "8-bit noise": 6, "1-bit noise": 6}


@pytest.mark.parametrize(
    ("flags", "code", "line"),
    [
        (["--levels=hot=2"], 2, "--levels=hot=2: expected levels of stuck"),
        (["--levels=2,many"], 2, "--levels=2,many: expected numbers such as 1,2 or hot=1,2"),
        (["--levels=0"], 2, "--levels=0: expected a whole number from 1 on"),
        (["--levels=785"], 2, "--levels=785: expected a whole number from 1 to 784"),
        (["--kinds=rain"], 2, "--kinds=rain: expected some of all, stuck, dead, hot"),
        (["--format=jpeg"], 2, "--format=jpeg: expected one of npy, png, tfds"),
        (["--kinds="], 2, "--kinds=: expected some of all, stuck"),
        (["--trial=-1"], 2, "--trial=-1: expected a whole number from 0 on"),
        (["--output_dir=/proc/nothing"], 1, "--output_dir=/proc/nothing: "),
    ],
)
def test_flags_that_are_not_allowed(in_process, flags, code, line):
    done = in_process(*FLAGS, "--kinds=stuck", *flags, pipeline="pipelines.corrupt")
    check_one_line(done, code, line)


def test_bits_out_of_range(in_process, exported):
    done = in_process(f"--model={exported}", "--bits=0", pipeline="pipelines.evaluate")
    check_one_line(done, 2, "--bits=0: expected a whole number from 1 to 16")
