"""Writing files and folders so that each is complete or absent, one process at a time."""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from robust_tf.errors import Unavailable, one_line

# `secrets.token_hex(4)`, in names of what is not complete yet.
_TOKEN = "[0-9a-f]{8}"


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a temporary name beside `path`; renames it to `path` unless an error is raised.

    Args:
        path: the file to write or replace; its folder must exist.

    Yields:
        The name to write to, with the same ending.
    """
    path = Path(path)
    name = f".{secrets.token_hex(4)}-{path.name}"
    _sweep(path.parent, rf"\.{_TOKEN}-{re.escape(path.name)}")
    with _temporary(path.with_name(name), Path.touch) as temporary:
        yield temporary
        _flush(temporary)  # on disk before the name is, should the power fail
        os.replace(temporary, path)
        _flush(path.parent)


@contextlib.contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Gives an empty temporary folder beside `path`; renames it unless an error is raised.

    Args:
        path: the folder to make; its parent must exist.

    Yields:
        The folder to fill.

    Raises:
        OSError: if `path` exists and is not an empty folder.
    """
    path = Path(path)
    name = f".{path.name}-{secrets.token_hex(4)}"
    _sweep(path.parent, rf"\.{re.escape(path.name)}-{_TOKEN}")
    with _temporary(path.with_name(name), Path.mkdir) as temporary:
        yield temporary
        rename_folder(temporary, path)


def rename_folder(folder: Path, path: Path) -> None:
    """Renames a folder within its parent once all that is in it is on disk."""
    for place, _, names in os.walk(folder):
        for name in names:
            _flush(Path(place, name))
        _flush(Path(place))
    os.rename(folder, path)
    _flush(path.parent)


@contextlib.contextmanager
def _temporary(path: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """Makes a file or folder, locked so that others know it to be in use, and removes it."""
    descriptor = None
    while descriptor is None:
        make(path)
        with contextlib.suppress(FileNotFoundError):  # swept before it was locked
            descriptor = os.open(path, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not path.exists():
                os.close(descriptor)
                descriptor = None
    try:
        yield path
    finally:
        os.close(descriptor)
        remove(path)


def _sweep(folder: Path, pattern: str) -> None:
    """Removes what processes that were killed have left in a folder."""
    for name in os.listdir(folder):
        if re.fullmatch(pattern, name):
            with contextlib.suppress(FileNotFoundError, PermissionError):  # no longer, not ours
                descriptor = os.open(folder / name, os.O_RDONLY)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove(folder / name)
                except BlockingIOError:  # in use
                    continue
                finally:
                    os.close(descriptor)


def sweep_versions(folder: Path) -> None:
    """Removes what is left of exports that were killed, in a directory of versions."""
    if folder.is_dir():
        _sweep(folder, rf"\.[0-9]+-{_TOKEN}")


def remove_folder(folder: Path) -> None:
    """Removes a folder so that no part of it is left under its name, whatever is killed."""
    hidden = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    folder.rename(hidden)
    shutil.rmtree(hidden)


def remove(path: Path) -> None:
    """Removes a file, a link or a folder with all that is in it, as far as it can."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def make_way(path: Path, *, folder: bool = False) -> None:
    """Removes, with a warning, what is in the place of a file or a folder of a run.

    Args:
        path: where the file or folder is to be; a link to one may stay.
        folder: whether it is to be a folder.
    """
    if not os.path.lexists(path) or (path.is_dir() if folder else not path.is_dir()):
        return
    problem = "no folder" if folder else "a folder"
    warnings.warn(
        f"{path} is {problem}, which is no state of a training; it is removed", stacklevel=3
    )
    remove(path)


def _flush(path: Path) -> None:
    """Returns when a file or folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot do that with folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


# Room for what is added to it while it is written.
_LONGEST = 200


def digest(*identity: object) -> str:
    """Eight characters that tell values apart by their `repr`."""
    return hashlib.sha256(repr(identity).encode()).hexdigest()[:8]


def file_name(text: str) -> str:
    """A text with hyphens in place of what might trouble a file system or a shell.

    A long one ends with a digest instead: names of files have 255 characters at most.
    """
    name = re.sub(r"[^A-Za-z0-9._]+", "-", text).lstrip("-")
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 9]}-{digest(text)}"


@contextlib.contextmanager
def for_tensorflow(folder: Path) -> Iterator[Path]:
    """A name of a folder that TensorFlow takes for it.

    TensorFlow's readers take `[` for the beginning of a pattern, and all names for UTF-8.

    Args:
        folder: the folder; gives itself where that is no matter.
    """
    name = os.fspath(folder)
    if os.fsencode(name) == name.encode() and not set(name) & set("*?[]\\"):
        yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        link = Path(place, "link")
        link.symlink_to(folder.resolve())
        yield link


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a folder; waits, with a warning, while one holds it.

    The lock ends with the process that holds it, even if that is killed. A folder that an error
    leaves empty is removed.

    Args:
        folder: created if absent. If it is renamed meanwhile, processes that wait proceed.
    """
    descriptor = None
    while descriptor is None:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # renamed by another process just now
            descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            warnings.warn(f"waiting for another process, which works on {folder}", stacklevel=3)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # there is something in it
            folder.rmdir()
        raise
    finally:
        os.close(descriptor)


def is_locked(folder: Path) -> bool:
    """Whether some process is in `locked(folder)`."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except PermissionError:  # another user's
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def user_cache() -> Path:
    """The directory for what can be made again: below `XDG_CACHE_HOME`, or else ~/.cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():  # as its specification says
        cache = Path.home() / ".cache"
    return cache / "robust_tf"


# What helps, by the number of an error; any other may be one of those of `tf.errors`.
_EXPECTED = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "with room"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "open to writing"),
    **dict.fromkeys(
        (errno.ENOTDIR, errno.EEXIST, errno.EISDIR), "and no file or broken link in its place"
    ),
    errno.ENAMETOOLONG: "of a shorter name",
    errno.ELOOP: "and no link to itself",
    errno.ENOENT: "that is there",
}


@contextlib.contextmanager
def writing_to(
    argument: str, directory: str | os.PathLike, *errors: type[Exception]
) -> Iterator[None]:
    """Turns a failure to write into one line that names the argument.

    Args:
        argument: the name of the argument that chose the directory.
        directory: its value.
        *errors: what counts as such a failure besides `OSError`.

    Raises:
        Unavailable: in place of such an error.
    """
    failures: tuple[type[Exception], ...] = (OSError, *errors)
    try:
        yield
    except failures as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        expected = _EXPECTED.get(getattr(error, "errno", None) or 0, "with room, open to writing")
        problem = f"writing failed ({reason}); expected a directory {expected}"
        raise Unavailable(argument, directory, problem) from error


def prepare_directory(argument: str, directory: str | os.PathLike) -> Path:
    """Creates a directory where needed and checks that files can be written there.

    Raises:
        Unavailable: if they cannot; the message names the argument and the directory.
    """
    directory = Path(directory)
    with writing_to(argument, directory):
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"x")
    return directory
