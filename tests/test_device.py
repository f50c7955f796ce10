"""LiteRT and ONNX files that the package makes: their answers, their bytes, what they are worth."""

import dataclasses
import json
import sys
import zipfile

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from robust_tf import models, saved_models
from robust_tf.data.classes import places
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.evaluation import Natural, measures
from robust_tf.perturbations import Mixture, Perturbation, mixtures
from robust_tf.saved_models import classifiers, conversion, matched
from robust_tf.saved_models.targets import Target, targets
from robust_tf.studies import comparison, confusions, device, robustness, sensor_map
from tests.helpers import FRUIT, SIDE, check_one_line, files, outcome, rows_data, rows_of, spec
from tests.test_matching import save

Interpreter = pytest.importorskip(
    "ai_edge_litert.interpreter", reason="no extra litert"
).Interpreter
onnxruntime = pytest.importorskip("onnxruntime", reason="no extra onnx")

FORMATS = ("litert", "onnx")
# What int8 needs to be right with a natural model; without it, that is.
FLOOR = {"deviation_floor": 0.125}
REFERENCE = Target(**FLOOR)
TARGETS = [
    REFERENCE,
    *targets(FORMATS, ("none", "dynamic", "float16")),
    *targets(FORMATS, ("int8",), **FLOOR),
    *(Target(quantize="int8", io=io, **FLOOR) for io in ("uint8", "int8")),
]
SAMPLE = ("--data_source=sample", "--test_examples=60", "--trials=1", "--eval=hot")


@pytest.fixture(scope="module")
def made(exported, sample, tmp_path_factory):
    """The files of all targets, by target."""
    folder, classifier = tmp_path_factory.mktemp("made"), classifiers.load(exported)
    calibration = device.Calibration(examples=50).images(sample.train, 0)
    found = {}
    for target in TARGETS:
        found[target] = folder / f"{target}{target.suffix}"
        conversion.convert(classifier, found[target], target, (28, 28, 1), calibration)
    return found


def images_of(data, count=60):
    return data.test.images_at(tf.range(count))


