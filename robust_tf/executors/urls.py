"""Outputs in other file systems, such as gs:// or s3://: whatever fsspec has a driver for.

They are worked on in a directory of this machine, and what changes there is copied. A
folder that was not copied whole counts as absent.
"""

import contextlib
import dataclasses
import shutil
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fsspec

from robust_tf.errors import InvalidArgument, Unavailable, one_line
from robust_tf.executors.mirror import Changes, Mirror
from robust_tf.files import scratch_folder

_SECONDS_BETWEEN_COPIES = 10.0
# In a folder while it is being copied for the first time.
_INCOMPLETE = ".incomplete"


def is_url(directory: str) -> bool:
    """Whether a directory is one of another file system."""
    return "://" in directory


@contextlib.contextmanager
def local(directories: Mapping[str, str]) -> Iterator[dict[str, Path]]:
    """Gives directories of this machine for directories of any file system.

    What lies there already is fetched first. What changes is copied every 10 seconds and
    at the end, in the order of `directories`.

    Args:
        directories: paths or URLs, by argument.

    Yields:
        Paths, by argument; those that are no URL as they were.

    Raises:
        InvalidArgument: if a URL is of no file system that fsspec knows.
        Unavailable: if its driver is not installed or it cannot be read or written.
    """
    places = {key: _open(key, url) for key, url in directories.items() if is_url(url)}
    if not places:
        yield {argument: Path(path) for argument, path in directories.items()}
        return
    with scratch_folder() as scratch:
        for argument, place in places.items():
            with place.used():
                place.fetch(scratch / argument)
        copies = Mirror({argument: scratch / argument for argument in places})
        stop = threading.Event()
        thread = threading.Thread(target=_keep_copying, args=(copies, places, stop), daemon=True)
        thread.start()
        try:
            yield {
                argument: scratch / argument if argument in places else Path(path)
                for argument, path in directories.items()
            }
        except (InvalidArgument, Unavailable) as error:
            if error.argument in places:  # the directory's own name, not that of its copy
                raise error.with_value(directories[error.argument]) from error
            raise
        finally:
            kept = scratch.with_name(f"kept-{scratch.name}")
            try:
                stop.set()
                thread.join()
                _copy(copies.changes(), places)
            except Unavailable as error:
                scratch.rename(kept)
                problem = f"{error.problem}; all of it is kept in {kept}"
                raise Unavailable(error.argument, error.value, problem) from error
            except BaseException:  # Ctrl-C once more
                scratch.rename(kept)
                warnings.warn(f"the last of it was not copied; it is kept in {kept}", stacklevel=2)
                raise


def _keep_copying(copies: Mirror, places: Mapping[str, "_Place"], stop: threading.Event) -> None:
    told = False
    while not stop.wait(_SECONDS_BETWEEN_COPIES):
        try:
            _copy(copies.changes(), places)
        except Unavailable as error:
            copies.forget()  # the next time, or at the end, all of it
            if not told:
                warnings.warn(f"{error}; trying again until the end", stacklevel=2)
            told = True
        else:
            told = False


def _copy(changes: Changes, places: Mapping[str, "_Place"]) -> None:
    for argument, place in places.items():
        with place.used():
            for (of, name), files in changes.files.items():
                if of == argument:
                    place.write(name, files)
            for of, name in changes.gone:
                if of == argument:
                    place.remove(name)


@dataclasses.dataclass(frozen=True)
class _Place:
    """A directory of another file system."""

    argument: str
    url: str
    system: Any
    root: str

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Turns what its driver raises, which may be anything, into one line."""
        try:
            yield
        except Exception as error:
            raise Unavailable(self.argument, self.url, one_line(error)) from error

    def fetch(self, directory: Path) -> None:
        """Copies what is there to this machine; sees that it can be written."""
        directory.mkdir()
        self.system.makedirs(self.root, exist_ok=True)
        probe = f"{self.root}/{_INCOMPLETE}"
        self.system.pipe_file(probe, b"x")
        self.system.rm_file(probe)
        for path in self.system.find(self.root):
            here = directory / path.removeprefix(self.root).lstrip("/")
            here.parent.mkdir(parents=True, exist_ok=True)
            self.system.get_file(path, str(here))
        for mark in list(directory.glob(f"*/{_INCOMPLETE}")):
            shutil.rmtree(mark.parent)

    def write(self, name: str, files: Mapping[str, bytes | None]) -> None:
        """Makes a folder's files those."""
        folder = f"{self.root}/{name}".rstrip("/")
        there = {
            path.removeprefix(folder).lstrip("/")
            for path in self.system.find(folder, maxdepth=None if name else 1)
        }
        # Hidden files are not ours, but for the mark.
        there = {path for path in there if path == _INCOMPLETE or "/." not in f"/{path}"}
        if name and not there:
            self._put(f"{folder}/{_INCOMPLETE}", b"x")
            there.add(_INCOMPLETE)
        for path, content in files.items():
            if content is not None:
                self._put(f"{folder}/{path}", content)
        for path in there - set(files):
            self.system.rm_file(f"{folder}/{path}")

    def remove(self, name: str) -> None:
        """Removes a folder."""
        folder = f"{self.root}/{name}"
        if self.system.exists(folder):
            self.system.rm(folder, recursive=True)

    def _put(self, path: str, content: bytes) -> None:
        self.system.makedirs(path.rpartition("/")[0], exist_ok=True)
        self.system.pipe_file(path, content)


def _open(argument: str, url: str) -> _Place:
    protocol = url.partition("://")[0]
    if protocol not in fsspec.available_protocols():
        expected = "a path, or a URL of a file system that fsspec has a driver for"
        raise InvalidArgument(argument, url, expected)
    try:
        system, root = fsspec.core.url_to_fs(url)
    except Exception as error:  # a driver that is not installed, or whatever it raises
        raise Unavailable(argument, url, one_line(error)) from error
    return _Place(argument, url, system, root.rstrip("/"))
