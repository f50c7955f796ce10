"""Sets the results of impact, grid and ablation beside the published ones.

Example:
  python -m pipelines.report
"""

from __future__ import annotations

from collections.abc import Sequence

from pipelines import app, flags
from pipelines.shared_flags import Outputs, some
from pipelines.sweep import Reference
from robust_tf import settings


def main(values: flags.Values) -> None:
    """Writes the report."""
    from robust_tf.paper import report

    with app.local(settings.make(Outputs, values.given)) as folders:
        written = report.write(folders["output_dir"], values.reference)
    for label, path in zip(("report", ""), written):
        print(f"{label:6}  {values.output_dir}/{path.name}")


def cli(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    app.launch(main, {"Outputs": [*some(Outputs), *some(Reference)]}, argv)


if __name__ == "__main__":
    cli()
