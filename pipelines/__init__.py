"""Command lines of robust_tf: flags and calls, nothing else."""

import os

import robust_tf as robust_tf  # sets what must be set before TensorFlow is imported

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _import_tensorflow_quietly() -> None:
    """Imports TensorFlow without the lines that its C++ parts write while loading.

    They come before its log level holds, and would bury an error of one line.
    """
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import tensorflow  # noqa: F401
    finally:
        os.dup2(kept, 2)
        os.close(kept)


_import_tensorflow_quietly()
