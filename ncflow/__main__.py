"""``python -m ncflow`` is the same program as the console script ``ncflow``."""

from ncflow.train import main

if __name__ == "__main__":
    main()
