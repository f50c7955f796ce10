"""What this process runs on."""

import contextlib
import os
import platform
from pathlib import Path

from robust_tf.errors import Unavailable


def load_tensorflow() -> None:
    """Imports TensorFlow and Keras without the lines that their C++ parts write while loading.

    They come before TensorFlow's log level holds, and would bury an error of one line.

    Raises:
        ValueError: if Keras refuses a value of keras.json or of the environment.
    """
    try:
        kept = os.dup(2)
    except OSError:  # it is closed
        kept = None
    else:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
    try:
        import keras  # noqa: F401
        import tensorflow  # noqa: F401
    finally:
        if kept is not None:
            os.dup2(kept, 2)
            os.close(kept)


def cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS binds no process to cores


def threads() -> int:
    """The number of threads that TensorFlow computes an op with."""
    import tensorflow as tf

    return tf.config.threading.get_intra_op_parallelism_threads() or cores()


# More than any machine has cores, and fewer than a process may have threads.
MOST_THREADS = 1024


def use_threads(threads: int) -> None:
    """Sets TensorFlow's threads in this process; call it before anything is computed.

    Raises:
        Unavailable: if something has been computed with another number.
    """
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        problem = "this process has computed already, with another number of threads"
        raise Unavailable("threads", threads, problem) from None


def share_gpus() -> None:
    """Takes GPU memory as needed instead of all; call it before anything is computed."""
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)


# Limit and statistics of a container's memory, and what of it cannot be given back: of version 2
# and 1 of control groups.
_LIMITS = (
    ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.stat", "anon"),
    (
        "sys/fs/cgroup/memory/memory.limit_in_bytes",
        "sys/fs/cgroup/memory/memory.stat",
        "total_rss",
    ),
)
# Bytes that are taken to be free where no system says how many are.
_ASSUMED = 4 * 2**30


def free_memory(root: Path = Path("/")) -> int:
    """How many bytes of memory are free, or can be made so: of the machine, or of its container.

    Where the system does not say what is free, as on macOS, it is all the memory that there is.

    Args:
        root: where the system's files are.
    """
    free = 1024 * _numbers(root / "proc/meminfo").get("MemAvailable:", 0)
    if not free:
        pages = [name for name in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES") if name in os.sysconf_names]
        free = os.sysconf(pages[0]) * os.sysconf("SC_PAGE_SIZE") if pages else _ASSUMED
    for limit, statistics, taken in _LIMITS:
        with contextlib.suppress(OSError, ValueError):  # not there, or "max": no limit
            most = int((root / limit).read_text(encoding="ascii"))
            free = min(free, most - _numbers(root / statistics).get(taken, 0))
    return max(free, 0)


def _numbers(path: Path) -> dict[str, int]:
    """The numbers of a file of lines such as "name 7 kB"; none where there is no such file."""
    with contextlib.suppress(OSError):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        parts = [line.split() for line in lines]
        return {part[0]: int(part[1]) for part in parts if len(part) > 1 and part[1].isdecimal()}
    return {}


def name() -> str:
    """The name of the GPU, or else of the CPU: "NVIDIA H100" or "AMD EPYC, 2 cores"."""
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        return tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):  # only Linux has this file
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        cpu = names[0] if names else cpu
    return f"{cpu}, {cores()} cores"
