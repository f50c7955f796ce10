"""Command lines of robust_tf: flags and calls, nothing else."""

import os
import sys

try:
    import robust_tf as robust_tf  # sets what must be set before TensorFlow is imported
except RuntimeError as error:  # Unavailable, for a backend of Keras
    sys.exit(f"error: {error}")

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
