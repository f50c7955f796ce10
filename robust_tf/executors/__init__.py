"""Where work is done: processes, a Ray cluster, outputs at URLs."""
