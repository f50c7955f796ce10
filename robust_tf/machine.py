"""What this process runs on."""

import contextlib
import os
import platform
from pathlib import Path

import tensorflow as tf

from robust_tf.errors import Unavailable


def cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS binds no process to cores


def threads() -> int:
    """The number of threads that TensorFlow computes an op with."""
    return tf.config.threading.get_intra_op_parallelism_threads() or cores()


# More than any machine has cores, and fewer than a process may have threads.
MOST_THREADS = 1024


def use_threads(threads: int) -> None:
    """Sets TensorFlow's threads in this process; call it before anything is computed.

    Raises:
        Unavailable: if something has been computed with another number.
    """
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        problem = "this process has computed already, with another number of threads"
        raise Unavailable("threads", threads, problem) from None


def share_gpus() -> None:
    """Takes GPU memory as needed instead of all; call it before anything is computed."""
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)


def name() -> str:
    """The name of the GPU, or else of the CPU: "NVIDIA H100" or "AMD EPYC, 2 cores"."""
    for gpu in tf.config.list_physical_devices("GPU"):
        return tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):  # only Linux has this file
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        cpu = names[0] if names else cpu
    return f"{cpu}, {cores()} cores"
