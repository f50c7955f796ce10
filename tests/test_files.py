"""Files and folders that are complete or absent, on disk, and locked by who works on them."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from robust_tf.data import tfds
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.files import (
    is_locked,
    locked,
    new_folder,
    prepare_directory,
    rename_folder,
    replacing,
    sweep_versions,
    writing_to,
)
from tests.helpers import check_one_line


def test_a_folder_of_another_user_counts_as_used(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr("os.open", refuse)
    assert is_locked(tmp_path)


def test_a_folder_that_is_renamed_before_it_is_locked(tmp_path):
    open_, moved = os.open, []

    def opens(path, flags, **kwargs):
        if not moved:
            moved.append(Path(path).rename(tmp_path / "finished"))
        return open_(path, flags, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.open", opens)
        with locked(tmp_path / "run"):
            pass
    assert moved and (tmp_path / "run").is_dir()


@pytest.fixture
def on_disk(monkeypatch) -> list[str]:
    """What is put on disk and renamed, in order, by its name at that time."""
    order: list[str] = []
    fsync, replace, rename = os.fsync, os.replace, os.rename

    def noted(descriptor):
        order.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def renamed(do):
        def call(source, target):
            order.append(f"-> {Path(target).name}")
            do(source, target)

        return call

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "replace", renamed(replace))
    monkeypatch.setattr(os, "rename", renamed(rename))
    return order


def test_a_file_is_on_disk_before_its_name_and_its_name_before_the_end(tmp_path, on_disk):
    with replacing(tmp_path / "a.csv") as path:
        path.write_text("1")
    assert on_disk == [path.name, "-> a.csv", tmp_path.name]


@pytest.mark.parametrize("way", ["new", "renamed"])
def test_all_of_a_folder_is_on_disk_before_its_name(tmp_path, on_disk, way):
    def fill(folder):
        (folder / "variables").mkdir()
        (folder / "variables" / "data").write_text("1")
        (folder / "model.pb").write_text("2")

    if way == "new":
        with new_folder(tmp_path / "1") as folder:
            fill(folder)
    else:
        folder = tmp_path / "run.partial"
        folder.mkdir()
        fill(folder)
        rename_folder(folder, tmp_path / "1")
    at = on_disk.index("-> 1")
    assert sorted(on_disk[:at]) == sorted(["variables", "data", "model.pb", folder.name])
    assert on_disk[at + 1 :] == [tmp_path.name]


def test_what_a_killed_process_has_left_is_swept_and_nothing_else(tmp_path):
    lines = (
        "import os, sys; from robust_tf.files import new_folder, replacing; from pathlib import *",
        "place = Path(sys.argv[1])",
        "with new_folder(place / '1') as folder, replacing(place / 'a.csv') as path:",
        "    (folder / 'half').touch(); path.write_text('half'); os.kill(os.getpid(), 9)",
    )
    command = [sys.executable, "-c", "\n".join(lines), tmp_path]
    assert subprocess.run(command, timeout=60).returncode == -9
    left = {path.name for path in tmp_path.iterdir()}
    assert len(left) == 2
    kept = {".1-notes", ".original-a.csv", ".12-a.txt", "1-01234567", ".2-01234567"}
    for name in kept:
        (tmp_path / name).mkdir()
    with new_folder(tmp_path / "1") as first, replacing(tmp_path / "a.csv") as file:
        # Those of a process that goes on are in use.
        with new_folder(tmp_path / "1") as second:
            assert first.exists()
            assert {path.name for path in tmp_path.iterdir()} == {
                first.name, second.name, file.name, *kept,
            }  # fmt: skip
            (second / "whole").touch()
            (tmp_path / "1").mkdir()  # an empty folder gives way
        file.write_text("whole")
        (tmp_path / "1").rename(tmp_path / "2")
    assert {path.name for path in tmp_path.iterdir()} == {"1", "2", "a.csv", *kept}
    sweep_versions(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"1", "2", "a.csv", *kept} - {
        ".2-01234567"
    }


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, "with room"),
        (errno.EDQUOT, "with room"),
        (errno.EACCES, "open to writing"),
        (errno.EROFS, "open to writing"),
        (errno.ENAMETOOLONG, "of a shorter name"),
        (errno.ENOENT, "that is there"),
        (errno.EIO, "with room, open to writing"),
    ],
)
def test_a_failure_to_write_says_what_would_help(number, expected):
    reason = os.strerror(number)
    message = rf"^output_dir=x: writing failed \({reason}\); expected a directory {expected}$"
    with pytest.raises(Unavailable, match=message), writing_to("output_dir", "x"):
        raise OSError(number, reason)


def test_places_that_cannot_be_directories(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "to").symlink_to("nowhere/at/all")
    for name, expected in {
        "file": "and no file or broken link",
        "file/inside": "and no file or broken link",
        "loop": "and no file or broken link",
        "loop/inside": "",
        "to": "and no file or broken link",
        "n" * 300: "of a shorter name",
    }.items():
        with pytest.raises(Unavailable, match=rf"^o=.*; expected a directory {expected}[^\n]*$"):
            prepare_directory("o", tmp_path / name)


@pytest.mark.parametrize("name", ["", " ", "\t"])
def test_an_empty_name_of_a_dataset_is_that(tmp_path, name):
    with pytest.raises(InvalidArgument, match=r"^dataset=\s*: expected the name of a TFDS dataset"):
        tfds.open_builder(name, str(tmp_path))


@pytest.mark.parametrize("url", ["nope://x", "s3://bucket/a", "other://x/y"])
def test_data_that_cannot_be_reached_are_not_to_be_deleted(url):
    with pytest.raises(Unavailable, match="can be reached and read, but") as caught:
        tfds.open_builder("mnist", url)
    assert "delete" not in str(caught.value)


def test_a_working_directory_that_was_removed_is_one_line(in_process, monkeypatch):
    def gone():
        raise FileNotFoundError

    monkeypatch.setattr(os, "getcwd", gone)
    check_one_line(in_process(), 1, "the working directory was removed")


@pytest.mark.parametrize("flag", ["output_dir", "saved_models_dir"])
def test_a_link_to_itself_is_one_line(in_process, tmp_path, flag):
    (tmp_path / "loop").symlink_to("loop")
    for place in ("loop", "loop/inside"):
        done = in_process(f"--{flag}={tmp_path}/{place}", "--data_source=sample")
        check_one_line(done, 1, f"--{flag}={tmp_path}/{place}: writing failed")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, MemoryError])
@pytest.mark.parametrize("written", [False, True])
def test_a_folder_that_an_error_leaves_empty_is_removed(tmp_path, error, written):
    with pytest.raises(error), locked(tmp_path / "a" / "b"):
        if written:
            (tmp_path / "a" / "b" / "trials.csv").write_text("kept")
        raise error
    assert (tmp_path / "a" / "b").exists() == written


LONG = "n" * 300


@pytest.mark.parametrize(
    ("pipeline", "arguments", "code"),
    [
        ("evaluate", (f"--model={LONG}.keras",), 1),
        ("evaluate", (f"--model={LONG}",), 1),
        ("serve", (f"--model={LONG}",), 1),
        ("compare", (LONG, "b"), 1),
        ("report", (f"--output_dir={LONG}",), 1),
        ("run", (f"--output_dir={'n/' * 3000}", "--data_source=sample"), 1),
        ("run", ("--strategy=transfer", "--perturb=hot", f"--pretrained={LONG}"), 1),
        ("evaluate", ("--model=a\0b",), 2),
        ("run", ("--output_dir=a\0b",), 2),
        ("run", ("--data_dir=a\0b",), 2),
        ("compare", ("a\0b", "c"), 2),
    ],
)
def test_names_that_no_file_can_have_are_one_line(in_process, pipeline, arguments, code):
    words = {1: "File name too long", 2: "expected text without null characters"}
    source = () if pipeline in ("report", "serve") else ("--data_source=sample",)
    done = in_process(*arguments, *source, pipeline=f"pipelines.{pipeline}")
    check_one_line(done, code, words[code] if f"{LONG}.keras" not in arguments[0] else "expected")
