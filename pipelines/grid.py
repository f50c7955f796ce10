"""Trains and tests the robust models of the paper's figures A.1 to C.3: 240 in all.

Example:
  python -m pipelines.grid --datasets=mnist --workers=2
"""

from collections.abc import Sequence

from pipelines import flags, sweep
from robust_tf.paper.experiments import GRID


def main(values: flags.Values) -> None:
    """Carries it out."""
    sweep.run(GRID, values)


def cli(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    sweep.launch(GRID, main, argv)


if __name__ == "__main__":
    cli()
