"""The warm-up file of TensorFlow Serving: requests that it answers before it takes others."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

# TensorFlow Serving knows it by this name in `assets.extra/`.
FILE_NAME = "tf_serving_warmup_requests"


def write(
    folder: str | os.PathLike, model: str, requests: Mapping[str, Mapping[str, np.ndarray]]
) -> bool:
    """Writes the file, if the package `tensorflow-serving-api` is there.

    Args:
        folder: the SavedModel's `assets.extra`.
        model: the name that the model is served under.
        requests: by signature, the inputs by name.

    Returns:
        Whether it was written.
    """
    try:
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
    except ImportError:
        return False
    with tf.io.TFRecordWriter(os.fspath(Path(folder) / FILE_NAME)) as writer:
        for signature, inputs in requests.items():
            request = predict_pb2.PredictRequest()
            request.model_spec.name = model
            request.model_spec.signature_name = signature
            for name, value in inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            writer.write(log.SerializeToString())
    return True
