"""The 2020 paper: its experiments, published numbers, claims, figures and report.

Nothing else imports it.
"""

from typing import TYPE_CHECKING

from robust_tf.faces import on_use

if TYPE_CHECKING:
    from robust_tf.paper import accuracies, claims, examples, experiments, figures, numbers, report
else:
    __getattr__, __dir__ = on_use(__name__, {})

__all__ = ["accuracies", "claims", "examples", "experiments", "figures", "numbers", "report"]
