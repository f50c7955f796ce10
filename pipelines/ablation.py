"""Trains the network without some of its components, as in the paper's table I.

Example:
  python -m pipelines.ablation --train_examples=2000 --epochs=5
"""

from collections.abc import Sequence

from pipelines import flags, sweep
from robust_tf.paper.experiments import ABLATION


def main(values: flags.Values) -> None:
    """Carries it out."""
    sweep.run(ABLATION, values)


def cli(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    sweep.launch(ABLATION, main, argv)


if __name__ == "__main__":
    cli()
