"""Outputs at URLs: what is there after success, failure, Ctrl-C and kills."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import fsspec
import pytest

from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.executors import uploads
from robust_tf.files import is_locked, locked
from tests import test_scheduler
from tests.test_scheduler import undisturbed as undisturbed

URL = "memory://bucket/results"
RUN = {"runs.csv": "1", "history.csv": "2", "trials.csv": "3", "figures/accuracy.png": "4"}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """The user's cache directory."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def outputs(url: str = URL):
    return uploads.local({"output_dir": url})


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def there(memory, url: str = URL) -> dict[str, str]:
    """The files at a URL but for the hidden one that tells the rule."""
    root = url.partition(":/")[2]
    files = {path.removeprefix(f"{root}/"): path for path in memory.find(root)}
    assert b"a run counts once" in memory.cat(files.pop(".robust_tf")).lower()
    return {name: memory.cat(path).decode() for name, path in files.items()}


def here(cache: Path) -> list[str]:
    """What is kept on this machine, but for hidden files."""
    files = ("/".join(p.relative_to(cache).parts[3:]) for p in cache.rglob("*") if p.is_file())
    return sorted(name for name in files if "/." not in f"/{name}")


def files(folder: Path) -> dict[str, str]:
    paths = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return {name: path.read_text() for name, path in paths.items() if "/." not in f"/{name}"}


def within(files: dict[str, str], folder: str) -> dict[str, str]:
    return {f"{folder}/{name}": content for name, content in files.items()}


class Puts:
    """Records what is written at `memory://`, and fails when told to."""

    def __init__(self, monkeypatch, memory, fails=lambda path: False):
        self.paths: list[str] = []
        open_ = type(memory).open

        def opens(system, path, mode="rb", **options):
            if "w" in mode and not path.endswith(".robust_tf"):
                if fails(path):
                    raise OSError("no room there\nand more")
                self.paths.append(path.removeprefix("/bucket/results/"))
            return open_(system, path, mode, **options)

        monkeypatch.setattr(type(memory), "open", opens)


def test_paths_stay_as_they_are(tmp_path, cache):
    with uploads.local({"output_dir": str(tmp_path), "saved_models_dir": "x"}) as folders:
        assert folders == {"output_dir": tmp_path, "saved_models_dir": Path("x")}
    uploads.upload({"output_dir": str(tmp_path)}, "run")
    assert not list(cache.iterdir())


def test_what_is_finished_is_there_and_nothing_is_left_here(memory, cache):
    with outputs() as folders:
        write(folders["output_dir"] / "run", RUN)
        write(folders["output_dir"], {"report.md": "5"})
        write(folders["output_dir"] / "other.partial", {"backup/epoch-00003.npz": "6"})
        write(folders["output_dir"] / ".new-run", {"runs.csv": "7"})
    assert there(memory) == {**within(RUN, "run"), "report.md": "5"}
    assert here(cache) == ["other.partial/backup/epoch-00003.npz"]
    with outputs() as folders:
        found = files(folders["output_dir"])
    assert found == {**within(RUN, "run"), "other.partial/backup/epoch-00003.npz": "6"}


def test_each_file_is_uploaded_once_the_one_that_counts_last(memory, monkeypatch):
    puts = Puts(monkeypatch, memory)
    with outputs() as folders:
        write(folders["output_dir"] / "run", RUN)
        write(folders["output_dir"] / "model", {f"1/{n}": n for n in ("saved_model.pb", "z")})
        uploads.upload({"output_dir": URL}, "run")
        assert puts.paths == [f"run/{name}" for name in (
            "history.csv", "figures/accuracy.png", "trials.csv", "runs.csv"
        )]  # fmt: skip
        uploads.upload({"output_dir": URL}, "no such run")
    assert puts.paths[4:] == ["model/1/z", "model/1/saved_model.pb"]
    with outputs():
        pass
    assert len(puts.paths) == 6
    # What changes later replaces its earlier version, and nothing else does.
    with outputs() as folders:
        write(folders["output_dir"] / "run", {"trials.csv": "more"})
    assert puts.paths[6:] == ["run/trials.csv"]
    assert there(memory)["run/trials.csv"] == "more"


def test_a_folder_in_use_is_left_for_later(memory, cache):
    with outputs() as folders:
        write(folders["output_dir"] / "run", RUN)
        with locked(folders["output_dir"] / "run"):
            uploads.upload({"output_dir": URL}, "run")
            assert there(memory) == {}
    assert there(memory) == within(RUN, "run")


def test_a_folder_in_use_at_the_end_is_kept(memory, cache):
    with outputs() as folders:
        write(folders["output_dir"] / "run", RUN)
        lock = locked(folders["output_dir"] / "run")
        lock.__enter__()  # by a worker of a cluster that has not ended yet
    assert there(memory) == {} and len(here(cache)) == len(RUN)
    lock.__exit__(None, None, None)
    with outputs():
        pass
    assert there(memory) == within(RUN, "run") and not here(cache)


