"""A worker that lacks one of its protections: `python -m tests.farm.ablated WHICH`."""

import signal
import sys

from worker import app, attempt, keeper, layout

_NEVER = 1000.0  # leases


def main(which: str) -> None:
    """Take the protection away, then work as any worker."""
    match which:
        case "the ranks' own end":
            layout._PATIENCE = _NEVER
        case "the parent's doubt":
            keeper._UNSURE = _NEVER
        case "adoption":
            attempt.adopt = lambda *_: False
        case _:
            raise SystemExit(f"There is no protection {which!r}.")
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    app.main()


if __name__ == "__main__":
    main(sys.argv[1])
