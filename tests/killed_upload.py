"""A process that finishes two runs and uploads them, and is killed at some step of that.

`python -m tests.killed_upload URL STEP` prints how many steps there are; step 0 kills nothing.
"""

import os
import signal
import sys

from robust_tf.executors import uploads

url, die_at, steps = sys.argv[1], int(sys.argv[2]), 0


def step(function):
    def counted(*arguments, **options):
        global steps
        steps += 1
        if steps == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)

    return counted


for owner, name in (
    (os, "replace"),
    (os, "rename"),
    (uploads._Place, "_put"),
    (uploads.shutil, "rmtree"),
):
    setattr(owner, name, step(getattr(owner, name)))
with uploads.local({"output_dir": url}) as folders:
    for run in ("one", "two"):
        folder = folders["output_dir"] / run
        if not folder.exists():
            partial = folder.with_suffix(".partial")
            partial.mkdir(exist_ok=True)
            for name in ("history.csv", "trials.csv", "runs.csv"):
                (partial / name).write_text(run + name)
            os.rename(partial, folder)
        uploads.upload({"output_dir": url}, run)
print(steps)
