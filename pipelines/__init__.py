"""Command lines of robust_tf: flags and calls, nothing else."""

import os
import sys

try:
    import robust_tf as robust_tf  # sets what must be set before TensorFlow is imported
except RuntimeError as error:  # Unavailable, for a backend of Keras
    sys.exit(f"error: {error}")

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _import_tensorflow_quietly() -> None:
    """Imports TensorFlow and Keras without the lines that C++ parts write while loading.

    They come before its log level holds, and would bury an error of one line.
    """
    problem = ""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import keras  # noqa: F401
        import tensorflow  # noqa: F401
    except ValueError as error:  # of a value in keras.json or in the environment
        problem = f"error: Keras cannot be imported: {error}"
    except KeyboardInterrupt:
        problem = "stopped"
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    if problem:
        print(problem, file=sys.stderr)
        sys.exit(130 if problem == "stopped" else 1)


_import_tensorflow_quietly()