def by_hand(path, images):
    """The answers of a file, by what runs it and NumPy alone, one image after the other."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path)
        name = session.get_inputs()[0].name
        found = [session.run(None, {name: image[np.newaxis]})[0] for image in images]
        return np.concatenate(found)
    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for image in images:
        if taken["dtype"] != np.float32:
            scale, zero = taken["quantization"]
            image = (np.rint(image / scale) + zero).astype(taken["dtype"])
        interpreter.set_tensor(taken["index"], image[np.newaxis])
        interpreter.invoke()
        scores = interpreter.get_tensor(given["index"])
        if given["dtype"] != np.float32:
            scale, zero = given["quantization"]
            scores = (scores.astype(np.float32) - zero) * scale
        found.append(scores)
    return np.concatenate(found)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target.format} {target}")
def test_files_answer_as_what_runs_them_does(made, sample, target):
    images = images_of(sample)
    classifier = classifiers.load(made[target])
    assert (classifier.image_shape, classifier.classes) == ((28, 28, 1), 10)
    assert classifier.input_range == (0, 1)
    np.testing.assert_allclose(
        classifier.scores(images), by_hand(made[target], images.numpy()), atol=1e-5
    )
    one_by_one = np.concatenate([classifier.scores(images[i : i + 1]) for i in range(7)])
    np.testing.assert_allclose(one_by_one, classifier.scores(images[:7]), atol=1e-6)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target.format} {target}")
def test_files_answer_as_the_saved_model(made, exported, sample, target):
    images = images_of(sample, 300)
    origin = made[REFERENCE] if target.deviation_floor else exported
    own, other = (classifiers.load(path).scores(images) for path in (made[target], origin))
    if target.quantize == "none":
        np.testing.assert_allclose(own, other, atol=1e-5)
    else:
        np.testing.assert_allclose(own, other, atol=0.01 if target.quantize == "float16" else 0.3)
        assert (own.argmax(axis=1) == other.argmax(axis=1)).mean() > 0.95


def test_numbers_are_stored_as_asked(made):
    sizes = {target: path.stat().st_size for target, path in made.items()}
    for kind in ("litert", "onnx"):
        plain = sizes[Target(format=kind)]
        assert all(
            sizes[Target(format=kind, quantize=how)] < plain for how in ("dynamic", "float16")
        )
    for io, dtype in (("float", np.float32), ("uint8", np.uint8), ("int8", np.int8)):
        target = Target(quantize="int8", io=io, **FLOOR)
        interpreter = Interpreter(model_path=str(made[target]))
        (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
        assert taken["dtype"] == given["dtype"] == dtype
        kinds = {one["dtype"] for one in interpreter.get_tensor_details()}
        assert kinds <= {np.int8, np.int32, np.uint8, dtype}, kinds


@pytest.mark.parametrize("target", TARGETS[1:3] + TARGETS[7:9], ids=str)
def test_the_same_call_writes_the_same_bytes(made, exported, sample, tmp_path, target):
    calibration = device.Calibration(examples=50).images(sample.train, 0)
    path = tmp_path / f"again{target.suffix}"
    conversion.convert(classifiers.load(exported), path, target, (28, 28, 1), calibration)
    assert path.read_bytes() == made[target].read_bytes()
    assert classifiers.load(path).fingerprint == classifiers.load(made[target]).fingerprint


@pytest.mark.parametrize("kind", ["litert", "onnx"])
def test_a_file_says_what_its_export_says(made, exported, sample, kind):
    target = Target(format=kind)
    found = dict(classifiers.load(made[target]).metadata)
    assert found.pop("target") == {
        "format": kind, "quantize": "none", "io": "float", "deviation_floor": 0.0
    }  # fmt: skip
    assert found == saved_models.metadata(exported)
    if kind == "litert":
        with zipfile.ZipFile(made[target]) as archive:
            assert json.loads(archive.read("robust_tf.json"))["label_names"] == [*"0123456789"]


def test_classes_of_a_file_are_matched(made, sample):
    names = tuple(reversed(sample.label_names))
    data = dataclasses.replace(sample, label_names=names)
    images = images_of(sample)
    for kind in ("litert", "onnx"):
        classifier = classifiers.load(made[Target(format=kind)])
        with pytest.warns(UserWarning, match="in another order"):
            other = matched(classifier, data)
        order = places([*sample.label_names], names, argument="a", value="b", other="c")
        np.testing.assert_array_equal(other.scores(images), classifier.scores(images)[:, order])


@pytest.mark.parametrize(
    ("floor", "kind"), [(0.05, "litert"), (0.125, "onnx"), (0.5, "litert"), (1.0, "onnx")]
)
def test_a_floor_of_the_deviation(exported, sample, tmp_path, floor, kind):
    """The network by hand, with its standardisation computed in NumPy."""
    model = saved_models.load(exported)
    (layer,) = (one for one in model.layers if one.name.startswith("standardization"))
    images, mean, scale = images_of(sample).numpy(), layer.mean.numpy(), layer.scale.numpy()
    assert scale.max() > 1 / floor
    values = (images - mean) * np.minimum(scale, 1 / floor)
    rest = keras.Model(layer.output, model.output)
    expected = tf.nn.softmax(rest(values, training=False))
    target = Target(format=kind, deviation_floor=floor)
    path = tmp_path / f"m{target.suffix}"
    conversion.convert(classifiers.load(exported), path, target, (28, 28, 1))
    np.testing.assert_allclose(classifiers.load(path).scores(images), expected, atol=1e-5)


def third_party(folder, form):
    """A model that is right on `rows_data`, its path and the values it takes."""
    scores, ends = (lambda images: rows_of(images, 3)), (0, 1)
    if form == "bytes":
        return save(folder / "m", lambda images: scores(images) / 255, spec()), (0, 255)
    if form == "uint8":
        return save(folder / "m", scores, spec(dtype=tf.uint8)), (0, 255)
    if form == "fixed":
        return save(folder / "m", scores, spec(batch=7)), ends
    inputs = keras.Input((SIDE, SIDE, 1))
    dense = keras.layers.Dense(1 if form == "single.keras" else 3, use_bias=False)
    keras.Model(inputs, dense(keras.layers.Flatten()(inputs))).save(folder / form)
    model = keras.saving.load_model(folder / form)
    weights = np.zeros((SIDE, SIDE, model.output_shape[-1]))
    if form == "single.keras":
        weights[0], weights[1] = -1, 1
    else:
        weights[[0, 1, 2], :, [0, 1, 2]] = 1
    model.layers[-1].set_weights([weights.reshape(SIDE * SIDE, -1)])
    model.save(folder / form)
    return folder / form, ends


@pytest.mark.parametrize("kind", ["litert", "onnx"])
@pytest.mark.parametrize("form", ["bytes", "uint8", "fixed", "three.keras", "single.keras"])
def test_third_party_models_are_converted(tmp_path, form, kind):
    path, ends = third_party(tmp_path, form)
    data = rows_data(("no", "yes")) if form == "single.keras" else rows_data()
    classifier = classifiers.load(path, input_range=ends)
    images = images_of(data)
    expected = classifier.scores(images)
    for quantize in ("none", "int8"):
        target = Target(format=kind, quantize=quantize)
        made = tmp_path / f"{quantize}{target.suffix}"
        conversion.convert(classifier, made, target, data.image_shape, images.numpy())
        file = classifiers.load(made)
        assert file.input_range == ends  # which is in the file
        assert file.batch_size == classifier.batch_size == (7 if form == "fixed" else None)
        close = (1e-5 if quantize == "none" else 0.02) * abs(expected).max()
        np.testing.assert_allclose(file.scores(images), expected, atol=close)
        right = matched(file, data).scores(images).argmax(axis=1) == data.test.labels.numpy()
        assert right.all()


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_models_of_mixed_precision_are_converted(small, tmp_path, precision):
    model = models.build("mnist_cnn", (28, 28, 1), 10, precision=precision, standardize="none")
    names, training = small.label_names, {"strategy": "natural"}
    path = saved_models.export(model, tmp_path / "m", label_names=names, training=training)
    images = images_of(small)
    for kind in FORMATS:
        target = Target(format=kind)
        made = tmp_path / f"a{target.suffix}"
        conversion.convert(classifiers.load(path), made, target, (28, 28, 1))
        expected = classifiers.load(path).scores(images)
        np.testing.assert_allclose(classifiers.load(made).scores(images), expected, atol=0.02)


def test_metadata_without_a_network_are_enough(tmp_path):
    path = save(tmp_path / "m", lambda images: rows_of(images, 3), spec(), FRUIT)
    conversion.convert(classifiers.load(path), tmp_path / "a.onnx", Target(format="onnx"),
                       (SIDE, SIDE, 1))  # fmt: skip
    file = classifiers.load(tmp_path / "a.onnx")
    assert file.metadata["label_names"] == [*FRUIT]
    images = images_of(rows_data())
    np.testing.assert_allclose(file.scores(images), rows_of(images, 3), rtol=1e-5)


def test_what_cannot_be_converted(made, exported, tmp_path):
    path = tmp_path / "a.tflite"
    file = classifiers.load(made[Target()])
    with pytest.raises(InvalidArgument, match="expected a SavedModel's directory or a .keras file"):
        conversion.convert(file, path, Target(), (28, 28, 1))
    odd = classifiers.load(
        save(tmp_path / "m", lambda x: tf.numpy_function(np.copy, [x], tf.float32)[:, 0, :3, 0],
             spec())
    )  # fmt: skip
    for kind in ("litert", "onnx"):
        with pytest.raises(Unavailable, match=f"m: the converter to {kind} fails") as error:
            conversion.convert(odd, path, Target(format=kind), (SIDE, SIDE, 1))
        assert "\n" not in str(error.value)
    plain = classifiers.load(save(tmp_path / "n", lambda x: rows_of(x, 3), spec()))
    with pytest.raises(
        InvalidArgument, match="deviation_floor=0.1: expected 0 for a model without"
    ):
        conversion.convert(plain, path, Target(deviation_floor=0.1), (SIDE, SIDE, 1))
    assert not path.exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"format": "tflite"}, "format=tflite: expected one of litert, onnx"),
        ({"quantize": "int4"}, "quantize=int4: expected one of none, dynamic, float16, int8"),
        ({"io": "uint8"}, "io=uint8: expected float, but for int8 files of LiteRT"),
        ({"io": "int8", "format": "onnx", "quantize": "int8"}, "io=int8: expected float, but for"),
        ({"deviation_floor": 2.0}, "deviation_floor=2.0: expected a number from 0 to 1"),
        ({"deviation_floor": -0.1}, "deviation_floor=-0.1: expected a number from 0 to 1"),
    ],
)
def test_targets_that_are_not_allowed(given, message):
    with pytest.raises(InvalidArgument) as error:
        Target(**given)
    assert str(error.value).startswith(message)


def test_integers_as_inputs_are_for_some_targets():
    found = targets(FORMATS, ("none", "int8"), io="int8")
    assert [target.io for target in found] == ["float", "int8", "float", "float"]
    with pytest.raises(InvalidArgument, match="io=uint8: expected float"):
        targets(("onnx",), ("int8",), io="uint8")


def test_a_converter_that_is_missing(tmp_path, monkeypatch):
    classifier = classifiers.load(save(tmp_path / "m", lambda x: rows_of(x, 3), spec()))
    for name, target in (
        ("tf2onnx", Target(format="onnx")),
        ("onnxconverter_common", Target(format="onnx", quantize="float16")),
        ("onnx", Target(format="onnx")),
    ):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(Unavailable, match=r"install robust_tf\[onnx\], which makes such"):
                conversion.convert(classifier, tmp_path / "m.onnx", target, (SIDE, SIDE, 1))


def test_calibration_images(small, monkeypatch):
    data = small.train
    natural = device.Calibration(examples=30).images(data, 1)
    own = {image.tobytes() for image in data.images_at(tf.range(len(data))).numpy()}
    assert natural.shape == (30, 28, 28, 1) and natural.dtype == np.float32
    assert {image.tobytes() for image in natural} <= own
    np.testing.assert_array_equal(natural, device.Calibration(examples=30).images(data, 1))
    assert not np.array_equal(natural, device.Calibration(examples=30).images(data, 2))
    assert len(device.Calibration(examples=10**6).images(data, 0)) == len(data)
    asked = []  # tracing all levels of a mixture takes long
    monkeypatch.setattr(
        Mixture, "__call__", lambda self, images, seeds: asked.append(self) or images / 2
    )
    for calibrate, kinds in ((("perturbed",), "all"), (("noise", "dead"), "noise,dead")):
        found = device.Calibration(calibrate=calibrate, examples=30).images(data, 1)
        np.testing.assert_array_equal(found, natural / 2)
        assert asked.pop() == mixtures.parse(kinds, None)
    for wrong in ((), ("rain",), ("natural", "hot"), ("perturbed", "hot")):
        with pytest.raises(InvalidArgument, match="expected natural, perturbed, or some of stuck"):
            device.Calibration(calibrate=wrong)


def test_files_are_measured(made, exported, sample):
    data = dataclasses.replace(sample, test=sample.test.first(100))
    original = classifiers.load(exported)
    scores = original.scores(images_of(sample, 100))
    for target in (*TARGETS[1:6:2], *TARGETS[7:9]):
        found = device.measure(classifiers.load(made[target]), original, data)
        own = classifiers.load(made[target]).scores(images_of(sample, 100))
        assert found["bytes"] == len(made[target].read_bytes())
        assert 0 < found["milliseconds"] < 1000
        assert found["largest_difference"] == pytest.approx(abs(own - scores).max(), abs=0.03)
        assert found["equal"] == (own.argmax(axis=1) == scores.argmax(axis=1)).mean()


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_rounded_probabilities_are_no_logits(classes):
    exact = np.random.default_rng(0).dirichlet(np.full(classes, 0.5), 1000)
    found = measures.probabilities(np.rint(exact * 256) / 256)
    np.testing.assert_allclose(found, exact, atol=0.02)


def test_studies_take_files(made, sample, tmp_path):
    data = dataclasses.replace(sample, test=sample.test.first(40))
    path = made[TARGETS[-1]]
    file = classifiers.load(path)
    table = robustness.measure(file, data, [Natural()], trials=1, seed=0, progress=False)
    scores = file.scores(images_of(data, 40))
    expected = (scores.argmax(axis=1) == data.test.labels.numpy()).mean()
    assert table["accuracy"][0] == expected and set(table["strategy"]) == {"natural"}
    assert comparison.find(str(path), tmp_path) == path
    found = confusions.measure(file, data, [Perturbation("dead", 2)], trials=1, seed=0)
    assert set(found.changes["natural"]) <= set(sample.label_names)
    few = sample.test.first(2)
    positions = sensor_map.measure(file, few, "hot").predictions
    images = np.tile(few.images_at([0, 1]).numpy(), (2, 1, 1, 1))
    images[:2, 3, 4], images[2:, 27, 27] = 1, 1
    expected = file.scores(tf.constant(images)).argmax(axis=1).reshape(2, 2)
    np.testing.assert_array_equal(positions[[3, 27], [4, 27]], expected)


def test_files_are_exported_and_evaluated(in_process, exported, tmp_path):
    flags = ("--quantize=int8", "--format=litert,onnx", "--calibration_examples=50", *SAMPLE)
    flags += (f"--model={exported}", "--deviation_floor=0.125")
    done = in_process(*flags, pipeline="pipelines.export")
    assert done.returncode == 0 and "warning" not in done.stderr, outcome(done)
    (path,) = tmp_path.glob("results/export-*/files.csv")
    table = pd.read_csv(path, keep_default_na=False)
    assert list(table) == device.FILES_COLUMNS
    assert list(table["format"]) == ["saved_model", "litert", "onnx"]
    assert list(table["calibrate"]) == ["", "natural", "natural"]
    made = [path.with_name(name) for name in table["file"][1:]]
    tests = pd.read_csv(path.with_name("tests.csv"))
    assert list(tests["model"].unique()) == ["digits/1", *table["file"][1:]]
    natural = tests[tests["test_perturb"] == "none"]["mean"]
    np.testing.assert_allclose(natural, table["natural"])
    assert {one.suffix for one in path.parent.iterdir()} == {".csv", ".tflite", ".onnx"}
    assert [one.stat().st_size for one in made] == list(table["bytes"][1:])
    lines = [line for line in done.stdout.splitlines() if str(tmp_path) not in line]
    assert max(map(len, lines)) <= 100
    done = in_process(f"--model={made[0]}", *SAMPLE, pipeline="pipelines.evaluate")
    assert done.returncode == 0 and "testing" not in done.stderr, outcome(done)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("natural   "))
    assert line.split()[1] == f"{100 * float(table['natural'][1]):.2f}"
    done = in_process(*map(str, made), *SAMPLE, pipeline="pipelines.compare")
    assert "A  natural (digits-1-int8-floor-0.125.tflite)" in done.stdout, outcome(done)


def test_a_quantised_model_that_fails_is_a_warning(in_process, exported, tmp_path):
    flags = ("--quantize=int8", "--calibration_examples=50", *SAMPLE)
    done = in_process(f"--model={exported}", *flags, pipeline="pipelines.export")
    assert done.returncode == 0
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("warning"))
    assert "digits-1-int8.tflite: " in line and "--deviation_floor=0.125 may keep them" in line
    (path,) = tmp_path.glob("results/export-*/files.csv")
    table = pd.read_csv(path)
    assert table["natural_high"][1] < table["natural"][0]


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ("", 2, "--model: expected the directory of a SavedModel"),
        ("--model={exported} --format=coreml", 2, "--format=coreml: expected some of litert, onnx"),
        ("--model={exported} --quantize=4", 2, "--quantize=4: expected some of none, dynamic"),
        ("--model={exported} --io=uint8", 2, "--io=uint8: expected float, but for int8 files"),
        ("--model={exported} --calibrate=rain", 2, "--calibrate=rain: expected natural, perturbed"),
        ("--model={exported} --deviation_floor=2", 2, "--deviation_floor=2.0: expected a number"),
        ("--model={exported} --eval=", 2, "--eval=: expected at least one test"),
        ("--model={tmp_path}/a.onnx", 1, "--model={tmp_path}/a.onnx: there is no such file"),
    ],
)
def test_bad_flags(in_process, tmp_path, exported, flags, code, message):
    places = {"tmp_path": tmp_path, "exported": exported}
    own = [flag.format(**places) for flag in flags.split()]
    done = in_process(*SAMPLE, *own, pipeline="pipelines.export")
    check_one_line(done, code, message.format(**places))
    assert files(tmp_path) == []
