"""``python -m ncflow`` is the same program as the console script ``ncflow``."""

import signal
import sys


def main() -> None:
    """Entry point of both: Ctrl-C ends it with one line at any moment, also while libraries are being imported."""
    try:
        from ncflow.cli.train import main as train

        train()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("ncflow: interrupted; the same command goes on", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None


if __name__ == "__main__":
    main()
