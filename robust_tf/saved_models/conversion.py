"""LiteRT and ONNX files, made from saved classifiers.

What they are worth is measured in `studies.device`.
"""

import contextlib
import functools
import io
import json
import logging
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from robust_tf import models, settings
from robust_tf.errors import InvalidArgument, Unavailable, one_line
from robust_tf.files import replacing
from robust_tf.saved_models import exports, runtimes
from robust_tf.saved_models.classifiers import Classifier
from robust_tf.saved_models.targets import Target

# The newest operators that all of the ONNX converters know.
_OPSET = 18


def convert(
    classifier: Classifier,
    path: Path,
    target: Target,
    image_shape: tuple[int, int, int],
    calibration: np.ndarray | None = None,
) -> None:
    """Writes a LiteRT or ONNX file that answers as a saved classifier does.

    The file takes what the classifier's model takes, in batches of the same size (of 1 with
    dynamic quantisation in ONNX, where an answer would depend on all images of a batch), and
    returns its scores. It checks no values. What an export of this package says of itself is
    in it, too. The same call writes the same bytes.

    Args:
        classifier: of a SavedModel or a `.keras` file.
        path: the file to write, ending in `target.suffix`.
        target: what is made.
        image_shape: (H, W, C).
        calibration: images, which int8 needs, float32 [N, H, W, C] in [0, 1].

    Raises:
        InvalidArgument: if the classifier is of another file, or has no standardisation of
            this package for a `deviation_floor`, or int8 no images.
        Unavailable: if a converter is missing, or cannot convert it.
    """
    function, dtype = _function(classifier, target)
    alone = (target.format, target.quantize) == ("onnx", "dynamic")
    batch = classifier.batch_size or (1 if alone else None)
    spec = tf.TensorSpec([batch, *image_shape], dtype, name="images")
    inputs: list[np.ndarray] = []
    if target.quantize == "int8":
        if calibration is None:
            raise InvalidArgument("calibration", None, "images for int8")
        inputs = _batches(classifier.inputs(tf.constant(calibration)).numpy(), batch or 1)
    try:
        with runtimes.quiet():
            content = _MAKERS[target.format](
                _frozen(function, spec), target, inputs, _metadata(classifier, target)
            )
    except ImportError as error:
        problem = f"{one_line(error)}; install robust_tf[{target.format}], which makes such files"
        raise Unavailable("format", target.format, problem) from error
    except Exception as error:  # whatever a third-party model makes a converter raise
        problem = f"the converter to {target.format} fails ({one_line(error)})"
        raise Unavailable(classifier.argument, classifier.path, problem) from error
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _function(classifier: Classifier, target: Target) -> tuple[Callable, tf.DType]:
    """From what a model takes to scores, and the dtype of the former."""
    if classifier.path.suffix.lower() in runtimes.RUNTIMES:
        expected = "a SavedModel's directory or a .keras file, which other files are made from"
        raise InvalidArgument(classifier.argument, classifier.path, expected)
    model, ending = _keras_model(classifier)
    floor = target.deviation_floor
    layers = model.layers if model is not None else ()
    own = [layer for layer in layers if isinstance(layer, models.Standardization)]
    if floor and not own:
        expected = "0 for a model without the standardisation of this package"
        raise InvalidArgument("deviation_floor", floor, expected)
    for layer in own if floor else ():
        layer.scale.assign(np.minimum(layer.scale.numpy(), 1 / floor))
    if model is None:
        return classifier.function, classifier.dtype

    def function(images: tf.Tensor) -> tf.Tensor:
        (scores,) = keras.tree.flatten(model(images, training=False))
        return ending(scores)

    return function, classifier.dtype


def _keras_model(classifier: Classifier) -> tuple[keras.Model | None, Callable]:
    """A model of its own, whose weights may change, and what makes scores of its output.

    None for a third-party SavedModel, or for another signature than that of probabilities.
    """
    if classifier.path.suffix == ".keras":
        return _in_float32(keras.saving.load_model(classifier.path, compile=False)), tf.identity
    if classifier.metadata and classifier.signature == "serving_default":
        with contextlib.suppress(Unavailable):  # it has metadata, but no description of a network
            return _in_float32(exports.load(classifier.path, classifier.argument)), tf.nn.softmax
    return None, tf.identity


def _in_float32(model: keras.Model) -> keras.Model:
    """A model of mixed precision as one that computes in float32, which all converters know."""
    if all(layer.compute_dtype == "float32" for layer in model.layers):
        return model

    def in_float32(layer: keras.layers.Layer) -> keras.layers.Layer:
        return type(layer).from_config({**layer.get_config(), "dtype": "float32"})

    plain = keras.models.clone_model(model, clone_function=in_float32)
    plain.set_weights(model.get_weights())
    return plain


def _frozen(function: Callable, spec: tf.TensorSpec) -> Any:
    """A function as a graph that has its weights as constants."""
    from tensorflow.python.framework import convert_to_constants

    traced = tf.function(
        lambda images: tf.identity(function(images), name="scores"), autograph=False
    )
    return convert_to_constants.convert_variables_to_constants_v2(
        traced.get_concrete_function(spec)
    )


