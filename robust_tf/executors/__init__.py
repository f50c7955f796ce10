"""Where work is done: processes, a Ray cluster, outputs at URLs.

Its modules are imported by name: what one needs, such as Ray, the others do without.
"""

__all__ = []
