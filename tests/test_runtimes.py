"""LiteRT and ONNX files of other makers: their forms, integers, layouts, and what is refused."""

import itertools
import sys
import warnings
import zipfile

import numpy as np
import pytest
import tensorflow as tf

import robust_tf as rt
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.saved_models import classifiers, runtimes
from robust_tf.saved_models.runtimes import Quantized
from tests.helpers import SIDE, check_one_line, rows_data, rows_of, spec
from tests.test_matching import accuracy

pytest.importorskip("ai_edge_litert", reason="no extra litert")
pytest.importorskip("onnxruntime", reason="no extra onnx")
onnx = pytest.importorskip("onnx", reason="no extra onnx")

TYPES = onnx.TensorProto
CHANNELS_LAST, CHANNELS_FIRST = (SIDE, SIDE, 1), (1, SIDE, SIDE)


def litert(path, function, *inputs, representative=None, io=None):
    """A LiteRT file of a function, with integers if there are representative images."""
    traced = tf.function(function, autograph=False).get_concrete_function(*inputs)
    module = tf.Module()
    module.traced = traced
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], module)
    if representative is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([one[np.newaxis]] for one in representative)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = io
    with runtimes.quiet():
        path.write_bytes(converter.convert())
    return path


def value(name, shape, kind=TYPES.FLOAT):
    return onnx.helper.make_tensor_value_info(name, kind, shape)


