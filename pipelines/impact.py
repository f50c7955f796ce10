"""Tests natural models under every perturbation, as in the paper's figures 4, 6 and 8.

Example:
  python -m pipelines.impact --datasets=mnist
"""

from collections.abc import Sequence

from pipelines import flags, sweep
from robust_tf.paper.experiments import IMPACT


def main(values: flags.Values) -> None:
    """Carries it out."""
    sweep.run(IMPACT, values)


def cli(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    sweep.launch(IMPACT, main, argv)


if __name__ == "__main__":
    cli()
