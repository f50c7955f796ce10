"""Folders that are kept the same in two places, and outputs in other file systems."""

import os
import subprocess
import time
from pathlib import Path

import fsspec
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.executors import mirror, urls
from robust_tf.files import is_locked, locked, scratch_folder
from tests.helpers import check_one_line, outcome


def files(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


PATHS = st.sampled_from(["a/x", "a/y", "a/deep/er/z", "b/x", "b.partial/x", "top"])
STEPS = st.lists(st.tuples(PATHS, st.one_of(st.none(), st.binary(max_size=9))), max_size=12)


@given(steps=st.lists(STEPS, max_size=4))
def test_the_other_side_ends_the_same(tmp_path_factory, steps):
    here, there = ({"output_dir": tmp_path_factory.mktemp(name)} for name in ("here", "there"))
    look = mirror.Mirror(here)
    for step in steps:
        for path, content in step:
            file = here["output_dir"] / path
            if content is None:
                file.unlink(missing_ok=True)
            else:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
        mirror.apply(look.changes(), there)
        assert files(there["output_dir"]) == files(here["output_dir"])
    assert not look.changes()


def test_the_last_file_of_a_directory_takes_no_folder_along(tmp_path):
    here, there = {"output_dir": tmp_path / "here"}, {"output_dir": tmp_path / "there"}
    (tmp_path / "here").mkdir()
    (tmp_path / "there" / "others").mkdir(parents=True)
    (tmp_path / "there" / "others" / "file").write_text("x")
    look = mirror.Mirror(here)
    (tmp_path / "here" / "report.md").write_text("y")
    mirror.apply(look.changes(), there)
    (tmp_path / "here" / "report.md").unlink()
    mirror.apply(look.changes(), there)
    assert files(tmp_path / "there") == {"others/file": b"x"}


def test_only_what_has_changed_is_sent(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "big").write_bytes(b"x" * 1000)
    (tmp_path / "other").mkdir()
    look = mirror.Mirror({"output_dir": tmp_path})
    (tmp_path / "run" / "small").write_text("y")
    (tmp_path / "run" / ".temporary").write_text("z")
    changes = look.changes()
    assert changes.files == {("output_dir", "run"): {"big": None, "small": b"y"}}
    (tmp_path / "run").rename(tmp_path / "finished")
    changes = look.changes()
    assert changes.files == {("output_dir", "finished"): {"big": b"x" * 1000, "small": b"y"}}
    assert changes.gone == (("output_dir", "run"),)


def test_the_content_of_some_folders(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_text("d")
    (tmp_path / "not asked for").mkdir()
    changes = mirror.read({"output_dir": tmp_path}, [("output_dir", "a"), ("output_dir", "gone")])
    assert changes.files == {("output_dir", "a"): {"b/c": b"d"}}


def test_files_on_the_move_are_read_again(tmp_path, monkeypatch):
    (tmp_path / "run" / "backup").mkdir(parents=True)
    (tmp_path / "run" / "backup" / "state").write_text("x")
    (tmp_path / "run" / "runs.csv").write_text("y")
    seen = []
    look = mirror.paths

    def paths(*arguments):
        found = look(*arguments)
        if not seen:  # between the look and the reading
            (tmp_path / "run" / "backup" / "state").unlink()
        seen.append(found)
        return found

    monkeypatch.setattr(mirror, "paths", paths)
    changes = mirror.read({"output_dir": tmp_path}, [("output_dir", "run")])
    assert changes.files == {("output_dir", "run"): {"runs.csv": b"y"}} and len(seen) == 2


def test_there_is_always_one_state(tmp_path, monkeypatch):
    here, there = {"output_dir": tmp_path / "here"}, {"output_dir": tmp_path / "there"}
    for folder in (here, there):
        (folder["output_dir"] / "run").mkdir(parents=True)
    (tmp_path / "there" / "run" / "epoch-4").write_text("4")
    look = mirror.Mirror(here)
    (tmp_path / "here" / "run" / "epoch-5").write_text("5")

    def full(*_):
        raise OSError("no room")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match="no room"):
        patch.setattr(mirror, "replacing", full)
        mirror.apply(changes := look.changes(), there)
    assert files(tmp_path / "there") == {"run/epoch-4": b"4"}
    mirror.apply(changes, there)
    assert files(tmp_path / "there") == {"run/epoch-5": b"5"}


def test_what_is_gone_is_told_until_it_is_known(tmp_path):
    (tmp_path / "run.partial").mkdir()
    (tmp_path / "run.partial" / "x").write_text("1")
    look = mirror.Mirror({"output_dir": tmp_path})
    (tmp_path / "run.partial").rename(tmp_path / "run")
    for _ in range(2):
        changes = look.changes()
        assert changes.gone == (("output_dir", "run.partial"),)
        assert changes.files == {("output_dir", "run"): {"x": b"1"}}
        look.forget()  # as where it could not be passed on


def test_a_folder_of_another_user_counts_as_used(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr("os.open", refuse)
    assert is_locked(tmp_path)


def test_a_folder_that_is_renamed_before_it_is_locked(tmp_path, monkeypatch):
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


def test_a_scratch_folder_goes_with_its_process(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch_folder() as folder:
        (folder / "file").write_text("x")
        with scratch_folder() as other:
            assert folder.is_dir() and other.is_dir()  # a live process's is left alone
    assert list(tmp_path.iterdir()) == []
    left = tmp_path / "robust_tf-scratch-died"
    left.mkdir()
    (tmp_path / "robust_tf-mine").mkdir()
    with locked(tmp_path / "robust_tf-scratch-alive"), scratch_folder():
        pass
    assert {path.name for path in tmp_path.iterdir()} == {
        "robust_tf-mine",
        "robust_tf-scratch-alive",
    }


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def test_paths_stay_as_they_are(tmp_path):
    with urls.local({"output_dir": str(tmp_path), "saved_models_dir": "x"}) as folders:
        assert folders == {"output_dir": tmp_path, "saved_models_dir": Path("x")}


def test_outputs_in_another_file_system(memory):
    url = {"output_dir": "memory://bucket/results"}
    with urls.local(url) as folders:
        (folders["output_dir"] / "run").mkdir()
        (folders["output_dir"] / "run" / "runs.csv").write_text("1")
        (folders["output_dir"] / "report.md").write_text("2")
    there = {path: memory.cat(path) for path in memory.find("/bucket")}
    assert there == {"/bucket/results/run/runs.csv": b"1", "/bucket/results/report.md": b"2"}
    with urls.local(url) as folders:
        assert files(folders["output_dir"]) == {"run/runs.csv": b"1", "report.md": b"2"}
        (folders["output_dir"] / "run").rename(folders["output_dir"] / "other")
    assert memory.find("/bucket") == ["/bucket/results/other/runs.csv", "/bucket/results/report.md"]


def test_what_was_done_is_copied_where_an_error_ends_it(memory):
    with pytest.raises(ZeroDivisionError), urls.local({"output_dir": "memory://b"}) as folders:
        (folders["output_dir"] / "done").write_text("1")
        raise ZeroDivisionError
    assert memory.cat("/b/done") == b"1"


def test_a_folder_that_was_not_copied_whole_counts_as_absent(memory):
    memory.pipe("/b/run/.incomplete", b"x")
    memory.pipe("/b/run/history.csv", b"1")
    memory.pipe("/b/whole/runs.csv", b"2")
    with urls.local({"output_dir": "memory://b"}) as folders:
        assert files(folders["output_dir"]) == {"whole/runs.csv": b"2"}
        (folders["output_dir"] / "run").mkdir()
        (folders["output_dir"] / "run" / "runs.csv").write_text("3")
    assert memory.find("/b") == ["/b/run/runs.csv", "/b/whole/runs.csv"]


def test_hidden_files_are_left_alone(memory):
    memory.pipe("/b/.gitignore", b"x")
    memory.pipe("/b/run/.notes", b"y")
    with urls.local({"output_dir": "memory://b"}) as folders:
        (folders["output_dir"] / "report.md").write_text("1")
        (folders["output_dir"] / "run" / "runs.csv").write_text("2")
    assert memory.cat("/b/.gitignore") == b"x" and memory.cat("/b/run/.notes") == b"y"
    assert memory.cat("/b/report.md") == b"1"


def test_what_a_second_interrupt_leaves_is_kept(memory, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with (
        pytest.warns(UserWarning, match="it is kept in"),
        pytest.raises(KeyboardInterrupt),
        urls.local({"output_dir": "memory://b"}) as folders,
    ):
        monkeypatch.setattr(urls, "_copy", interrupted)
        (folders["output_dir"] / "run").mkdir()
        (folders["output_dir"] / "run" / "runs.csv").write_text("1")
    (kept,) = tmp_path.rglob("runs.csv")
    assert kept.read_text() == "1"


def test_copies_that_fail_are_told_once_and_made_again(memory, monkeypatch):
    monkeypatch.setattr(urls, "_SECONDS_BETWEEN_COPIES", 0.05)
    pipe, failures = type(memory).pipe_file, []

    def fails_at_first(self, path, *arguments, **options):
        if "runs.csv" in path and len(failures) < 3:
            failures.append(path)
            raise OSError("out of reach")
        return pipe(self, path, *arguments, **options)

    with (
        pytest.warns(UserWarning, match="out of reach; trying again") as told,
        urls.local({"output_dir": "memory://b"}) as folders,
    ):
        monkeypatch.setattr(type(memory), "pipe_file", fails_at_first)
        (folders["output_dir"] / "run").mkdir()
        (folders["output_dir"] / "run" / "runs.csv").write_text("1")
        deadline = time.monotonic() + 30
        while not memory.exists("/b/run/runs.csv") and time.monotonic() < deadline:
            time.sleep(0.02)
    assert len(failures) == 3 and len(told) == 1
    assert memory.find("/b") == ["/b/run/runs.csv"]


def test_what_cannot_be_copied_is_kept(memory, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def full(*_, **__):
        raise OSError("no room there")

    with (
        pytest.raises(Unavailable, match="output_dir=memory://b: no room there; all of it is kept"),
        urls.local({"output_dir": "memory://b"}) as folders,
    ):
        monkeypatch.setattr(type(memory), "pipe_file", full)
        (folders["output_dir"] / "run").mkdir()
        (folders["output_dir"] / "run" / "runs.csv").write_text("1")
    (kept,) = tmp_path.rglob("runs.csv")
    assert kept.read_text() == "1"


def test_an_error_names_the_url_and_not_its_copy(memory):
    with (
        pytest.raises(Unavailable, match="^output_dir=memory://b: no room$"),
        urls.local({"output_dir": "memory://b"}) as folders,
    ):
        raise Unavailable("output_dir", folders["output_dir"], "no room")


def test_urls_of_no_file_system():
    with pytest.raises(InvalidArgument, match="output_dir=what://b: expected a path, or a URL"):
        urls.local({"output_dir": "what://b"}).__enter__()
    with pytest.raises(Unavailable, match="output_dir=ftp://127.0.0.1:9/b: .*refused"):
        urls.local({"output_dir": "ftp://127.0.0.1:9/b"}).__enter__()


SMALL = ("--data_source=sample", "--train_examples=300", "--test_examples=100", "--trials=1")


def test_a_sweep_with_outputs_at_a_url_goes_on(command, tmp_path):
    flags = (
        *SMALL,
        f"--output_dir=file://{tmp_path}/there/results",
        f"--saved_models_dir=file://{tmp_path}/there/saved_models",
    )
    grid = ("--datasets=mnist", "--strategies=transfer", "--perturbs=hot", "--epochs=2")
    first = command(*flags, *grid, "--levels=1", pipeline="pipelines.grid")
    assert first.returncode == 0, outcome(first)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("saved_model.pb")}
    assert len(times) == 2
    second = command(*flags, *grid, "--levels=1,2", pipeline="pipelines.grid")
    assert second.returncode == 0, outcome(second)
    assert {path: path.stat().st_mtime_ns for path in times} == times  # not trained again
    runs = pd.read_csv(tmp_path / "there" / "results" / "grid" / "tables" / "runs.csv")
    assert len(runs) == 3
    for row in runs.itertuples():
        assert row.saved_model == f"file://{tmp_path}/there/saved_models/{row.run}/1"
        assert (Path(row.saved_model.removeprefix("file://")) / "saved_model.pb").is_file()
    report = command(flags[-2], pipeline="pipelines.report")
    assert report.returncode == 0, outcome(report)
    assert (tmp_path / "there" / "results" / "report.html").is_file()


def test_a_driver_that_is_not_installed(command):
    missing = subprocess.call(["python", "-c", "import gcsfs"], stderr=subprocess.DEVNULL)
    if not missing:
        pytest.skip("gcsfs is installed")
    check_one_line(command(*SMALL, "--output_dir=gs://bucket/x"), 1, "--output_dir=gs://bucket/x: ")
