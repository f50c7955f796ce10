import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from robust_tf import models, saved_models
from robust_tf.errors import Unavailable
from robust_tf.strategies import Settings, natural
from robust_tf.training import fit


@pytest.fixture(scope="module")
def model(sample):
    """Trained for an epoch, so that no weight is as it was made."""
    training = natural(
        sample.train,
        lambda: models.build("mnist_cnn", (28, 28, 1), 10),
        Settings(epochs=1, batch_size=400),
    )
    fit(training, learning_rate=0.01, beta_1=0.5)
    return training.model


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    return saved_models.export(model, tmp_path_factory.mktemp("saved") / "run")


CLEAN_PROCESS = """
import sys
for name in ("keras", "robust_tf"):
    sys.modules[name] = None  # an import of either fails
import numpy as np, tensorflow as tf
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
out = serve(images=tf.constant(np.load(sys.argv[2])))
np.savez(sys.argv[3], **{name: value.numpy() for name, value in out.items()})
"""


def test_a_clean_process_gets_the_same_probabilities(model, exported, sample, tmp_path):
    images = sample.test.images_at(tf.range(100)).numpy()
    np.save(tmp_path / "in.npy", images)
    paths = [str(exported), str(tmp_path / "in.npy"), str(tmp_path / "out.npz")]
    subprocess.run([sys.executable, "-c", CLEAN_PROCESS, *paths], check=True, timeout=300)
    out = np.load(tmp_path / "out.npz")
    logits = model(images, training=False).numpy().astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(out["probabilities"], expected, atol=1e-6)
    assert out["probabilities"].dtype == np.float32
    np.testing.assert_array_equal(out["label"], logits.argmax(axis=1))
    assert out["label"].dtype == np.int64


def test_the_signature_is_as_documented(exported):
    signature = tf.saved_model.load(str(exported)).signatures["serving_default"]
    (images,) = signature.structured_input_signature[1].values()
    assert (images.name, images.dtype, images.shape.as_list()) == (
        "images",
        tf.float32,
        [None, 28, 28, 1],
    )
    assert signature.structured_outputs["probabilities"].shape.as_list() == [None, 10]
    assert signature.structured_outputs["label"].shape.as_list() == [None]


def test_it_reloads_as_the_same_keras_model(model, exported, sample):
    images = sample.test.images_at(tf.range(50))
    again = saved_models.load(exported)
    assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]
    np.testing.assert_array_equal(again(images, training=False), model(images, training=False))


def test_versions_grow_and_nothing_is_overwritten(model, tmp_path):
    assert saved_models.versions(tmp_path / "run") == []
    first = saved_models.export(model, tmp_path / "run")
    before = (first / "saved_model.pb").read_bytes()
    shutil.copytree(first, tmp_path / "run" / "9")
    (tmp_path / "run" / "notes").mkdir()
    assert saved_models.export(model, tmp_path / "run").name == "10"
    assert saved_models.versions(tmp_path / "run") == [1, 9, 10]
    assert (first / "saved_model.pb").read_bytes() == before


def test_a_failed_export_leaves_nothing(model, tmp_path, monkeypatch):
    def fail(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(model), "to_json", fail)
    with pytest.raises(OSError, match="No space left"):
        saved_models.export(model, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def damage_weights(folder):
    path = next((folder / "variables").glob("*.data*"))
    path.write_bytes(path.read_bytes()[:100])


def damage_architecture(folder):
    (folder / "assets.extra" / "model.json").write_text("{")


def damage_to_other_network(folder):
    path = folder / "assets.extra" / "model.json"
    text = path.read_text().replace('"units": 10', '"units": 11')
    assert json.loads(text)
    path.write_text(text)


def damage_everything(folder):
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    "damage",
    [damage_weights, damage_architecture, damage_to_other_network, damage_everything],
)
def test_a_damaged_or_foreign_folder_gives_one_line(exported, tmp_path, damage):
    folder = tmp_path / "1"
    shutil.copytree(exported, folder)
    damage(folder)
    with pytest.raises(Unavailable) as caught:
        saved_models.load(folder)
    assert str(caught.value).startswith(f"saved_model={folder}: expected a SavedModel")
    assert "\n" not in str(caught.value)
