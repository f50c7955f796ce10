import json
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import robust_tf
from robust_tf import models, results, saved_models
from robust_tf.errors import Unavailable
from robust_tf.perturbations import Perturbation
from robust_tf.saved_models import classifiers, warmup
from robust_tf.training import Adam, Recipe, Transfer, fit

TRAINING = {"strategy": "constant", "level": 2, "freeze_base": None}


def export(model, directory):
    return saved_models.export(model, directory, label_names="0123456789", training=TRAINING)


def test_it_reloads_as_the_same_keras_model(trained, exported, sample):
    images = sample.test.images_at(tf.range(50))
    again = saved_models.load(exported)
    assert [layer.name for layer in again.layers] == [layer.name for layer in trained.layers]
    np.testing.assert_array_equal(again(images, training=False), trained(images, training=False))


@pytest.mark.parametrize("mirror", [False, True])
def test_an_export_holds_the_batch_norm_of_keras(tmp_path, mirror):
    model = models.build("mnist_cnn", (28, 28, 1), 10, mirror=mirror)
    folder = export(model, tmp_path / "run")
    described = json.loads((folder / "assets.extra" / "model.json").read_text())["config"]["layers"]
    ours = {layer["class_name"] for layer in described if layer["registered_name"]}
    assert ours == {"Standardization", *(["WithMirrored", "MeanOfMirrored"] if mirror else [])}
    loaded = saved_models.load(folder)
    assert type(loaded.get_layer("batch_norm_1")) is keras.layers.BatchNormalization
    # What is exported stays as it is, and what is trained further has ours again.
    again = models.with_new_head(loaded, 10, [8])
    for trainable in (model, again):
        assert type(trainable.get_layer("batch_norm_1")) is models.BatchNormalization


@pytest.mark.parametrize("freeze_base", [False, True])
def test_transfer_from_an_export_is_transfer_from_its_model(trained, exported, small, freeze_base):
    """To the last bit, whichever batch norm the pretrained model has."""
    ends = []
    for pretrained in (trained, saved_models.load(exported)):
        model = transferred(pretrained, small.train, freeze_base=freeze_base)
        ends.append([np.array(weight) for weight in model.weights])
    for from_model, from_export in zip(*ends, strict=True):
        np.testing.assert_array_equal(from_model, from_export)


def transferred(pretrained, split, **options):
    """After two epochs on images with hot pixels, under a new head."""
    strategy = Transfer(perturbation=Perturbation("hot", 3), head_units=(32,), **options)
    recipe = Recipe(epochs=2, batch_size=50, optimizer=Adam(learning_rate=0.001, beta_1=0.5))
    training = strategy.prepare(
        split, lambda: models.with_new_head(pretrained, 10, [32], seed=1, **options), recipe
    )
    fit(training)
    return training.model


@pytest.fixture
def early() -> tuple[Path, np.ndarray, dict[str, np.ndarray]]:
    """An export of an earlier version, images, and what that version made of them."""
    folder = Path(__file__).parent / "data"
    with np.load(folder / "early_export.npz") as stored:
        answers = dict(stored)
    return folder / "early_export" / "1", answers["images"] / np.float32(255), answers


def test_an_export_of_an_earlier_version_loads(early):
    folder, images, answers = early
    model = saved_models.load(folder)
    assert type(model.get_layer("batch_norm_1")) is models.BatchNormalization
    logits = model(images, training=False)
    np.testing.assert_allclose(tf.nn.softmax(logits), answers["probabilities"], atol=1e-5)
    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    answer = serve(images=tf.constant(images))["probabilities"]
    np.testing.assert_allclose(answer, answers["probabilities"], atol=1e-5)


def test_transfer_from_an_export_of_an_earlier_version(early, small):
    folder, images, answers = early
    model = transferred(saved_models.load(folder), small.train)
    found = tf.nn.softmax(model(images, training=False))
    np.testing.assert_allclose(found, answers["transferred"], atol=1e-4)
    assert np.abs(found - answers["probabilities"]).max() > 0.1


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_a_model_of_mixed_precision_answers_in_float32(sample, tmp_path, precision):
    model = models.build("mnist_cnn", (28, 28, 1), 10, precision=precision)
    folder = export(model, tmp_path / "mixed")
    images = sample.test.images_at(tf.range(20))
    signatures = tf.saved_model.load(str(folder)).signatures
    answer = signatures["serving_default"](images=images)
    assert answer["probabilities"].dtype == tf.float32
    assert signatures["features"](images=images)["features"].dtype == tf.float32
    again = saved_models.load(folder)
    assert models.precision_of(again) == precision
    logits = again(images, training=False)
    assert logits.dtype == tf.float32
    np.testing.assert_allclose(answer["probabilities"], tf.nn.softmax(logits), atol=1e-2)


