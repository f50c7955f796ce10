"""Asks an export's signature `encoded` for one file after the other.

`python -m tests.image_memory EXPORT FILE …` prints for each file how much the peak of the
process's memory grows with its answer, in MiB, and the answer's label or the error.
"""

import resource
import sys

import tensorflow as tf


def peak() -> float:
    unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


_, export, *paths = sys.argv
encoded = tf.saved_model.load(export).signatures["encoded"]
for path in [f"{export}/assets.extra/example.png", *paths]:
    with open(path, "rb") as file:
        content = tf.constant([file.read()])
    before = peak()
    try:
        answer = str(encoded(images=content)["label"].numpy()[0])
    except tf.errors.InvalidArgumentError as error:
        answer = " ".join(error.message.split())
    print(f"{peak() - before:.0f} {answer}", flush=True)
