"""Sets the results of impact, grid and ablation beside the published ones.

Example:
  python -m pipelines.report
"""

from absl import flags

from pipelines import app
from robust_tf import report

_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", "results", "Where the results of pipelines.impact, grid and ablation are."
)
_REFERENCE = flags.DEFINE_bool("reference", True, "Draw the published numbers in the figures too.")


def main() -> None:
    """Runs what the flags say."""
    page, markdown = report.write(_OUTPUT_DIR.value, _REFERENCE.value)
    print(f"report  {page}")
    print(f"        {markdown}")


if __name__ == "__main__":
    app.launch(main)