def scores_graph(shape=("n", *CHANNELS_LAST), kind=TYPES.FLOAT, classes=3, more=(), outputs=()):
    """A graph that is right on `rows_data`: the means of the first rows of [B, H, W, 1]."""
    first = shape[1] == 1
    make, nodes = onnx.helper.make_node, []
    before = "images"
    if kind != TYPES.FLOAT:
        nodes, before = [make("Cast", ["images"], ["floats"], to=TYPES.FLOAT)], "floats"
    constants = {
        "axes": np.array([1, 3] if first else [2, 3]),
        "low": np.array([0]),
        "high": np.array([classes]),
        "axis": np.array([1]),
    }
    nodes += [
        make("ReduceMean", [before, "axes"], ["rows"], keepdims=0),
        make("Slice", ["rows", "low", "high", "axis"], ["scores"]),
        *(node for node, _ in outputs),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [value("images", shape, kind), *more],
        [value("scores", (shape[0], classes)), *(one for _, one in outputs)],
        [
            onnx.numpy_helper.from_array(one.astype(np.int64), name)
            for name, one in constants.items()
        ],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    model.ir_version = 9
    return model


def stored(path, model):
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("batch", ["n", 1, 7, 60, 100])
@pytest.mark.parametrize("layout", [CHANNELS_LAST, CHANNELS_FIRST], ids=["last", "first"])
def test_onnx_files_of_any_batch_and_layout(tmp_path, batch, layout):
    path = stored(tmp_path / "m.onnx", scores_graph((batch, *layout)))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        classifier = classifiers.load(path)
    said = [str(one.message) for one in said]
    transposed = "m.onnx takes images as [B, C, H, W]: they are transposed for it"
    assert said == ([transposed] if layout == CHANNELS_FIRST else [])
    assert (classifier.image_shape, classifier.classes) == (CHANNELS_LAST, 3)
    data = rows_data()
    images = data.test.images_at(tf.range(60))
    np.testing.assert_allclose(classifier(images), rows_of(images, 3), rtol=1e-6)
    np.testing.assert_allclose(classifier(images[:4]), rows_of(images[:4], 3), rtol=1e-6)
    assert accuracy(classifier, data) == 1


@pytest.mark.parametrize(
    ("shape", "first"),
    [
        ((2, 1, 28, 28), True),
        ((2, 3, 5, 7), True),
        ((None, 3, None, None), True),
        ((2, 28, 28, 1), False),
        ((None, None, None, 3), False),
        ((2, 3, 32, 3), False),
        ((2, 4, 9, 9), False),
        ((2, None, None, None), False),
    ],
)
def test_which_axis_has_the_channels(shape, first):
    form = {"images": tf.TensorSpec(shape, tf.float32)}
    opened = runtimes.Opened(form, {}, {}, None, lambda name, images: images)
    assert opened.channels_first is first


@pytest.mark.parametrize("batch", [None, 1, 7])
def test_litert_files_of_any_batch(tmp_path, batch):
    path = litert(tmp_path / "m.tflite", lambda x: rows_of(x, 3), spec(batch=batch))
    classifier = classifiers.load(path)
    images = rows_data().test.images_at(tf.range(60))
    for count in (60, 1, 8, 60):
        found = classifier(images[:count])
        np.testing.assert_allclose(found, rows_of(images[:count], 3), rtol=1e-6)


def test_a_litert_file_with_channels_first(tmp_path):
    path = litert(
        tmp_path / "m.tflite",
        lambda images: tf.reduce_mean(images, axis=(1, 3))[:, :3],
        tf.TensorSpec([None, *CHANNELS_FIRST], tf.float32, name="images"),
    )
    with pytest.warns(UserWarning, match=r"m.tflite takes images as \[B, C, H, W\]"):
        assert accuracy(classifiers.load(path), rows_data()) == 1


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_quantised_inputs_and_outputs_by_their_scale(tmp_path, dtype):
    """Of images up to 0.9, so that the highest integer stands for less than white."""
    images = rows_data().test.images_at(tf.range(60)).numpy()
    images = (images / images.max() * 0.9).astype(np.float32)
    path = litert(
        tmp_path / "m.tflite",
        lambda x: 2 * tf.nn.relu(tf.reduce_mean(x, axis=(2, 3)))[:, :3],
        spec(),
        representative=images,
        io=tf.as_dtype(dtype),
    )
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    (scale, zero), info = taken["quantization"], np.iinfo(dtype)
    integers = np.clip(np.rint(images / scale) + zero, info.min, info.max).astype(dtype)
    interpreter.resize_tensor_input(taken["index"], integers.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(taken["index"], integers)
    interpreter.invoke()
    found = interpreter.get_tensor(given["index"]).astype(np.float64)
    expected = (found - given["quantization"][1]) * given["quantization"][0]
    classifier = classifiers.load(path, input_range=(0, 1))
    assert classifier.dtype == tf.float32
    np.testing.assert_allclose(classifier(tf.constant(images)), expected, rtol=1e-5)
    # Without a range the lowest and the highest integer are black and white.
    usual = classifiers.load(path)
    np.testing.assert_allclose(usual.input_range, (0, 0.9), atol=1e-3)
    ends = usual(tf.stack([tf.zeros(CHANNELS_LAST), tf.ones(CHANNELS_LAST)]))
    highest = (info.max - given["quantization"][1]) * given["quantization"][0]
    assert highest < 1.8  # no image of the calibration is so bright
    np.testing.assert_allclose(ends, [[0] * 3, [highest] * 3], rtol=1e-5)


@pytest.mark.parametrize(
    ("scale", "zero_point", "dtype", "ends"),
    [
        (1 / 255, 0, "uint8", (0, 1)),
        (1 / 255, -128, "int8", (0, 1)),
        (1 / 128, 128, "uint8", (-1, 127 / 128)),
        (0.5, 3, "int8", (-65.5, 62)),
    ],
)
def test_integers_stand_for_numbers(scale, zero_point, dtype, ends):
    how = Quantized(scale, zero_point, np.dtype(dtype))
    np.testing.assert_allclose(how.range, ends, rtol=1e-6)
    info = np.iinfo(dtype)
    every = np.arange(info.min, info.max + 1).astype(dtype)
    np.testing.assert_array_equal(how.integers(how.numbers(every)), every)
    np.testing.assert_allclose(how.numbers(every), (every.astype(float) - zero_point) * scale,
                               rtol=1e-6)  # fmt: skip
    values = np.linspace(*ends, 1001, dtype=np.float32)
    assert abs(how.numbers(how.integers(values)) - values).max() <= scale / 2 * 1.001
    beyond = np.array([-1e6, 1e6], np.float32)
    np.testing.assert_array_equal(how.integers(beyond), [info.min, info.max])


@pytest.mark.parametrize("name", ["uint8", "int8", "int32", "float16", "double"])
def test_inputs_of_other_numbers(tmp_path, name):
    kind = getattr(TYPES, name.upper())
    path = stored(tmp_path / "m.onnx", scores_graph(kind=kind))
    classifier = classifiers.load(path)
    images = rows_data().test.images
    expected = np.asarray(images, np.float64)
    if name in ("float16", "double"):
        expected = np.asarray(expected / 255, np.float16 if name == "float16" else np.float64)
    if name == "int8":
        expected = expected - 128
    found = classifier(rows_data().test.images_at(tf.range(60)))
    np.testing.assert_allclose(found, expected.mean(axis=(2, 3))[:, :3], rtol=1e-3, atol=1e-6)


def test_which_output_has_the_scores(tmp_path):
    make = onnx.helper.make_node
    label = (make("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
             value("label", ("n",), TYPES.INT64))  # fmt: skip
    other = make("Neg", ["scores"], ["less"]), value("less", ("n", 3))
    path = stored(tmp_path / "m.onnx", scores_graph(outputs=[label]))
    assert classifiers.load(path).output == "scores"  # the only one of that form
    path = stored(tmp_path / "m.onnx", scores_graph(outputs=[label, other]))
    with pytest.raises(InvalidArgument, match="output: expected one of less, scores"):
        classifiers.load(path)
    data = rows_data()
    assert accuracy(classifiers.load(path, output="scores"), data) == 1
    assert accuracy(classifiers.load(path, output="less"), data) == 0
    with pytest.raises(InvalidArgument, match="signature=s: expected no value with a .onnx file"):
        classifiers.load(path, signature="s")


def two_inputs(folder):
    return stored(folder / "m.onnx", scores_graph(more=[value("age", ("n", 1))]))


def no_batch(folder):
    image = tf.TensorSpec(CHANNELS_LAST, tf.float32, name="image")
    return litert(folder / "m.tflite", lambda x: tf.reduce_mean(x, axis=(1, 2))[:3], image)


def two_inputs_litert(folder):
    more = tf.TensorSpec([1, 3], tf.float32, name="more")
    return litert(folder / "m.tflite", lambda x, y: rows_of(x, 3) + y, spec(batch=1), more)


def text(folder):
    return stored(folder / "m.onnx", scores_graph(kind=TYPES.STRING))


def labels_only(folder):
    return litert(folder / "m.tflite", lambda x: tf.argmax(rows_of(x, 3), axis=1), spec())


def junk(folder):
    (folder / "m.tflite").write_bytes(np.random.default_rng(0).bytes(5000))
    return folder / "m.tflite"


def empty(folder):
    (folder / "m.onnx").touch()
    return folder / "m.onnx"


def cut(folder):
    path = litert(folder / "m.tflite", lambda x: rows_of(x, 3), spec())
    path.write_bytes(path.read_bytes()[:-500])
    return path


def cut_onnx(folder):
    path = stored(folder / "m.onnx", scores_graph())
    path.write_bytes(path.read_bytes()[:-100])
    return path


def without_weights(folder):
    """As PyTorch writes large models, without the file of weights."""
    weights = onnx.numpy_helper.from_array(np.ones(5000, np.float32), "w")
    model = scores_graph()
    model.graph.initializer.append(weights)
    model.graph.node.append(onnx.helper.make_node("Identity", ["w"], ["unused"]))
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="m.onnx.data",
              size_threshold=0)  # fmt: skip
    (folder / "m.onnx.data").unlink()
    return folder / "m.onnx"


def said_wrongly(folder):
    path = litert(folder / "m.tflite", lambda x: rows_of(x, 3), spec())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(runtimes.METADATA, '{"label_names": 3}')
    return path


def folder_of_the_name(folder):
    (folder / "m.onnx").mkdir()
    return folder / "m.onnx"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (two_inputs, "not with images: float32 [?, 6, 6, 1], age: float32 [?, 1]"),
        (two_inputs_litert, "expected a model with one input of images [B, H, W, C], floats or in"),
        (no_batch, "not with serving_default_image:0: float32 [6, 6, 1]"),
        (text, "floats or integers, not with images: string [?, 6, 6, 1]"),
        (labels_only, "output: expected a model that has one (output with float scores"),
        (junk, "expected a .tflite file that runs here (The model is not a valid Flatbuffer"),
        (empty, "expected a .onnx file that runs here"),
        (cut, "expected a .tflite file that runs here"),
        (cut_onnx, "expected a .onnx file that runs here"),
        (without_weights, "expected a .onnx file that runs here"),
        (said_wrongly, "expected a .tflite file that runs here (no metadata of an export)"),
        (folder_of_the_name, "there is no such file; expected a .onnx file"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_what_is_refused(tmp_path, make, message):
    with pytest.raises((InvalidArgument, Unavailable)) as error:
        classifiers.load(make(tmp_path))
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("m.pt", "this is a file of PyTorch; export it to ONNX by torch.onnx.export"),
        ("m.pth", "this is a file of PyTorch; export it to ONNX by torch.onnx.export"),
        ("m.tfl", "this is a file; expected the directory of a SavedModel"),
        ("none.tflite", "there is no such file; expected a .tflite file"),
        ("none.onnx", "there is no such file; expected a .onnx file"),
    ],
)
def test_paths_that_are_no_models(tmp_path, name, message):
    if not name.startswith("none"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(Unavailable) as error:
        classifiers.load(tmp_path / name)
    assert message in str(error.value)


@pytest.mark.parametrize("classes", [2, 4, 5])
def test_another_number_of_classes(tmp_path, in_process, classes):
    path = stored(tmp_path / "m.onnx", scores_graph(classes=classes))
    other = litert(tmp_path / "m.tflite", lambda x: rows_of(x, classes), spec())
    for one in (path, other):
        with pytest.raises(InvalidArgument, match=f"expected a dataset of {classes} classes"):
            classifiers.load(one).check(rows_data())
    done = in_process(
        f"--model={path}", "--data_source=sample", "--trials=1", pipeline="pipelines.evaluate"
    )
    check_one_line(done, 2, "--dataset=mnist (28, 28, 1): expected a dataset of images of shape")


def test_packages_that_are_missing(tmp_path, monkeypatch):
    path = stored(tmp_path / "m.onnx", scores_graph())
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(Unavailable, match=r"install robust_tf\[onnx\], which runs .onnx files"):
            classifiers.load(path)
    path = litert(tmp_path / "m.tflite", lambda x: rows_of(x, 3), spec())
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    assert accuracy(classifiers.load(path), rows_data()) == 1  # by TensorFlow's own
    monkeypatch.delattr(tf, "lite")
    with pytest.raises(Unavailable, match=r"install robust_tf\[litert\], which runs .tflite"):
        classifiers.load(path)


def test_what_a_file_raises_is_one_line(tmp_path):
    make = onnx.helper.make_node
    odd = make("Reshape", ["scores", "axes"], ["odd"]), value("odd", ("n", 3))
    path = stored(tmp_path / "m.onnx", scores_graph(outputs=[odd]))
    classifier = classifiers.load(path, output="odd")
    with pytest.raises(Unavailable, match="the model fails on the images") as error:
        accuracy(classifier, rows_data())
    assert "\n" not in str(error.value)


def test_weights_beside_a_file_are_of_its_fingerprint(tmp_path):
    path = stored(tmp_path / "m.onnx", scores_graph())
    found = {runtimes.fingerprint(path)}
    for content in (b"a", b"b"):
        path.with_name("m.onnx.data").write_bytes(content)
        found.add(runtimes.fingerprint(path))
    assert len(found) == 3


@pytest.mark.parametrize("activation", ["sigmoid", "linear"])
def test_one_score_of_two_classes(tmp_path, activation):
    def score(images):
        logits = 20 * (rows_of(images, 2)[:, 1:] - rows_of(images, 1))
        return tf.sigmoid(logits) if activation == "sigmoid" else logits

    path = litert(tmp_path / "m.tflite", score, spec())
    assert accuracy(classifiers.load(path), rows_data(("no", "yes"))) == 1


@pytest.mark.parametrize("dynamo", [True, False])
def test_a_pytorch_model_by_way_of_onnx(tmp_path, sample, dynamo):
    torch = pytest.importorskip("torch", reason="no extra bench")
    if dynamo:
        pytest.importorskip("onnxscript", reason="no extra bench")
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(),
        torch.nn.MaxPool2d(4), torch.nn.Flatten(), torch.nn.Linear(4 * 36, 10),
    )  # fmt: skip
    images = torch.tensor(sample.train.images_at(tf.range(500)).numpy()).permute(0, 3, 1, 2)
    labels = torch.tensor(sample.train.labels[:500].numpy())
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _, first in itertools.product(range(3), range(0, 500, 50)):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            model(images[first : first + 50]), labels[first : first + 50]
        )
        loss.backward()
        optimizer.step()
    model.eval()
    free = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)} if dynamo else {}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (images[:2],), str(tmp_path / "m.onnx"), dynamo=dynamo, **free)
    tests = torch.tensor(sample.test.images_at(tf.range(1000)).numpy()).permute(0, 3, 1, 2)
    with torch.no_grad():
        right = model(tests).argmax(1).numpy() == sample.test.labels.numpy()
    assert right.mean() > 0.5
    with pytest.warns(UserWarning, match="transposed"):
        classifier = classifiers.load(tmp_path / "m.onnx")
    assert accuracy(classifier, sample) == right.mean()
    images, labels = sample.test.images_at(range(1000)).numpy(), sample.test.labels.numpy()
    scorecard = rt.benchmark(tmp_path / "m.onnx", images, labels, trials=1)
    assert scorecard.profile["natural"].item() == right.mean()
