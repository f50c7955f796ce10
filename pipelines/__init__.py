"""Command lines of robust_tf: flags and calls, nothing else."""

import os as _os

# Before TensorFlow is imported: its start-up messages would bury ours.
_os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
