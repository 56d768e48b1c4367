"""``python -m ncflow`` is the same program as the console script ``ncflow``."""

import os
import signal
import sys


def main() -> None:
    """Entry point of both: Ctrl-C ends it with one line at any moment, also while libraries are being imported."""
    try:
        find_here()
        from ncflow.cli.train import main as train

        train()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("ncflow: interrupted; the same command goes on", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None


def find_here() -> None:
    """Let a config name classes in the working directory, as ``python -m`` does but a console script does not.

    It comes last: whatever lies in the folder replaces nothing that is installed, ncflow itself least of all. Processes
    and jobs that are started have the same path. ``PYTHONSAFEPATH`` keeps it away from both.
    """
    here = os.getcwd()
    if not sys.flags.safe_path and not {"", here} & set(sys.path):
        sys.path.append(here)


if __name__ == "__main__":
    main()
