"""Trains the same models standardised per pixel, globally and not at all, and compares them.

Example:
  python -m pipelines.standardization --workers=2
"""

from collections.abc import Sequence
from pathlib import Path

from pipelines import flags, sweep
from robust_tf.studies.experiments import STANDARDIZATION


def main(values: flags.Values) -> None:
    """Carries it out and writes the report of what is done."""
    from robust_tf.studies import standardization

    def write_report(output_dir: Path) -> None:
        standardization.write(output_dir)
        print(f"report   {values.output_dir}/standardization/report.html")

    sweep.run(STANDARDIZATION, values, finish=write_report)


def cli(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    sweep.launch(STANDARDIZATION, main, argv)


if __name__ == "__main__":
    cli()
