"""Outputs at URLs, such as gs:// or s3://: whatever fsspec has a driver for.

Work is done in a directory of this machine, below the user's cache directory, and stays
there until it is uploaded, whatever is killed. A folder is uploaded when it is finished,
whole; what changes in it later replaces the earlier version, file by file. Nothing at the
URL is ever deleted, and nothing here before it is known to be there.

The rule for readers: a run counts once its `runs.csv` is there, a SavedModel once its
`saved_model.pb` is; they are uploaded last.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from robust_tf.errors import InvalidArgument, Unavailable, one_line
from robust_tf.files import (
    digest,
    file_name,
    is_locked,
    locked,
    new_folder,
    prepare_directory,
    replacing,
    user_cache,
)

# Without the last a folder does not count. The first is in the folders of runs only, so
# that what has it and not the last is known to be a run that was not uploaded whole.
_FIRST, _LAST = "history.csv", ("runs.csv", "saved_model.pb")
# Some of these are in every folder that work goes on with.
_OURS = {"trials.csv", "models.csv", _FIRST, *_LAST}
# Holds for each local folder the digests of its files as they are at the URL.
_SENT = ".sent"
# A larger file is fetched again only where its size is another.
_LARGE = 2**20
# Written when a URL is opened, so that one that cannot be written is refused before the work.
_PROBE = ".robust_tf"
_RULE = (
    b"Outputs of robust_tf. A run counts once its runs.csv is there, "
    b"a SavedModel once its saved_model.pb is.\n"
)


def is_url(directory: str) -> bool:
    """Whether a directory is in another file system."""
    return "://" in directory


@contextlib.contextmanager
def local(directories: Mapping[str, str]) -> Iterator[dict[str, Path]]:
    """Gives directories of this machine for directories of any file system.

    What is at a URL is fetched first. What is finished is uploaded at the end, in the order
    of `directories`, and removed here; see also `upload`.

    Args:
        directories: paths or URLs, by argument.

    Yields:
        Paths, by argument; those that are no URL as they were.

    Raises:
        InvalidArgument: if fsspec knows no file system for a URL.
        Unavailable: if its driver is not installed or it cannot be read or written.
    """
    places = _places(directories)
    with contextlib.ExitStack() as stack:
        descriptors = [stack.enter_context(place.opened()) for place in places.values()]
        try:
            yield {
                argument: places[argument].here if argument in places else Path(path)
                for argument, path in directories.items()
            }
        except (InvalidArgument, Unavailable) as error:
            if error.argument in places:  # the URL, not the directory of this machine
                raise _at_url(error, places[error.argument]) from error
            raise
        finally:
            kept = ", ".join(str(place.here) for place in places.values())
            try:
                for place in places.values():
                    place.upload()
            except Unavailable as error:
                problem = f"{error.problem}; what is not there yet is kept in {kept}, and the "
                problem += "same command goes on with it"
                raise Unavailable(error.argument, error.value, problem) from error
            except KeyboardInterrupt:
                warnings.warn(f"what was not uploaded yet is kept in {kept}", stacklevel=2)
                raise
            for place, descriptor in zip(places.values(), descriptors):
                place.tidy(descriptor)


def _at_url(error: InvalidArgument | Unavailable, place: "_Place") -> InvalidArgument | Unavailable:
    here, url = str(place.here), place.url
    if isinstance(error, InvalidArgument):
        return error.with_value(url)
    value = str(error.value)
    value = value.replace(here, url) if here in value else url
    return Unavailable(error.argument, value, error.problem.replace(here, url))


def upload(directories: Mapping[str, str], name: str) -> None:
    """Uploads the folders of one name now, if they are finished.

    Without success there is a warning: `local` tries again at its end.

    Args:
        directories: as for `local`, in whose `with` statement this is called.
        name: the folders' name, that of a run.
    """
    try:
        for place in _places(directories).values():
            place.upload(name)
    except Unavailable as error:
        warnings.warn(f"{error}; uploading is tried again at the end", stacklevel=2)


def _places(directories: Mapping[str, str]) -> dict[str, "_Place"]:
    places = {key: _place(key, url) for key, url in directories.items() if is_url(url)}
    roots = frozenset(place.root for place in places.values())
    return {key: dataclasses.replace(place, others=roots) for key, place in places.items()}


def _place(argument: str, url: str) -> "_Place":
    import fsspec

    protocol = url.partition("://")[0]
    if protocol == "memory":
        warnings.warn(f"{argument}={url} ends with this process", stacklevel=2)
    if protocol not in {*fsspec.available_protocols(), *fsspec.registry}:
        expected = "a path, or a URL of a file system that fsspec has a driver for"
        raise InvalidArgument(argument, url, expected)
    try:
        system, root = fsspec.core.url_to_fs(url)
    except Exception as error:  # a driver that is not installed, or whatever it raises
        raise Unavailable(argument, url, one_line(error)) from error
    same = url.rstrip("/")
    here = user_cache() / "outputs" / f"{file_name(same)[:80]}-{digest(same)}"
    return _Place(argument, url, system, root.rstrip("/"), here)


@dataclasses.dataclass(frozen=True)
class _Place:
    """A directory of another file system, and the one of this machine that stands for it.

    A folder's name is that of one directly in the directory; "" stands for the directory's
    own files. What belongs to `others`, the roots of all places, is left to them.
    """

    argument: str
    url: str
    system: Any
    root: str
    here: Path
    others: frozenset[str] = frozenset()

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """Fetches what is there; yields what `tidy` needs."""
        prepare_directory("XDG_CACHE_HOME", self.here)
        descriptor = os.open(self.here, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)  # as long as this process uses it
            with locked(self.here / _SENT), self._used():
                self._put("", _PROBE, _RULE)
                self._fetch()
            yield descriptor
        finally:
            os.close(descriptor)

    def upload(self, *names: str) -> None:
        """Uploads what is finished and not there yet: some folders, or all."""
        for name in names or ["", *self._folders()]:
            if (self.here / name).is_dir() and not is_locked(self.here / name):
                for path in self._unsent(name):
                    content = (self.here / name / path).read_bytes()
                    with self._used():
                        self._put(name, path, content)
                    self._note(name, {path: [_digest(content)]})

    def tidy(self, descriptor: int) -> None:
        """Removes all but training that is not finished, once everything is uploaded.

        Nothing is removed while another process uses the directory, or a folder in it.
        """
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        folders = self._folders()
        if self._unsent("") or any(is_locked(self.here / n) or self._unsent(n) for n in folders):
            return
        for name in folders:
            shutil.rmtree(self.here / name)
        for left in self.here.iterdir():  # hidden: records, and a fetch that was killed
            if left.is_file():
                left.unlink()
            elif left.name[0] == ".":
                shutil.rmtree(left)

    def _folders(self) -> list[str]:
        folders = [path.name for path in self.here.iterdir() if path.is_dir()]
        return sorted(name for name in folders if name[0] != "." and not name.endswith(".partial"))

    def _fetch(self) -> None:
        """Copies what counts to this machine, but for what is not uploaded yet from here."""
        self.system.invalidate_cache()
        sizes = self._listed(self.root)
        # SavedModels that lie here too are for a place of their own.
        parts = [path.split("/") for path in sizes]
        models = {names[0] for names in parts if names[3:] == [_LAST[1]]}
        there: dict[str, list[str]] = {}
        for names in parts:
            if names[0] not in models:
                there.setdefault(names[0] if names[1:] else "", []).append(
                    "/".join(names[1:] or names)
                )
        for name in ["", *self._folders()]:
            sent = self._sent(name)
            kept = {path: sent[path] for path in sent if path in there.get(name, ())}
            if kept != sent:  # gone there, so that what is here may be the only copy
                self._write(name, kept)
        for name, paths in there.items():
            if not _OURS & {path.rpartition("/")[2] for path in paths if path.count("/") < 2}:
                continue  # whatever else lies at the URL
            folder = self.here / name
            counting = [path for path in paths if _counts(name, path, paths)]
            if counting and not folder.is_dir():
                with new_folder(folder) as temporary:  # complete or not at all, here too
                    for path in counting:
                        self._get(name, path, temporary)
            elif counting and not is_locked(folder):
                unsent, here = self._unsent(name), _files(folder, deep=bool(name))
                for path in counting:
                    size = sizes[f"{name}/{path}".lstrip("/")]
                    same = path in here and size > _LARGE and here[path].stat().st_size == size
                    if path not in unsent and not same:
                        self._get(name, path, folder)

    def _listed(self, folder: str) -> dict[str, int]:
        """The size of all files but hidden ones, by their path from the root.

        `find` of many drivers takes a folder that cannot be listed for an empty one.
        """
        sizes = {}
        for about in self.system.ls(folder, detail=True):
            path = about["name"].rstrip("/")
            if path == folder or path.rpartition("/")[2].startswith("."):
                continue
            if about["type"] != "directory":
                sizes[path.removeprefix(self.root).lstrip("/")] = about["size"]
            elif path not in self.others:
                sizes |= self._listed(path)
        return sizes

    def _get(self, name: str, path: str, folder: Path) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(folder / path) as temporary:
            self.system.get_file(self._at(name, path), str(temporary))
            digest = _digest(temporary.read_bytes())
            # Whether or not it is killed before the next line, what is here is known.
            self._note(name, {path: [*self._sent(name).get(path, []), digest]})
        self._note(name, {path: [digest]})

    def _put(self, name: str, path: str, content: bytes) -> None:
        from fsspec.implementations.local import LocalFileSystem

        path = self._at(name, path)
        self.system.makedirs(path.rpartition("/")[0], exist_ok=True)
        if isinstance(self.system, LocalFileSystem):  # its transactions ignore the umask
            with replacing(path) as temporary, self.system.open(str(temporary), "wb") as file:
                file.write(content)
        else:
            with self.system.transaction, self.system.open(path, "wb") as file:
                file.write(content)

    def _at(self, name: str, path: str) -> str:
        return "/".join([self.root, *filter(None, [name]), path])

    def _record(self, name: str) -> Path:
        return self.here / _SENT / f"{name}.json"

    def _sent(self, name: str) -> dict[str, list[str]]:
        """The digests by which a file's content is known to be, or to have been, at the URL."""
        try:
            known = json.loads(self._record(name).read_text(encoding="utf-8")).items()
        except (OSError, ValueError, AttributeError):  # none, or a damaged one
            return {}
        return {path: digests for path, digests in known if isinstance(digests, list)}

    def _unsent(self, name: str) -> list[str]:
        """The files of a folder that are not uploaded, in the order in which they are to be."""
        sent, files = self._sent(name), _files(self.here / name, deep=bool(name))
        return [
            path
            for path in sorted(files, key=_order)
            if _digest(files[path].read_bytes()) not in sent.get(path, [])
        ]

    def _note(self, name: str, digests: Mapping[str, list[str]]) -> None:
        self._write(name, {**self._sent(name), **digests})

    def _write(self, name: str, digests: Mapping[str, list[str]]) -> None:
        with replacing(self._record(name)) as temporary:
            temporary.write_text(json.dumps(digests), encoding="utf-8")

    @contextlib.contextmanager
    def _used(self) -> Iterator[None]:
        """Turns what a driver raises, which may be anything, into one line."""
        try:
            yield
        except Exception as error:
            raise Unavailable(self.argument, self.url, one_line(error)) from error


def _order(path: str) -> tuple[bool, bool, str]:
    """Sorts the files of a folder as they are uploaded."""
    name = path.rpartition("/")[2]
    return name in _LAST, name != _FIRST, path


def _counts(name: str, path: str, paths: Collection[str]) -> bool:
    """Whether a file of a folder belongs to a run or SavedModel that is whole, or to neither."""
    if name and _FIRST in paths and _LAST[0] not in paths:
        return False
    version, _, inside = path.partition("/")
    return not (name and inside and version.isdecimal()) or f"{version}/{_LAST[1]}" in paths


def _files(folder: Path, deep: bool = True) -> dict[str, Path]:
    """A folder's files by their path in it, but for hidden ones."""
    found = {}
    for path in folder.rglob("*") if deep else folder.iterdir():
        inside = path.relative_to(folder)
        if not any(part.startswith(".") for part in inside.parts) and path.is_file():
            found[inside.as_posix()] = path
    return found


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
