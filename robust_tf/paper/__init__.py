"""The 2020 paper: its experiments, published numbers, claims, figures and report.

Nothing else imports it.
"""

from robust_tf.paper import accuracies, claims, examples, experiments, figures, numbers, report

__all__ = ["accuracies", "claims", "examples", "experiments", "figures", "numbers", "report"]
