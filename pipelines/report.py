"""Sets the results of impact, grid and ablation beside the published ones.

Example:
  python -m pipelines.report
"""

from absl import flags

from pipelines import app
from robust_tf.paper import report

_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", "results", "Where the results of pipelines.impact, grid and ablation are."
)
_REFERENCE = flags.DEFINE_bool("reference", True, "Draw the published numbers in the figures too.")


def main() -> None:
    """Runs what the flags say."""
    with app.outputs() as folders:
        written = report.write(folders["output_dir"], _REFERENCE.value)
    for label, path in zip(("report", ""), written):
        print(f"{label:6}  {_OUTPUT_DIR.value}/{path.name}")


if __name__ == "__main__":
    app.launch(main)