def test_nothing_at_the_url_is_deleted(memory):
    with outputs() as folders:
        write(folders["output_dir"] / "run", RUN)
    memory.pipe("/bucket/results/mine/.hidden", b"x")
    with outputs() as folders:
        (folders["output_dir"] / "run" / "trials.csv").unlink()
        (folders["output_dir"] / "run").rename(folders["output_dir"] / "renamed")
    left = there(memory)
    assert left.pop("mine/.hidden") == "x"
    renamed = {name: content for name, content in RUN.items() if name != "trials.csv"}
    assert left == {**within(RUN, "run"), **within(renamed, "renamed")}


@pytest.mark.parametrize("last", ["runs.csv", "saved_model.pb"])
def test_what_was_not_uploaded_whole_is_not_fetched(memory, last):
    root = "/bucket/results"
    memory.pipe({f"{root}/torn/{name}": b"x" for name in ("history.csv", "figures/a.png")})
    memory.pipe({f"{root}/model/{name}": b"x" for name in ("1/saved_model.pb", "2/variables/v")})
    memory.pipe({f"{root}/grid/{name}": b"x" for name in ("models.csv", "tables/runs.csv")})
    with outputs() as folders:
        names = ["torn/history.csv", "model/1/saved_model.pb", "model/2", "grid/tables/runs.csv"]
        found = [(folders["output_dir"] / name).exists() for name in names]
        assert found == [False, True, False, True]
        if last == "runs.csv":  # made again, it is there
            write(folders["output_dir"] / "torn", RUN)
    if last == "runs.csv":
        assert within(RUN, "torn").items() <= there(memory).items()


def test_what_was_done_is_uploaded_where_an_error_ends_it(memory):
    for error in (ZeroDivisionError, KeyboardInterrupt):
        with pytest.raises(error), outputs() as folders:
            write(folders["output_dir"] / error.__name__, RUN)
            raise error
        assert there(memory)[f"{error.__name__}/runs.csv"] == "1"


@pytest.mark.parametrize("place", range(4))
def test_what_cannot_be_uploaded_is_kept_and_the_same_command_goes_on(
    memory, cache, monkeypatch, place
):
    order = ["run/history.csv", "run/figures/accuracy.png", "run/trials.csv", "run/runs.csv"]
    with pytest.MonkeyPatch.context() as patch:
        Puts(patch, memory, lambda path: path.endswith(order[place]))
        message = f"^output_dir={URL}: no room there; what is not there yet is kept in {cache}/rob"
        with pytest.raises(Unavailable, match=message) as caught, outputs() as folders:
            write(folders["output_dir"] / "run", RUN)
        assert "\n" not in str(caught.value)
    assert sorted(there(memory)) == sorted(order[:place])
    assert here(cache) == sorted(order)
    puts = Puts(monkeypatch, memory)
    with outputs() as folders:
        assert (folders["output_dir"] / "run" / "runs.csv").read_text() == "1"
    assert there(memory) == within(RUN, "run") and not here(cache)
    assert puts.paths == order[place:]  # and nothing twice


def test_a_failure_in_between_is_a_warning(memory, monkeypatch):
    failing = [True, True]
    Puts(monkeypatch, memory, lambda path: "trials" in path and bool(failing) and failing.pop())
    with outputs() as folders:
        write(folders["output_dir"] / "run", RUN)
        for _ in range(2):
            with pytest.warns(UserWarning, match="no room there; uploading is tried again at the"):
                uploads.upload({"output_dir": URL}, "run")
    assert there(memory) == within(RUN, "run")


