"""Progress on standard error: a bar on a terminal, whole lines in a file."""

import math

import tqdm


class Bar(tqdm.tqdm):
    """`tqdm.tqdm`; where standard error is no terminal, one line when it is closed.

    Args:
        *args: as of `tqdm.tqdm`.
        each: where it is no terminal, a line per step instead.
        **options: as of `tqdm.tqdm`.
    """

    def __init__(self, *args, each: bool = False, **options):
        """See the class."""
        self._each = each
        super().__init__(*args, **options)

    def _is_live(self) -> bool:
        return bool(self.fp.isatty())

    def refresh(self, *args, **options):
        """Draws the bar again, on a terminal."""
        return not self.disable and self._is_live() and super().refresh(*args, **options)

    def clear(self, *args, **options):
        """Removes the bar, from a terminal."""
        if not self.disable and self._is_live():
            super().clear(*args, **options)

    def update(self, n: float | None = 1):
        """Moves the bar."""
        drawn = super().update(n)
        if self._each and not self.disable and not self._is_live():
            self.fp.write(f"{self}\n")
        return drawn

    def display(self, msg: str | None = None, pos: int | None = None):
        """Writes the bar."""
        if self._is_live():
            return super().display(msg, pos)
        self.fp.write(str(self))
        return True

    def close(self):
        """Leaves the bar as it is."""
        if self._each and not self.disable and not self._is_live():
            self.delay = math.inf  # nothing is shown that was not yet
        super().close()
