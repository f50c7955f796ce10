"""LiteRT and ONNX files as functions of arrays.

What runs them, `ai-edge-litert` and `onnxruntime`, is imported when a file is opened. How a
file is made is unknown here.
"""

import contextlib
import hashlib
import os
import tempfile
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from robust_tf import machine
from robust_tf.errors import Unavailable, one_line
from robust_tf.saved_models import exports

# Under this name a file says what an export says in its metadata.
METADATA = "robust_tf.json"
# How many channels an image usually has, by which its axis is found.
_CHANNELS = (1, 3)
_ONNX_DTYPES = {
    "float": tf.float32,
    "float16": tf.float16,
    "double": tf.float64,
    "bool": tf.bool,
    "string": tf.string,
    **{name: tf.as_dtype(name) for name in ("int8", "int16", "int32", "int64")},
    **{name: tf.as_dtype(name) for name in ("uint8", "uint16", "uint32", "uint64")},
}


@dataclass(frozen=True)
class Quantized:
    """How integers stand for numbers: number = (integer - zero_point) · scale."""

    scale: float
    zero_point: int
    dtype: np.dtype

    def integers(self, values: np.ndarray) -> np.ndarray:
        """The nearest integers; numbers that have none get the lowest or the highest."""
        info = np.iinfo(self.dtype)
        found = np.round(values / np.float32(self.scale)) + self.zero_point
        return found.clip(info.min, info.max).astype(self.dtype)

    def numbers(self, integers: np.ndarray) -> np.ndarray:
        """The float32 numbers that integers stand for."""
        return (integers.astype(np.float32) - self.zero_point) * np.float32(self.scale)

    @property
    def range(self) -> tuple[float, float]:
        """The numbers of the lowest and of the highest integer."""
        info = np.iinfo(self.dtype)
        low, high = self.numbers(np.array([info.min, info.max]))
        return float(low), float(high)


@dataclass(frozen=True, eq=False)
class Opened:
    """A file that is ready to answer.

    Attributes:
        inputs: their form by name, images as they are stored; quantised ones as float32.
        outputs: likewise.
        metadata: as of `saved_models.metadata`; empty for a third-party file.
        range: the numbers that a quantised input has integers for; None for others.
        channels_first: whether its images are [B, C, H, W].
        call: from the output's name and a batch as the file takes it to what it answers.
    """

    inputs: dict[str, tf.TensorSpec]
    outputs: dict[str, tf.TensorSpec]
    metadata: dict[str, Any]
    range: tuple[float, float] | None
    call: Callable[[str, np.ndarray], np.ndarray]

    @property
    def channels_first(self) -> bool:
        """Whether its images are [B, C, H, W], as PyTorch has them."""
        _, first, _, last = next(iter(self.inputs.values())).shape
        return first in _CHANNELS and last not in _CHANNELS

    def run(self, output: str, images: np.ndarray) -> np.ndarray:
        """The scores of a batch of any size, in batches of the size that the file has.

        Args:
            output: the name of the output that has the scores.
            images: shape [B, H, W, C].

        Returns:
            float32 array [B, classes].
        """
        (spec,) = self.inputs.values()
        images = images.astype(spec.dtype.as_numpy_dtype, copy=False)
        if self.channels_first:
            images = np.ascontiguousarray(np.moveaxis(images, -1, 1))
        count, size = len(images), spec.shape[0]
        if size is None:
            return self.call(output, images).astype(np.float32, copy=False)
        filled = np.pad(images, [(0, -count % size), *[(0, 0)] * 3])
        found = [self.call(output, filled[first : first + size]) for first in range(0, count, size)]
        return np.concatenate(found)[:count].astype(np.float32, copy=False)


