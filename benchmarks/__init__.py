"""Speed, as ratios within one run."""

import sys

if "benchmarks.isolated" not in sys.orig_argv:  # a peer needs no TensorFlow beside it
    import pipelines as pipelines  # imports TensorFlow without its start-up messages
