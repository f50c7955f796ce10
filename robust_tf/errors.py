"""The two errors that a user can mend. Each is one line and names what was received.

Everything else that goes wrong raises Python's, Keras's or TensorFlow's own error.
"""


class InvalidArgument(ValueError):
    """An argument has a value that is not allowed.

    Args:
        argument: the argument's name, which is also its flag's name.
        value: what was received; None if nothing was.
        expected: what is allowed, completing "expected …".
    """

    def __init__(self, argument: str, value: object, expected: str):
        """See the class."""
        text = ",".join(map(_shown, value)) if isinstance(value, list | tuple) else value
        received = argument if value is None else f"{argument}={text}"
        super().__init__(f"{received}: expected {expected}")
        self.argument, self.value, self.expected = argument, value, expected

    def with_value(self, value: object) -> "InvalidArgument":
        """The same error for another value."""
        return InvalidArgument(self.argument, value, self.expected)

    def of(self, argument: str) -> "InvalidArgument":
        """The same error, for an argument of another name."""
        return InvalidArgument(argument, self.value, self.expected)


class Unavailable(RuntimeError):
    """An argument is well-formed, but what it names cannot be used on this machine.

    Args:
        argument: the argument's name, which is also its flag's name.
        value: what was received.
        problem: what is wrong and what would help.
    """

    def __init__(self, argument: str, value: object, problem: str):
        """See the class."""
        super().__init__(f"{argument}={value}: {problem}")
        self.argument, self.value, self.problem = argument, value, problem

    def with_value(self, value: object) -> "Unavailable":
        """The same error for another value."""
        return Unavailable(self.argument, value, self.problem)

    def of(self, argument: str) -> "Unavailable":
        """The same error, for an argument of another name."""
        return Unavailable(argument, self.value, self.problem)


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def one_line(error: BaseException, limit: int = 300) -> str:
    """The first line of an error's text, at most `limit` characters long."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:limit]
