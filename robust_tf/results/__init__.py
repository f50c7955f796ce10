"""Results: tables on disk, what they say, figures and pages."""

from typing import TYPE_CHECKING

from robust_tf.faces import on_use

if TYPE_CHECKING:
    from robust_tf.results import defect_maps, figures, pages, trials
    from robust_tf.results.checked import write
    from robust_tf.results.labelling import (
        condition_label,
        counted,
        labels,
        training_label,
        with_labels,
    )
    from robust_tf.results.summaries import (
        comparison,
        in_percent,
        over_seeds,
        profile,
        profile_of,
        summarize,
    )
    from robust_tf.results.tables import (
        HISTORY_COLUMNS,
        TEST_COLUMNS,
        TRAINING_COLUMNS,
        TRIAL_COLUMNS,
        VALIDATION_COLUMNS,
        add_to_plan,
        gather,
        read,
        read_experiment,
        read_history,
        read_run,
    )
else:
    __getattr__, __dir__ = on_use(
        __name__,
        {
            "checked": "write",
            "labelling": "condition_label counted labels training_label with_labels",
            "summaries": "comparison in_percent over_seeds profile profile_of summarize",
            "tables": "HISTORY_COLUMNS TEST_COLUMNS TRAINING_COLUMNS TRIAL_COLUMNS "
            "VALIDATION_COLUMNS add_to_plan gather read read_experiment read_history read_run",
        },
    )

__all__ = [
    "HISTORY_COLUMNS",
    "VALIDATION_COLUMNS",
    "TEST_COLUMNS",
    "TRAINING_COLUMNS",
    "TRIAL_COLUMNS",
    "add_to_plan",
    "comparison",
    "condition_label",
    "counted",
    "defect_maps",
    "figures",
    "gather",
    "in_percent",
    "labels",
    "over_seeds",
    "pages",
    "profile",
    "profile_of",
    "read",
    "read_experiment",
    "read_history",
    "read_run",
    "summarize",
    "training_label",
    "trials",
    "with_labels",
    "write",
]
