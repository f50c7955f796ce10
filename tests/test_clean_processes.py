"""An export is useful without us: processes of their own, with TensorFlow or less of us."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from robust_tf import data, models, saved_models
from robust_tf.perturbations import Perturbation
from robust_tf.saved_models import warmup
from robust_tf.training import Adam, Natural, Recipe, Transfer, fit
from tests.helpers import outcome


def run(*command, **kwargs) -> str:
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=300, **kwargs
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def softmax(logits) -> np.ndarray:
    exponentials = np.exp(np.float64(logits))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def requests(trained, sample, tmp_path_factory):
    """100 images in the form of each signature, saved, and what the model says of them."""
    folder = tmp_path_factory.mktemp("requests")
    images = sample.test.images_at(tf.range(100)).numpy()
    np.save(folder / "serving_default.npy", images)
    png = [tf.io.encode_png(image).numpy() for image in sample.test.images[:100]]
    np.save(folder / "encoded.npy", np.array(png))
    return folder, softmax(trained(images, training=False))


WITH_TENSORFLOW_ALONE = """
import sys
for name in ("keras", "robust_tf"):
    try:
        __import__(name)
    except ImportError:
        continue
    sys.exit(name + " can be imported")
import numpy as np, tensorflow as tf
model, folder, *signatures = sys.argv[1:]
loaded = tf.saved_model.load(model)
for signature in signatures:
    images = tf.constant(np.load(folder + "/" + signature + ".npy"))
    out = loaded.signatures[signature](images=images)
    np.savez(signature + ".npz", **{name: value.numpy() for name, value in out.items()})
"""


@pytest.fixture(scope="module")
def answers(exported, requests, without_us, tmp_path_factory):
    """The folder of what TensorFlow alone says of the images, by signature."""
    folder = tmp_path_factory.mktemp("answers")
    arguments = exported, requests[0], "serving_default", "encoded"
    run(sys.executable, "-c", WITH_TENSORFLOW_ALONE, *arguments, env=without_us, cwd=folder)
    return folder


@pytest.mark.parametrize("signature", ["serving_default", "encoded"])
def test_tensorflow_alone_gets_the_same_probabilities(requests, answers, signature):
    _, expected = requests
    out = np.load(answers / f"{signature}.npz")
    np.testing.assert_allclose(out["probabilities"], expected, rtol=0, atol=1e-6)
    assert (out["probabilities"].dtype, out["label"].dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(out["label"], expected.argmax(axis=1))


def saved_model_cli(*arguments, **kwargs) -> str:
    return run(Path(sys.executable).with_name("saved_model_cli"), *arguments, **kwargs)


def test_saved_model_cli_shows_the_signatures(exported, without_us, tmp_path):
    shown = saved_model_cli("show", "--dir", exported, "--all", env=without_us, cwd=tmp_path)
    parts = shown.split("signature_def['")
    described = {part.split("'")[0]: " ".join(part.split()) for part in parts[1:]}
    scores = "outputs['probabilities'] tensor_info: dtype: DT_FLOAT shape: (-1, 10)"
    floats = "inputs['images'] tensor_info: dtype: DT_FLOAT shape: (-1, 28, 28, 1)"
    assert floats in described["serving_default"] and scores in described["serving_default"]
    files = "inputs['images'] tensor_info: dtype: DT_STRING shape: (-1)"
    assert files in described["encoded"] and scores in described["encoded"]
    assert "DT_INT64 shape: (-1)" in described["serving_default"]
    assert "Function Name: 'features_training'" in shown


@pytest.mark.parametrize("signature", ["serving_default", "encoded"])
def test_saved_model_cli_gets_the_same_probabilities(
    exported, requests, without_us, tmp_path, signature
):
    folder, expected = requests
    saved_model_cli(
        *("run", "--dir", exported, "--tag_set", "serve", "--signature_def", signature),
        *("--inputs", f"images={folder / signature}.npy", "--outdir", tmp_path),
        env=without_us,
        cwd=tmp_path,
    )
    received = np.load(tmp_path / "probabilities.npy")
    np.testing.assert_allclose(received, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(np.load(tmp_path / "label.npy"), expected.argmax(axis=1))


def test_each_warm_up_request_can_be_replayed(exported, trained, sample):
    from tensorflow_serving.apis import prediction_log_pb2

    loaded = tf.saved_model.load(str(exported))
    path = exported / "assets.extra" / "tf_serving_warmup_requests"
    assert path.name == warmup.FILE_NAME
    replayed = {}
    for record in tf.data.TFRecordDataset(str(path)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        assert request.model_spec.name == "digits"
        signature = request.model_spec.signature_name
        inputs = {
            name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()
        }
        replayed[signature] = loaded.signatures[signature](**inputs)
    assert set(replayed) == set(loaded.signatures)
    expected = softmax(trained(sample.test.images_at([0]), training=False))
    for signature in ("serving_default", "encoded"):
        received = replayed[signature]["probabilities"]
        np.testing.assert_allclose(received, expected, rtol=0, atol=1e-6)


def export(before: str, after: str, units: str) -> None:
    """Trains and exports a natural model, or one by transfer from an export before."""
    mnist = data.load("mnist", data_source="sample", train_examples=400, test_examples=10)
    recipe = Recipe(epochs=1, batch_size=100, optimizer=Adam(learning_rate=0.001))
    if before:
        pretrained = saved_models.load(saved_models.find("pretrained", before))
        head = [int(units)]
        build = lambda: models.with_new_head(pretrained, 10, head, freeze_base=False, seed=0)  # noqa: E731
        strategy = Transfer(perturbation=Perturbation("hot", 3))
    else:
        build = lambda: models.build("mnist_cnn", (28, 28, 1), 10)  # noqa: E731
        strategy = Natural()
    started = strategy.prepare(mnist.train, build, recipe)
    fit(started)
    print(saved_models.export(started.model, after, label_names=mnist.label_names, training={}))


def test_export_transfer_export_in_three_processes(requests, without_us, forks, tmp_path):
    """Each has nothing of the one before but its directory."""
    directories = ["", *(str(tmp_path / name) for name in ("natural", "first", "second"))]
    for before, after, units in zip(directories, directories[1:], ["", "32", "16"]):
        if before:
            Path(before).rename(f"{before}-moved")
            before += "-moved"
        line = ["tests.test_clean_processes", before, after, units]
        done = forks.run(line, tmp_path, os.environ, 300)
        assert done.returncode == 0, outcome(done)
        assert Path(done.stdout.split()[-1]) == Path(after) / "1"
    folder, _ = requests
    arguments = Path(after) / "1", folder, "serving_default"
    run(sys.executable, "-c", WITH_TENSORFLOW_ALONE, *arguments, env=without_us, cwd=tmp_path)
    model = saved_models.load(Path(after) / "1")
    assert [layer.name for layer in model.layers][-3:] == ["head_1", "head_2", "logits"]
    images = np.load(folder / "serving_default.npy")
    expected = softmax(model(images, training=False))
    received = np.load(tmp_path / "serving_default.npz")["probabilities"]
    np.testing.assert_allclose(received, expected, rtol=0, atol=1e-6)


if __name__ == "__main__":
    export(*sys.argv[1:])
