"""Where a saved model is; whether it is whole, and what it says, is in `exports`."""

import os
from pathlib import Path

from robust_tf.errors import Unavailable, one_line

# What is in the folder of each SavedModel.
MODEL = "saved_model.pb"
# The endings of models that are files.
FILES = (".keras", ".tflite", ".onnx")


def locate(argument: str, path: str | os.PathLike) -> Path:
    """The SavedModel that a path means; arguments and result as of `exports.find`.

    Raises:
        Unavailable: if there is none.
    """
    path = Path(path)
    try:
        path.exists()
    except (OSError, ValueError) as error:  # a name that is too long, a null character, …
        reason = getattr(error, "strerror", None) or one_line(error)
        problem = f"expected the directory of a SavedModel ({reason})"
        raise Unavailable(argument, path, problem) from error
    numbered = (entry for entry in path.glob("*") if entry.name.isdecimal())
    latest = max(numbered, key=lambda entry: int(entry.name), default=path)  # maybe 00000123
    for folder in (path, latest):
        if (folder / MODEL).is_file():
            return folder
    expected = "expected the directory of a SavedModel, with or without its version"
    if not path.exists():
        expected = f"there is no such folder; {expected}"
    elif path.name == MODEL:
        expected = f"this is a file of a SavedModel; name its folder, {path.parent}"
    elif path.suffix in (".h5", ".hdf5"):
        expected = "this is a file in HDF5; load it in Keras and save it as a .keras file"
    elif path.suffix in (".pt", ".pth"):
        expected = "this is a file of PyTorch; export it to ONNX by torch.onnx.export"
    elif path.is_file():
        expected = f"this is a file; {expected}"
    raise Unavailable(argument, path, expected)