def _metadata(classifier: Classifier, target: Target) -> str:
    known = dict(classifier.metadata)
    if "sketch" in known.get("training", {}):  # of the training images, kilobytes on a device
        known["training"] = {k: v for k, v in known["training"].items() if k != "sketch"}
    said = {
        **known,
        "input": {**known.get("input", {}), "range": [*classifier.input_range]},
        "target": settings.flatten(target),
    }
    return json.dumps(said, indent=2)


def _litert(frozen: Any, target: Target, inputs: list[np.ndarray], metadata: str) -> bytes:
    module = tf.Module()
    module.frozen = frozen
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen], module)
    if target.quantize != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if target.quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if target.quantize == "int8":
        converter.representative_dataset = lambda: ([images] for images in inputs)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        if target.io != "float":
            converter.inference_input_type = tf.as_dtype(target.io)
            converter.inference_output_type = tf.as_dtype(target.io)
    # Where LiteRT's metadata are: an archive behind the model, which interpreters pass over.
    content = io.BytesIO(converter.convert())
    content.seek(0, io.SEEK_END)
    with zipfile.ZipFile(content, "a") as archive:
        archive.writestr(zipfile.ZipInfo(runtimes.METADATA), metadata)
    return content.getvalue()


def _batches(images: np.ndarray, size: int) -> list[np.ndarray]:
    """All images in batches of one size; the last is filled up with the first images."""
    count = -(-len(images) // size)
    return [*np.resize(images, (count, size, *images.shape[1:]))]


def _onnx(frozen: Any, target: Target, inputs: list[np.ndarray], metadata: str) -> bytes:
    import onnx
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    (images,), (scores,) = frozen.inputs, frozen.outputs
    names = {images.name: "images", scores.name: "scores"}
    model, _ = tf2onnx.convert.from_graph_def(
        frozen.graph.as_graph_def(),
        input_names=[images.name],
        output_names=[scores.name],
        opset=_OPSET,
        tensors_to_rename=names,
    )
    if images.shape[0] is None:
        for side in (*model.graph.input, *model.graph.output):
            side.type.tensor_type.shape.dim[0].dim_param = "batch"
    _rename(model.graph, {"images": "images", "scores": "scores"})
    model = _ONNX_QUANTIZE[target.quantize](model, inputs)
    onnx.helper.set_model_props(model, {runtimes.METADATA: metadata})
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def _rename(graph: Any, names: dict[str, str]) -> None:
    """Numbers all names of a graph in order, which the converter counts on from call to call."""

    def new(name: str) -> str:
        return names.setdefault(name, f"value_{len(names)}") if name else name

    for side in graph.input:  # of a part of a graph
        side.name = new(side.name)
    for i, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{i}"
        for values in (node.input, node.output):
            values[:] = list(map(new, values))
        for attribute in node.attribute:
            for part in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())):
                _rename(part, names)
    for values in (graph.output, graph.value_info, graph.initializer):
        for value in values:
            value.name = new(value.name)
    graph.initializer.sort(key=lambda one: one.name)


def _onnx_float16(model: Any, _: list[np.ndarray]) -> Any:
    from onnxconverter_common import float16

    return float16.convert_float_to_float16(model, keep_io_types=True)


def _onnx_dynamic(model: Any, _: list[np.ndarray]) -> Any:
    from onnxruntime import quantization

    return _by_files(model, quantization.quantize_dynamic)


def _onnx_int8(model: Any, inputs: list[np.ndarray]) -> Any:
    from onnxruntime import quantization

    prepared = _by_files(
        model,
        functools.partial(quantization.quant_pre_process, skip_symbolic_shape=True),
    )
    name = prepared.graph.input[0].name

    class Images(quantization.CalibrationDataReader):
        """One batch after the other."""

        left = iter(inputs)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(({name: images} for images in self.left), None)

    return _by_files(
        prepared,
        quantization.quantize_static,
        calibration_data_reader=Images(),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QInt8,
        weight_type=quantization.QuantType.QInt8,
        per_channel=True,
    )


def _by_files(model: Any, change: Callable, **settings: Any) -> Any:
    """What a function from one file to another makes of a model."""
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        before, after = os.path.join(folder, "before.onnx"), os.path.join(folder, "after.onnx")
        onnx.save(model, before)
        change(before, after, **settings)
        return onnx.load(after)


_ONNX_QUANTIZE: dict[str, Callable[[Any, list[np.ndarray]], Any]] = {
    "none": lambda model, _: model,
    "dynamic": _onnx_dynamic,
    "float16": _onnx_float16,
    "int8": _onnx_int8,
}

# What makes the content of files, by format.
_MAKERS: dict[str, Callable[[Any, Target, list[np.ndarray], str], bytes]] = {
    "litert": _litert,
    "onnx": _onnx,
}
