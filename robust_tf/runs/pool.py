"""What carries out tasks, as a sweep sees it; the pools themselves are in `executors`."""

import dataclasses
from typing import Any, Protocol


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a task ended.

    Attributes:
        task: the task.
        problem: what went wrong, in one line; None if nothing did.
        details: the traceback of an error that a user cannot be expected to mend.
        notes: what it warns of.
    """

    task: Any
    problem: str | None = None
    details: str | None = None
    notes: tuple[str, ...] = ()


class Pool(Protocol):
    """Carries out tasks, several at once.

    Pools are used in a `with` statement, at whose end they end all tasks.
    """

    @property
    def busy(self) -> int:
        """How many tasks have been submitted and not ended."""

    @property
    def free(self) -> int:
        """How many more tasks are welcome."""

    def submit(self, task: Any) -> None:
        """Begins a task; `free` must not be 0."""

    def wait(self, seconds: float) -> list[Outcome]:
        """Waits until a task has ended, or for some time.

        Args:
            seconds: the longest to wait.

        Returns:
            The tasks that have ended meanwhile.
        """
