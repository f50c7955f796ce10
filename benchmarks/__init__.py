"""Speed, as ratios within one run."""

import pipelines as pipelines  # imports TensorFlow without its start-up messages