def test_it_says_what_it_is(trained, tmp_path):
    folder = export(trained, tmp_path / "run")
    assert saved_models.metadata(folder) == {
        "label_names": list("0123456789"),
        "input": {"dtype": "float32", "shape": [None, 28, 28, 1], "range": [0, 1]},
        "encoded": {"formats": ["PNG", "JPEG", "GIF", "BMP"], "max_pixels": 25_000_000},
        "training": TRAINING,
        "versions": {
            "robust_tf": robust_tf.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
    }


def test_the_example_is_an_image(exported, sample):
    png = (exported / saved_models.EXAMPLE).read_bytes()
    np.testing.assert_array_equal(tf.io.decode_png(png), sample.test.images[0])


def test_robustness_figures_go_with_the_model(trained, tmp_path):
    folder = export(trained, tmp_path / "run")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    columns = {name: None for name in results.TRIAL_COLUMNS}
    rows = [
        {**columns, "test_perturb": "hot", "test_level": 2, "accuracy": accuracy}
        for accuracy in (0.5, 0.7)
    ]
    saved_models.add_robustness(folder, results.summarize(pd.DataFrame(rows)))
    (row,) = pd.read_csv(folder / "assets.extra" / "robustness.csv").to_dict("records")
    assert (row["test_perturb"], row["test_level"], row["n_trials"]) == ("hot", 2, 2)
    assert row["mean"] == pytest.approx(0.6)
    assert all(path.read_bytes() == content for path, content in before.items())


def test_without_the_serving_package_there_is_no_warm_up_file(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    folder = export(trained, tmp_path / "run")
    assert sorted(path.name for path in (folder / "assets.extra").iterdir()) == [
        "checksums.json", "example.png", "metadata.json", "model.json",
    ]  # fmt: skip
    monkeypatch.undo()
    assert (export(trained, tmp_path / "run") / "assets.extra" / warmup.FILE_NAME).exists()


def test_versions_grow_and_nothing_is_overwritten(trained, tmp_path):
    assert saved_models.versions(tmp_path / "run") == []
    first = export(trained, tmp_path / "run")
    before = (first / "saved_model.pb").read_bytes()
    shutil.copytree(first, tmp_path / "run" / "9")
    (tmp_path / "run" / "notes").mkdir()
    assert export(trained, tmp_path / "run").name == "10"
    assert saved_models.versions(tmp_path / "run") == [1, 9, 10]
    assert (first / "saved_model.pb").read_bytes() == before


def test_a_failed_export_leaves_nothing(trained, tmp_path, monkeypatch):
    def fail(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(trained), "to_json", fail)
    with pytest.raises(OSError, match="No space left"):
        export(trained, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_model_is_found_with_and_without_its_version(trained, tmp_path):
    first, second = export(trained, tmp_path / "run"), export(trained, tmp_path / "run")
    assert saved_models.find("model", tmp_path / "run") == second
    assert saved_models.find("model", f"{tmp_path}/run/") == second
    assert saved_models.find("model", first) == first
    (tmp_path / "empty").mkdir()
    for name in ("model.h5", "a.hdf5", "notes.txt", "saved_model"):
        (tmp_path / name).write_text("")
    directory = "expected the directory of a SavedModel, with or without its version"
    for missing, problem in (
        ("empty", directory),
        ("none", f"there is no such folder; {directory}"),
        ("none.h5", f"there is no such folder; {directory}"),
        (first / "saved_model.pb", f"this is a file of a SavedModel; name its folder, {first}"),
        ("notes.txt", f"this is a file; {directory}"),
        ("saved_model", f"this is a file; {directory}"),
        ("model.h5", "this is a file in HDF5; load it in Keras and save it as a .keras file"),
        ("a.hdf5", "this is a file in HDF5; load it in Keras and save it as a .keras file"),
    ):
        with pytest.raises(Unavailable) as caught:
            saved_models.find("pretrained", tmp_path / missing)
        assert str(caught.value) == f"pretrained={tmp_path / missing}: {problem}"


def test_a_fingerprint_tells_models_apart(trained, exported, tmp_path):
    copy = tmp_path / "digits" / "1"
    shutil.copytree(exported, copy)
    assert saved_models.fingerprint(copy) == saved_models.fingerprint(exported)
    assert saved_models.fingerprint(copy).startswith("digits/1 ")
    other = keras.models.clone_model(trained)
    folder = export(other, tmp_path / "other" / "digits")
    assert saved_models.fingerprint(folder) != saved_models.fingerprint(exported)


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
    lines = ["assets.extra/model.json is|variables/variables.* is", "expected a SavedModel"]
    for told in lines if any(folder.iterdir()) else lines[1:]:
        with pytest.raises(Unavailable, match=rf"^saved_model={folder}: ({told})[^\n]*$"):
            saved_models.load(folder)
        # That of an earlier version has no digests.
        (folder / "assets.extra" / "checksums.json").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("saved_model.pb", b""),
        ("saved_model.pb", None),
        ("assets.extra/metadata.json", b"[]"),
        ("assets.extra/example.png", b"x"),
        ("assets.extra/checksums.json", b""),
        ("assets.extra/checksums.json", b"[1]"),
        ("variables/variables.index", b"x"),
    ],
)
def test_a_damaged_export_says_which_file_and_what_to_do(exported, tmp_path, name, damage):
    folder = tmp_path / "digits" / "1"
    shutil.copytree(exported, folder)
    path = folder / name
    path.unlink() if damage is None else path.write_bytes(damage)
    state = "not there" if damage is None else "damaged"
    with pytest.raises(Unavailable, match=f"^saved_model={folder}: {name} is {state}; remove the"):
        saved_models.load(folder)
    if damage is not None:
        with pytest.raises(Unavailable, match=f"^model={folder}: {name} is damaged; remove the"):
            classifiers.load(folder.parent)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{", '{"training": []}', '{"label_names": {}}', "1",
        '{"label_names": [1, "a", null]}', '{"label_names": [["a"]]}', '{"label_names": []}',
        '{"training": {"dataset": 5}}', '{"training": {"strategy": null}}',
        '{"training": {"train_perturb": "foo"}}', '{"training": {"train_perturb": "hot,foo"}}',
        '{"training": {"train_perturb": 3}}', '{"training": {"train_level": "x"}}',
        '{"training": {"epochs": [1]}}', '{"input": {"range": 1}}', '{"input": {"range": [1]}}',
        '{"input": {"range": ["a", 1]}}', '{"input": {"range": [1, 0]}}',
    ],
)  # fmt: skip
def test_odd_metadata_of_an_earlier_version_is_one_line(exported, tmp_path, text):
    folder = tmp_path / "1"
    shutil.copytree(exported, folder)
    (folder / "assets.extra" / "checksums.json").unlink()
    (folder / "assets.extra" / "metadata.json").write_text(text)
    for argument in ("saved_model", "model"):
        line = f"^{argument}=.*assets.extra/metadata.json is damaged; remove the fol"
        with pytest.raises(Unavailable, match=line):
            saved_models.metadata(folder, argument)


