"""The way of docs/your-own.md: from a folder of photos and a network to a file for a device."""

from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from robust_tf import data as data_lib
from robust_tf.saved_models import classifiers
from tests.helpers import outcome

pytest.importorskip("ai_edge_litert", reason="needs pip install 'robust_tf[litert]'")
pytest.importorskip("onnxruntime", reason="needs pip install 'robust_tf[onnx]'")
pytest.importorskip("tf2onnx", reason="needs pip install 'robust_tf[onnx]'")

CLASSES = {"apple": (200, 40, 40), "banana": (210, 200, 60), "cherry": (110, 10, 60)}
MODES = ("RGB", "RGBA", "P", "CMYK", "RGB")
FORMS = {"RGB": ("jpg", "png", "webp", "bmp"), "RGBA": ("png",), "P": ("gif",), "CMYK": ("jpg",)}
SIDE = 16


def take_photos(folder: Path, per_class: int) -> None:
    """Photos of one fruit each, of many sizes, modes and forms; and what cameras leave beside."""
    random = np.random.default_rng(0)
    for name, colour in CLASSES.items():
        (folder / name).mkdir(parents=True)
        for place in range(per_class):
            height, width = random.integers(18, 60, 2)
            photo = random.integers(0, 80, (height, width, 3))
            photo += np.asarray(colour) * 7 // 10
            mode = MODES[place % len(MODES)]
            image = Image.fromarray(photo.clip(0, 255).astype(np.uint8)).convert(mode)
            form = FORMS[mode][place % len(FORMS[mode])]
            image.save(folder / name / f"{place:03}.{form}")
        (folder / name / "Thumbs.db").write_bytes(b"no photo")
    (folder / "apple" / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")


def small_network(folder: Path) -> keras.Model:
    """A network of the user's own, which takes 0 … 255 and knows the fruit a little."""
    keras.utils.set_random_seed(1)
    images = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Rescaling(1 / 255)(images)
    x = keras.layers.SeparableConv2D(16, 3, strides=2, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(16, activation="relu")(x)
    model = keras.Model(images, keras.layers.Dense(3, activation="softmax")(x))
    photos = data_lib.from_folder(folder, image_size=SIDE).train
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(255 * photos.images_at(range(len(photos))), photos.labels, epochs=5, verbose=0)
    return model


def test_from_photos_to_a_file_for_a_device(in_process, tmp_path):
    take_photos(tmp_path / "photos", per_class=70)
    with pytest.warns(UserWarning, match="4 of 214 files left out.*: apple/Thumbs.db, apple/cut"):
        small_network(tmp_path / "photos").save(tmp_path / "small.keras")

    def call(command: str, *flags: str) -> str:
        done = in_process(*flags, pipeline=f"pipelines.{command}")
        assert done.returncode == 0, outcome(done)
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    tests = ("--trials=2", "--eval=hot,blur")
    data = (f"--dataset=folder:{tmp_path}/photos", f"--image_size={SIDE},{SIDE}")
    own = (f"--model={tmp_path}/small.keras", "--value_range=0,255", "--epochs=30")
    call("run", *data, *tests, *own, "--perturb=all", "--learning_rate=0.02")
    trained = (f"--pretrained={tmp_path}/small.keras", "--value_range=0,255", "--epochs=10")
    call(
        "run",
        *data,
        *tests,
        *trained,
        "--strategy=transfer",
        "--perturb=all",
        "--learning_rate=0.01",
    )
    runs = {path.parent.name: path.parent for path in tmp_path.glob("results/*/runs.csv")}
    tables = {name: pd.read_csv(folder / "trials.csv") for name, folder in runs.items()}
    assert len(runs) == 3
    # The fruit differ in colour alone, which no kind of perturbation changes much.
    for table in (table for name, table in tables.items() if "natural" not in name):
        assert table["accuracy"].min() > 0.8 and set(table["n_examples"]) == {42}

    (constant,) = (name for name in runs if "constant" in name)
    (transfer,) = (name for name in runs if "transfer" in name)
    models = {name: tmp_path / "saved_models" / name for name in runs}
    said = call("evaluate", f"--model={models[transfer]}", *tests)
    assert "on 42 test images of folder:photos" in said
    said = call("compare", *runs, "--trials=1", "--eval=dead")
    assert "McNemar" in said
    said = call("sensor_map", f"--model={models[constant]}", "--test_examples=6")
    positions = pd.read_csv(next(tmp_path.glob("results/*sensor-map*/positions.csv")))
    assert len(positions) == SIDE * SIDE

    said = call("export", f"--model={models[constant]}", "--format=litert,onnx",
                "--quantize=none,int8", *tests)  # fmt: skip
    (folder,) = tmp_path.glob("results/export-*")
    files = pd.read_csv(folder / "files.csv")
    assert files["file"].notna().sum() == 4 and len(files) == 5  # with the SavedModel
    for path in sorted(folder.glob("*int8.*")):
        assert path.suffix in (".tflite", ".onnx")
        classifier = classifiers.load(path)
        assert classifier.metadata["label_names"] == list(CLASSES)
        assert "sketch" not in classifier.metadata["training"]
        said = call("evaluate", f"--model={path}", *data, *tests)
        measured = pd.read_csv(max(tmp_path.glob(f"results/*{path.suffix}*/trials.csv")))
        before = tables[constant].groupby("test_perturb")["accuracy"].mean()
        after = measured.groupby("test_perturb")["accuracy"].mean()
        assert (before - after).abs().max() < 0.1
