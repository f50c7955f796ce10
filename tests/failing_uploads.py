"""A file system of which the n-th request fails, and a small command that works with it.

`python -m tests.failing_uploads FOLDER` carries the command out once for each request and each
way to fail, in a fork, then once more undisturbed; it prints what was lost, and how many
requests there are. An outage is a request that fails and all after it; of the first, if it
writes a file, half is written.
"""

import os
import shutil
import sys
import warnings
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from robust_tf.errors import Unavailable
from robust_tf.executors import uploads

WAYS = ("fails", "outage", "killed")
OLD = {"history.csv": "h", "trials.csv": "old row\n", "runs.csv": "r"}
NEW = {"history.csv": "1", "trials.csv": "2", "runs.csv": "3"}
MODEL = {"saved_model.pb": "graph", "variables/data": "weights"}


class Faults:
    """Which request fails, and how; counts them."""

    count, at, way = 0, 0, ""


class Bucket(fsspec.AbstractFileSystem):
    """Files of this machine; each request may fail."""

    protocol = "bucket"
    cachable = False
    _local = LocalFileSystem()

    def _open(self, path, mode="rb", autocommit=True, **options):
        file = request(lambda: self._local._open(path, mode, autocommit=autocommit))
        commit = file.commit

        def tear() -> None:
            content = Path(file.temp).read_bytes()
            Path(path).write_bytes(content[: len(content) // 2])

        file.commit = lambda: request(commit, tear)
        return file

    def get_file(self, rpath, lpath, **options):
        def tear() -> None:
            content = Path(rpath).read_bytes()
            Path(lpath).write_bytes(content[: len(content) // 2])

        request(lambda: shutil.copyfile(rpath, lpath), tear)


def _passed_on(name: str):
    def method(self, *arguments, **options):
        return request(lambda: getattr(self._local, name)(*arguments, **options))

    return method


for method in ("ls", "info", "exists", "makedirs", "mkdir", "cp_file", "rm_file", "rmdir", "mv"):
    setattr(Bucket, method, _passed_on(method))
fsspec.register_implementation("bucket", Bucket)


def request(does, tear=lambda: None):
    Faults.count += 1
    later = Faults.way == "outage" and 0 < Faults.at < Faults.count
    if Faults.count != Faults.at and not later:
        return does()
    if Faults.way == "killed":
        does()
        os._exit(9)
    if Faults.way == "outage" and not later:
        tear()
    raise OSError("the line is dead")


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def read(folder: Path) -> dict[str, str]:
    paths = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return {name: path.read_text() for name, path in paths.items() if "/." not in f"/{name}"}


def prepare(there: Path) -> None:
    write(there / "old", OLD)
    write(there / "saved_models/old/1", MODEL)
    write(there / "grid/tables", {"runs.csv": "a", "models.csv": "b"})


def command(there: Path, log: Path) -> None:
    """Trains a model, tests an old one again, writes a page; another process works there too."""
    url = f"bucket://{there}"
    places = {"saved_models_dir": f"{url}/saved_models", "output_dir": url}
    with uploads.local(places) as folders:
        runs, models = folders["output_dir"], folders["saved_models_dir"]
        assert not (runs / "saved_models").exists()
        assert read(models / "old/1") == MODEL
        write(there, {"theirs/runs.csv": "t", "grid/tables/runs.csv": "c"})
        if not (runs / "new").exists():
            with log.open("a") as file:
                file.write("trained\n")
            write(models / "new/1", MODEL)
            write(runs / "new", NEW)
        uploads.upload(places, "new")
        trials = runs / "old/trials.csv"
        assert trials.read_text() in ("old row\n", "old row\nnew row\n")
        trials.write_text("old row\nnew row\n")
        write(runs, {"report.md": "page"})


def expected() -> dict[str, str]:
    files = {f"old/{name}": content for name, content in OLD.items()}
    files |= {"old/trials.csv": "old row\nnew row\n", "report.md": "page"}
    files |= {"grid/tables/runs.csv": "c", "grid/tables/models.csv": "b", "theirs/runs.csv": "t"}
    files |= {f"new/{name}": content for name, content in NEW.items()}
    for run in ("old", "new"):
        files |= {f"saved_models/{run}/1/{name}": content for name, content in MODEL.items()}
    return files


def attempt(folder: Path, way: str, at: int) -> int:
    """Carries the command out, in a fork where it is killed; 1 stands for an error of one line."""
    if way == "killed":
        process = os.fork()
        if process:
            return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    Faults.count, Faults.at, Faults.way = 0, at, way
    try:
        command(folder / "there", folder / "log")
    except Unavailable:
        return 1
    finally:
        if way == "killed":  # which it was not
            os._exit(2)
    return 0


def check(folder: Path, way: str, at: int) -> list[str]:
    """What is wrong after a disturbed command, and after the same one undisturbed."""
    there = folder / "there"
    prepare(there)
    before = read(there)
    problems = []
    if attempt(folder, way, at) not in (0, 1, 9):
        problems.append("it fails otherwise than with one line")
    left = read(there)
    problems += [f"{name} is gone" for name in before if name not in left]
    if way != "outage":
        torn = [name for name in left if left[name] not in (expected()[name], before.get(name))]
        problems += [f"{name} is torn" for name in torn]
    graph = "saved_models/new/1/saved_model.pb"
    model = {f"saved_models/new/1/{name}" for name in MODEL}
    run = {f"new/{name}" for name in NEW}
    for last, whole in (
        (graph, model),
        ("new/runs.csv", model | run),
    ):
        if last in left and not whole <= set(left):
            problems.append(f"{last} is there before the rest")
    if attempt(folder, "", 0):
        problems.append("it does not go on")
    now = read(there)
    wrong = [name for name in {**now, **expected()} if now.get(name) != expected().get(name)]
    problems += [f"{name} is {now.get(name)!r} at the end" for name in wrong]
    problems += [f"{name} is left here" for name in read(folder / "cache")]
    if (folder / "log").read_text() != "trained\n":
        problems.append("it was trained again")
    return problems


def main(place: Path) -> None:
    warnings.simplefilter("ignore")
    os.fsync = lambda _: None  # no power fails here, and disks are slow
    check(place / "undisturbed", "", 0)
    requests = Faults.count
    for way in WAYS:
        for at in range(1, requests + 1):
            folder = place / f"{way}-{at}"
            for problem in check(folder, way, at):
                print(f"{way} {at}: {problem}")
            shutil.rmtree(folder)
    print(requests)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