@pytest.mark.parametrize("perturb", ["none", "all", "hot", "hot,dead", "noise"])
def test_metadata_of_whatever_is_trained_with_are_sound(tmp_path, perturb):
    found = {"label_names": ["a"], "training": {"train_perturb": perturb, "train_level": 0.5}}
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / "assets.extra" / "metadata.json").write_text(json.dumps(found))
    assert saved_models.metadata(tmp_path) == found


def test_what_was_added_to_an_export_does_no_harm(exported, tmp_path):
    folder = tmp_path / "1"
    shutil.copytree(exported, folder)
    (folder / ".DS_Store").write_text("")
    (folder / "assets.extra" / "notes.txt").write_text("mine")
    (folder / "assets.extra" / "robustness.csv").write_text("later")
    saved_models.check(folder)


def test_versions_of_a_killed_export_are_removed_and_no_others(exported, tmp_path):
    directory = tmp_path / "run"
    for version in ("1", "2", "3", ".4-0123abcd", ".notes"):
        shutil.copytree(exported, directory / version)
    for version, mark in (("1", "mine"), ("2", "another's")):
        path = directory / version / "assets.extra" / "checksums.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "mark": mark}))
    saved_models.remove_marked(directory, "mine")
    assert sorted(path.name for path in directory.iterdir()) == [".notes", "2", "3"]
    saved_models.remove_marked(tmp_path / "absent", "mine")


def test_all_folders_of_an_export_are_as_open_as_the_umask_says(exported):
    modes = {path.stat().st_mode for path in [exported, *exported.rglob("*")] if path.is_dir()}
    assert len(modes) == 1
