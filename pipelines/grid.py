"""Trains and tests the robust models of the paper's figures A.1 to C.3: 240 in all.

Example:
  python -m pipelines.grid --datasets=mnist --workers=2
"""

from pipelines import app, sweep

sweep.define_flags("by default mnist,cifar10", fields=("strategies", "perturbs", "levels", "eval"))


def main() -> None:
    """Runs what the flags say."""
    sweep.run("grid")


if __name__ == "__main__":
    app.launch(main)