def test_what_a_second_interrupt_leaves_is_kept(memory, cache, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with (
        pytest.warns(UserWarning, match="what was not uploaded yet is kept in "),
        pytest.raises(KeyboardInterrupt),
        outputs() as folders,
    ):
        write(folders["output_dir"] / "run", RUN)
        monkeypatch.setattr(uploads._Place, "_put", interrupted)
    assert len(here(cache)) == len(RUN)


def test_changes_here_that_are_not_uploaded_yet_stay(memory, cache, monkeypatch):
    with outputs() as folders:
        write(folders["output_dir"] / "run", RUN)
    with pytest.raises(Unavailable), pytest.MonkeyPatch.context() as patch, outputs() as folders:
        Puts(patch, memory, lambda path: True)
        write(folders["output_dir"] / "run", {"trials.csv": "more of them"})
    memory.pipe("/bucket/results/run/history.csv", b"longer than it was")  # by another machine
    with outputs() as folders:
        run = folders["output_dir"] / "run"
        assert (run / "trials.csv").read_text() == "more of them"
        assert (run / "history.csv").read_text() == "longer than it was"
    assert there(memory)["run/trials.csv"] == "more of them"


def test_two_processes_of_this_machine(memory, cache):
    with outputs() as folders:
        write(folders["output_dir"] / "run", RUN)
        with outputs() as others:
            assert others == folders
        # The first still has what the second has uploaded.
        assert there(memory) == within(RUN, "run")
        assert (folders["output_dir"] / "run" / "runs.csv").exists()
    assert not here(cache)


def test_an_error_names_the_url_and_not_the_directory_here(memory):
    with (
        pytest.raises(Unavailable, match=f"^output_dir={URL}: no room$"),
        outputs() as folders,
    ):
        raise Unavailable("output_dir", folders["output_dir"], "no room")


def test_urls_of_no_file_system():
    with pytest.raises(InvalidArgument, match="output_dir=what://b: expected a path, or a URL"):
        outputs("what://b").__enter__()
    with pytest.raises(Unavailable, match="output_dir=ftp://127.0.0.1:9/b: .*refused"):
        outputs("ftp://127.0.0.1:9/b").__enter__()


def test_a_url_that_cannot_be_written_is_refused_before_the_work(memory, monkeypatch):
    monkeypatch.setattr(uploads._Place, "_put", lambda *_: memory.cat("/no such file"))
    with pytest.raises(Unavailable, match=f"^output_dir={URL}: /no such file$"):
        outputs().__enter__()


def test_a_kill_at_any_step_loses_nothing(forks, tmp_path, tmp_path_factory, cache):
    names = ("history.csv", "trials.csv", "runs.csv")
    whole = {f"{run}/{name}": run + name for run in ("one", "two") for name in names}

    def carry_out(folder: Path, die_at: int) -> subprocess.CompletedProcess:
        line = ["tests.killed_upload", f"file://{folder}", str(die_at)]
        return forks.run(line, tmp_path_factory.mktemp("output"), os.environ, 60)

    steps = int(carry_out(tmp_path / "undisturbed", 0).stdout)
    assert steps > 20
    for die_at in range(1, steps + 1):
        folder = tmp_path / str(die_at)
        assert carry_out(folder, die_at).returncode == -signal.SIGKILL
        found = files(folder)
        # What counts is whole, and is what was written.
        assert found.items() <= whole.items()
        for run in ("one", "two"):
            if f"{run}/runs.csv" in found:
                assert all(f"{run}/{name}" in found for name in names)
        done = carry_out(folder, 0)
        assert done.returncode == 0, done.stderr
        assert files(folder) == whole
    assert not here(cache)


def test_any_request_that_fails_loses_nothing(forks, tmp_path, tmp_path_factory):
    """Nor does a kill after it, or an outage that begins with it; see `tests.failing_uploads`."""
    line = ["tests.failing_uploads", str(tmp_path)]
    done = forks.run(line, tmp_path_factory.mktemp("output"), os.environ, 300)
    *problems, requests = done.stdout.split("\n")[:-1] or [done.stderr]
    assert problems == []
    assert int(requests) > 25


def test_saved_models_inside_of_the_outputs_are_a_place_of_their_own(memory, cache):
    places = {"output_dir": URL, "saved_models_dir": f"{URL}/saved_models"}
    model = {"1/saved_model.pb": "graph", "1/variables/v": "weights"}
    for turn in range(2):
        with uploads.local(places) as folders:
            assert not (folders["output_dir"] / "saved_models").exists()
            assert files(folders["saved_models_dir"]) == (within(model, "run") if turn else {})
            write(folders["output_dir"] / "run", RUN)
            write(folders["saved_models_dir"] / "run", model)
    found = there(memory)
    found.pop("saved_models/.robust_tf")
    assert found == {**within(RUN, "run"), **within(model, "saved_models/run")}
    # Nor are they fetched by what needs the results only.
    with outputs() as folders:
        assert files(folders["output_dir"]) == within(RUN, "run")
    assert not here(cache)


def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(memory, monkeypatch):
    with outputs() as folders:
        write(folders["output_dir"] / "run", RUN)
    list_ = type(memory).ls

    def ls(system, path, detail=True, **options):
        if path.endswith("figures"):
            raise OSError("try later")
        return list_(system, path, detail=detail, **options)

    monkeypatch.setattr(type(memory), "ls", ls)
    with pytest.raises(Unavailable, match=f"^output_dir={URL}: try later$"):
        outputs().__enter__()


def keep_here(memory) -> None:
    """Leaves a run that is uploaded beside a page that is not."""
    with pytest.raises(Unavailable), pytest.MonkeyPatch.context() as patch, outputs() as folders:
        Puts(patch, memory, lambda path: path.endswith("report.md"))
        write(folders["output_dir"] / "run", RUN)
        uploads.upload({"output_dir": URL}, "run")
        write(folders["output_dir"], {"report.md": "page"})


@pytest.mark.parametrize("gone", ["run/trials.csv", "run/figures", "run", ""])
def test_what_is_gone_there_is_uploaded_again_from_what_is_here(memory, gone):
    keep_here(memory)
    memory.rm(f"/bucket/results/{gone}", recursive=True)
    with outputs():
        pass
    assert there(memory) == {**within(RUN, "run"), "report.md": "page"}


@pytest.mark.parametrize("content", ["7", "4 rows and more", ""])
def test_what_another_process_writes_meanwhile_stays(memory, content):
    keep_here(memory)
    memory.pipe("/bucket/results/run/trials.csv", content.encode())
    with outputs() as folders:
        assert (folders["output_dir"] / "run/trials.csv").read_text() == content
        memory.pipe("/bucket/results/run/history.csv", content.encode())
    found = there(memory)
    assert found["run/trials.csv"] == found["run/history.csv"] == content


@pytest.mark.parametrize("record", ["", "{", "[1]", '{"trials.csv": 5}', "\x00"])
def test_a_damaged_record_costs_only_another_upload(memory, cache, record):
    keep_here(memory)
    for path in cache.rglob(".sent/*.json"):
        path.write_text(record)
    with outputs() as folders:
        assert files(folders["output_dir"]) == {**within(RUN, "run"), "report.md": "page"}
    assert there(memory) == {**within(RUN, "run"), "report.md": "page"}
    assert not here(cache)


def test_a_sweep_that_is_killed_goes_on(forks, undisturbed, tmp_path, tmp_path_factory, cache):
    moments = random.Random(3)
    line = ["tests.short_sweep", f"file://{tmp_path}/results", f"file://{tmp_path}/saved_models"]
    results = uploads._place("output_dir", line[1]).here
    for _ in range(5):
        fork = forks.start(line, tmp_path_factory.mktemp("output"), os.environ)
        test_scheduler.wait_for(lambda: any(map(is_locked, results.glob("mnist-*"))))
        time.sleep(moments.uniform(0, 0.1))
        os.kill(fork.pid, signal.SIGKILL)
        forks.wait(fork, 60)
        for path in tmp_path.glob("results/mnist-*/runs.csv"):
            assert (path.parent / "trials.csv").exists()
            assert (tmp_path / "saved_models" / path.parent.name / "1/saved_model.pb").exists()
    done = forks.run(line, tmp_path_factory.mktemp("output"), os.environ, 60)
    assert done.returncode == 0, done.stderr
    assert test_scheduler.tables(tmp_path) == test_scheduler.tables(undisturbed)
    assert not here(cache)


def test_what_else_lies_at_a_url_is_not_fetched(memory, monkeypatch):
    write_there = {"holiday/video.mp4": b"x" * 100, "notes.txt": b"y", "deep/er/runs.csv.bak": b"z"}
    for name, content in write_there.items():
        memory.pipe(f"/bucket/results/{name}", content)
    with outputs() as folders:
        write(folders["output_dir"] / "run", RUN)
    fetched, get = [], memory.get_file

    def get_file(path, *arguments, **options):
        fetched.append(path)
        return get(path, *arguments, **options)

    monkeypatch.setattr(memory, "get_file", get_file)
    with outputs() as folders:
        assert (folders["output_dir"] / "run" / "figures" / "accuracy.png").read_text() == "4"
    assert len(fetched) == len(RUN) and all("/run/" in path for path in fetched)
    assert set(there(memory)) == {*write_there, *(f"run/{name}" for name in RUN)}


@pytest.mark.parametrize("inside", ["", "run", "run/runs.csv"])
def test_an_error_about_a_file_names_it_at_the_url(memory, inside):
    for kind in (Unavailable, InvalidArgument):
        with pytest.raises(kind, match=f"^output_dir={URL}") as caught, outputs() as folders:
            place = folders["output_dir"] / inside
            raise kind("output_dir", place, f"{place} is damaged")
        if kind is Unavailable:
            assert str(caught.value).count(f"{URL}/{inside}".rstrip("/")) == 2


@pytest.mark.parametrize("where", ["", "cache", "~/cache"])
def test_a_cache_that_is_no_absolute_path_is_the_users_own(memory, monkeypatch, tmp_path, where):
    monkeypatch.setenv("XDG_CACHE_HOME", where)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with outputs() as folders:
        assert folders["output_dir"].is_relative_to(tmp_path / "home" / ".cache")


def test_a_cache_that_cannot_be_written_is_named(memory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/x")
    with pytest.raises(Unavailable, match="^XDG_CACHE_HOME=/dev/null/x/"), outputs():
        pass
