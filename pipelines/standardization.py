"""Trains the same models standardised per pixel, globally and not at all, and compares them.

Example:
  python -m pipelines.standardization --workers=2
"""

from pathlib import Path

from absl import flags

from pipelines import app, sweep
from robust_tf.studies import standardization

sweep.define_flags("by default mnist", fields=("strategies", "perturbs"))


def main() -> None:
    """Runs what the flags say."""
    sweep.run("standardization", finish=write_report)


def write_report(output_dir: Path) -> None:
    """Writes the report of what is done."""
    standardization.write(output_dir)
    print(f"report   {flags.FLAGS.output_dir}/standardization/report.html")


if __name__ == "__main__":
    app.launch(main)
