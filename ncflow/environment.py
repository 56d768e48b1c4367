"""Environment variables from a file ``.env``."""

import os

from dotenv import dotenv_values, find_dotenv


def load_environment() -> None:
    """Take the non-empty variables of the nearest ``.env`` that the shell does not set."""
    for key, value in dotenv_values(find_dotenv(usecwd=True)).items():
        if value:
            os.environ.setdefault(key, value)
