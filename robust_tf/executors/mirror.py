"""Keeps folders the same in two places that share no file system.

One side looks at its directories now and then and tells what has changed; the other
makes the same changes. A folder that is new there appears complete or not at all.
"""

import dataclasses
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from robust_tf.files import new_folder, replacing

# A folder directly in one of the directories: (the directory's argument, its name). With
# the name "" it stands for the files directly in the directory.
Folder = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Changes:
    """What has changed since the last look.

    Attributes:
        files: of each folder in which something has changed, all its files by their path
            in it: the content, or None where that is as it was.
        gone: folders that are no longer there.
    """

    files: dict[Folder, dict[str, bytes | None]]
    gone: tuple[Folder, ...] = ()

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.files or self.gone)


class Mirror:
    """Looks for changes in some directories; what is there at first counts as known.

    Names that begin with a dot are those of temporary files and left out.

    Args:
        directories: by argument.
    """

    def __init__(self, directories: Mapping[str, Path]):
        """See the class."""
        self._directories = directories
        self._known = self._look()
        self._gone: tuple[Folder, ...] = ()

    def forget(self) -> None:
        """Makes all that is there count as changed, and what is gone as gone again."""
        self._known = {folder: {} for folder in (*self._known, *self._gone)}

    def changes(self) -> Changes:
        """What has changed since the last call; nothing while files are on the move."""
        files: dict[Folder, dict[str, bytes | None]] = {}
        try:
            found = self._look()
            for (argument, name), there in found.items():
                known = self._known.get((argument, name), {})
                if there != known:
                    folder = self._directories[argument] / name
                    files[argument, name] = {
                        path: None if known.get(path) == stamp else (folder / path).read_bytes()
                        for path, stamp in there.items()
                    }
        except FileNotFoundError:
            return Changes({})  # the next look will find them in their place
        self._gone = tuple(folder for folder in self._known if folder not in found)
        self._known = found
        return Changes(files, self._gone)

    def _look(self) -> dict[Folder, dict[str, tuple[int, int]]]:
        """Time and size of all files."""
        found: dict[Folder, dict[str, tuple[int, int]]] = {}
        for argument, directory in self._directories.items():
            folders = [path.name for path in directory.iterdir() if path.is_dir()]
            for name in ["", *(name for name in folders if not name.startswith("."))]:
                files = {}
                for path in paths(directory, name):
                    status = (directory / name / path).stat()
                    files[path] = (status.st_mtime_ns, status.st_size)
                found[argument, name] = files
        return found


def read(directories: Mapping[str, Path], folders: Iterable[Folder]) -> Changes:
    """The whole content of some folders; those that are not there are left out."""
    found = {(key, name): _content(directories[key], name) for key, name in folders}
    return Changes({folder: content for folder, content in found.items() if content})


def _content(directory: Path, name: str) -> dict[str, bytes | None]:
    """The files of a folder by their path in it; none where there is no folder."""
    before = None
    while True:
        there = paths(directory, name)
        try:
            return {path: (directory / name / path).read_bytes() for path in there}
        except FileNotFoundError:  # on the move just now
            if there == before:  # or a link to nothing
                raise
            before = there


def apply(changes: Changes, directories: Mapping[str, Path]) -> None:
    """Makes the same changes elsewhere, in the order of `directories`.

    Raises:
        OSError: if a directory cannot be written.
    """
    for argument, directory in directories.items():
        for (of, name), files in changes.files.items():
            if of == argument and (directory / name).exists():
                _write(files, directory / name)  # first, so that there is always one state
                for path in paths(directory, name):
                    if path not in files:
                        (directory / name / path).unlink()
            elif of == argument:
                with new_folder(directory / name) as temporary:
                    _write(files, temporary)
    for argument, name in changes.gone:
        shutil.rmtree(directories[argument] / name, ignore_errors=True)


def _write(files: dict[str, bytes | None], folder: Path) -> None:
    for name, content in files.items():
        if content is not None:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                temporary.write_bytes(content)


def paths(directory: Path, name: str) -> list[str]:
    """The paths of a folder's files, in it; see `Folder`."""
    found = []
    for parent, folders, files in os.walk(directory / name):
        folders[:] = sorted(folder for folder in folders if name and not folder.startswith("."))
        inside = Path(parent).relative_to(directory / name)
        found += [(inside / file).as_posix() for file in sorted(files) if file[0] != "."]
    return found
