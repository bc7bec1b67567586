"""The command line's entry: one line for every error a user can fix, exit code 2; Ctrl-C 130, SIGTERM 143."""

from __future__ import annotations

import signal
import sys

from .commandline import ARGV
from .errors import UserError, unknown

__all__ = ["main"]


def main(argv: list[str] | None = None) -> None:
    """Runs `datafree ARGV` and exits."""
    argv = sys.argv[1:] if argv is None else argv
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(run(argv))


def run(argv: list[str]) -> int:
    """The exit code of one command."""
    from cyclopts import CycloptsError

    from .commands import VERBS, app

    if argv and not argv[0].startswith("-") and argv[0] not in VERBS:
        return _say(str(unknown("command", argv[0], VERBS)), 2)
    token = ARGV.set(tuple(argv))
    try:
        app(argv)(argv, exit_on_error=False, print_error=False, result_action="return_value")
    except UserError as error:
        return _say(str(error), 2)
    except CycloptsError as error:
        line = " ".join(str(error).split())
        return _say(f"{line} Run datafree {argv[0] if argv else ''} --help for what it takes.", 2)
    except KeyboardInterrupt:
        return _say(f"stopped; whole units and epochs are kept. Go on with: datafree {' '.join(argv)}", 130)
    except _Terminated:
        return _say(f"terminated; whole units and epochs are kept. Go on with: datafree {' '.join(argv)}", 143)
    except BrokenPipeError:
        return 141
    finally:
        ARGV.reset(token)
    return 0


class _Terminated(BaseException):
    pass


def _terminate(*_: object) -> None:
    raise _Terminated


def _say(line: str, code: int) -> int:
    print(f"datafree: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
