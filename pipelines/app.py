"""What all command lines share: flags, errors of one line, exit codes."""

import sys
import warnings
from collections.abc import Callable

import tensorflow as tf
from absl import app, flags, logging

from robust_tf.errors import InvalidArgument, Unavailable


def launch(main: Callable[[], None]) -> None:
    """Parses the flags, calls `main` and exits.

    The exit code is 0, 2 for flags that are not allowed, 130 after Ctrl-C, and 1 for
    all other failures. What a user can mend is told in one line on standard error.

    Args:
        main: does the work; takes nothing.
    """

    def guarded(_: list[str]) -> None:
        logging.set_verbosity(logging.ERROR)
        warnings.showwarning = _show_warning
        # The same command gives the same numbers; costs nothing measurable on CPUs.
        tf.config.experimental.enable_op_determinism()
        try:
            main()
        except InvalidArgument as error:
            _fail(2, f"--{error}")
        except Unavailable as error:
            _fail(1, f"--{error}")
        except KeyboardInterrupt:
            _fail(130, "stopped; the same command goes on after the last whole epoch")

    app.run(guarded, flags_parser=_parse)


def _parse(arguments: list[str]) -> list[str]:
    try:
        left = flags.FLAGS(arguments)
    except flags.Error as error:
        _fail(2, str(error))
    except SystemExit:  # after --help, where absl says 1
        sys.exit(0)
    if len(left) > 1:
        _fail(2, f"{left[1]}: expected flags only, as in --name=value")
    return left


def _show_warning(message: Warning | str, *_: object) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _fail(code: int, message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