def open_file(path: Path, argument: str = "model", *, threads: int | None = None) -> Opened:
    """Opens a file of one of the `RUNTIMES`.

    Args:
        path: the file.
        argument: what errors call it.
        threads: how many compute; by default as many as TensorFlow's.

    Raises:
        Unavailable: if it cannot be read, or the package that runs it is missing.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        raise Unavailable(argument, path, f"there is no such file; expected a {suffix} file")
    try:
        with quiet():
            return RUNTIMES[suffix](path, threads or machine.threads())
    except ImportError as error:
        extra = {".tflite": "litert", ".onnx": "onnx"}[suffix]
        problem = f"{one_line(error)}; install robust_tf[{extra}], which runs {suffix} files"
        raise Unavailable(argument, path, problem) from error
    except Exception as error:  # whatever a damaged file makes the package raise
        problem = f"expected a {suffix} file that runs here ({one_line(error)})"
        raise Unavailable(argument, path, problem) from error


def fingerprint(path: Path) -> str:
    """A digest of a file, and of the weights that PyTorch writes beside large ones."""
    digest = hashlib.sha256(path.read_bytes())
    beside = path.with_name(f"{path.name}.data")
    if beside.is_file():
        digest.update(beside.read_bytes())
    return digest.hexdigest()


def _litert(path: Path, threads: int) -> Opened:
    interpreter = _interpreter()(model_path=os.fspath(path), num_threads=threads)
    interpreter.allocate_tensors()
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    quantized = {one["index"]: _quantized(one) for one in (*inputs, *outputs)}
    by_name = {one["name"]: one for one in outputs}
    lock = threading.Lock()

    def call(output: str, images: np.ndarray) -> np.ndarray:
        (own,), other = inputs, by_name[output]
        how, back = quantized[own["index"]], quantized[other["index"]]
        with lock:  # an interpreter has one set of tensors
            if own["shape_signature"][0] == -1:
                interpreter.resize_tensor_input(own["index"], images.shape)
                interpreter.allocate_tensors()
            interpreter.set_tensor(own["index"], how.integers(images) if how else images)
            interpreter.invoke()
            found = interpreter.get_tensor(other["index"])
        return back.numbers(found) if back else found

    first = quantized[inputs[0]["index"]] if inputs else None
    return Opened(
        inputs={one["name"]: _form(one, quantized[one["index"]]) for one in inputs},
        outputs={one["name"]: _form(one, quantized[one["index"]]) for one in outputs},
        metadata=_attached(path),
        range=first.range if first else None,
        call=call,
    )


def _interpreter() -> Callable:
    """LiteRT's interpreter, or TensorFlow's of earlier versions."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        if not hasattr(tf, "lite"):
            raise
        return tf.lite.Interpreter
    return Interpreter


def _quantized(detail: dict[str, Any]) -> Quantized | None:
    scale, zero_point = detail["quantization"]
    return Quantized(float(scale), int(zero_point), np.dtype(detail["dtype"])) if scale else None


def _form(detail: dict[str, Any], quantized: Quantized | None) -> tf.TensorSpec:
    shape = [None if side == -1 else int(side) for side in detail["shape_signature"]]
    return tf.TensorSpec(shape, tf.float32 if quantized else detail["dtype"], detail["name"])


def _attached(path: Path) -> dict[str, Any]:
    """What a file says in the archive behind it, where LiteRT's metadata are."""
    if not zipfile.is_zipfile(path):
        return {}
    with zipfile.ZipFile(path) as archive:
        if METADATA not in archive.namelist():
            return {}
        return exports.parse_metadata(archive.read(METADATA))


def _onnx(path: Path, threads: int) -> Opened:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def call(output: str, images: np.ndarray) -> np.ndarray:
        (found,) = session.run([output], {names[0]: images})
        return found

    text = session.get_modelmeta().custom_metadata_map.get(METADATA)
    return Opened(
        inputs={one.name: _onnx_form(one) for one in session.get_inputs()},
        outputs={one.name: _onnx_form(one) for one in session.get_outputs()},
        metadata={} if text is None else exports.parse_metadata(text),
        range=None,
        call=call,
    )


def _onnx_form(own: Any) -> tf.TensorSpec:
    kind = own.type.removeprefix("tensor(").removesuffix(")")
    shape = [side if isinstance(side, int) else None for side in own.shape or ()]
    if kind not in _ONNX_DTYPES:  # a sequence or a map
        return tf.TensorSpec(None, tf.variant, own.name)
    return tf.TensorSpec(shape, _ONNX_DTYPES[kind], own.name)


# What opens a file, by its ending.
RUNTIMES: dict[str, Callable[[Path, int], Opened]] = {".tflite": _litert, ".onnx": _onnx}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drops what other libraries write to standard error meanwhile, and their warnings."""
    with tempfile.TemporaryFile() as sink, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = os.dup(2)
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
