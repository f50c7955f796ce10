"""Keeps folders the same in two places that share no file system.

One side looks at its directories now and then and tells what has changed; the other
does likewise. Files and folders appear there complete or not at all, as they did here.
"""

import dataclasses
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from robust_tf.files import new_folder, replacing

# A folder directly in one of the directories: (the directory's argument, its name).
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
    """Looks for changes in the folders of some directories.

    Names that begin with a dot are those of temporary files and left out.

    Args:
        directories: by argument. What is there now counts as known.
    """

    def __init__(self, directories: Mapping[str, Path]):
        """See the class."""
        self._directories = directories
        self._known = self._look()

    def _look(self) -> dict[Folder, dict[str, tuple[int, int]]]:
        """Time and size of all files."""
        return {
            (argument, folder.name): {
                path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.stat().st_size)
                for path in _files(folder)
            }
            for argument, directory in self._directories.items()
            for folder in directory.iterdir()
            if folder.is_dir() and not folder.name.startswith(".")
        }

    def changes(self) -> Changes:
        """What has changed since the last call; nothing while files are on the move."""
        try:
            found = self._look()
            files = {
                (argument, name): {
                    path: None
                    if self._known.get((argument, name), {}).get(path) == stamp
                    else (self._directories[argument] / name / path).read_bytes()
                    for path, stamp in there.items()
                }
                for (argument, name), there in found.items()
                if there != self._known.get((argument, name))
            }
        except FileNotFoundError:
            return Changes({})  # the next look will find them in their place
        gone = tuple(folder for folder in self._known if folder not in found)
        self._known = found
        return Changes(files, gone)


def read(directories: Mapping[str, Path], folders: Iterable[Folder]) -> Changes:
    """The whole content of some folders; those that are not there are left out."""
    return Changes(
        {
            (argument, name): {
                path.relative_to(directories[argument] / name).as_posix(): path.read_bytes()
                for path in _files(directories[argument] / name)
            }
            for argument, name in folders
            if (directories[argument] / name).is_dir()
        }
    )


def apply(changes: Changes, directories: Mapping[str, Path]) -> None:
    """Makes the same changes elsewhere, in the order of `directories`.

    Raises:
        OSError: if a directory cannot be written.
    """
    for argument, directory in directories.items():
        for (of, name), files in changes.files.items():
            if of == argument:
                _apply(files, directory / name)
    for argument, name in changes.gone:
        shutil.rmtree(directories[argument] / name, ignore_errors=True)


def _apply(files: dict[str, bytes | None], folder: Path) -> None:
    if not folder.exists():
        with new_folder(folder) as temporary:
            _write(files, temporary)
        return
    for path in _files(folder):
        if path.relative_to(folder).as_posix() not in files:
            path.unlink()
    _write(files, folder)


def _write(files: dict[str, bytes | None], folder: Path) -> None:
    for name, content in files.items():
        if content is not None:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                temporary.write_bytes(content)


def _files(folder: Path) -> list[Path]:
    """All files in a folder and those below it."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(parent, name) for name in sorted(names) if not name.startswith(".")]
    return found
