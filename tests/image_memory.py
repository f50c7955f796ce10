"""Asks an export's signature `encoded` for one file after the other, each in a fresh process.

`python -m tests.image_memory EXPORT FILE …` prints for each file the memory that its answer
takes at most, in MiB, and the answer's label or the error.
"""

import multiprocessing
import resource
import sys

import tensorflow as tf


def peak() -> float:
    unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def ask(export: str, path: str) -> None:
    encoded = tf.saved_model.load(export).signatures["encoded"]
    with open(f"{export}/assets.extra/example.png", "rb") as example:
        encoded(images=tf.constant([example.read()]))
    with open(path, "rb") as file:
        content = tf.constant([file.read()])
    before = peak()
    try:
        answer = str(encoded(images=content)["label"].numpy()[0])
    except tf.errors.InvalidArgumentError as error:
        answer = " ".join(error.message.split())
    print(f"{peak() - before:.0f} {answer}", flush=True)


if __name__ == "__main__":
    _, export, *paths = sys.argv
    for path in paths:
        process = multiprocessing.get_context("fork").Process(target=ask, args=(export, path))
        process.start()
        process.join()
