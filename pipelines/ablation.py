"""Trains the network without some of its components, as in the paper's table I.

Example:
  python -m pipelines.ablation --train_examples=2000 --epochs=5
"""

from pipelines import app, sweep

sweep.define_flags("by default cifar10, the paper's", fields=())


def main() -> None:
    """Runs what the flags say."""
    sweep.run("ablation")


if __name__ == "__main__":
    app.launch(main)
