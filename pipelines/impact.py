"""Tests natural models under every perturbation, as in the paper's figures 4, 6 and 8.

Example:
  python -m pipelines.impact --datasets=mnist
"""

from pipelines import app, sweep

sweep.define_flags("by default mnist,cifar10", fields=("perturbs", "levels"))


def main() -> None:
    """Runs what the flags say."""
    sweep.run("impact")


if __name__ == "__main__":
    app.launch(main)
