"""Environment variables from a file ``.env``: our names alone, from the project's folder or a file that is named."""

import os
import sys
from io import StringIO
from pathlib import Path

from dotenv import dotenv_values

FILE = "NCFLOW_ENV_FILE"
"""Variable of the shell that names a file to read in place of the project's ``.env``."""

NAMES = (
    "WANDB_API_KEY",
    "WANDB_ENTITY",
    "WANDB_PROJECT",
    "WANDB_MODE",
    "NCFLOW_DATA_DIR",
    "NCFLOW_RUNS_DIR",
    "NCFLOW_SLURM_ACCOUNT",
    "NCFLOW_SLURM_PARTITION",
    "NCFLOW_SLURM_QOS",
    "NCFLOW_SLURM_CONSTRAINT",
    "NCFLOW_SLURM_GPUS",
    "NCFLOW_SLURM_MEM_GB",
    "NCFLOW_SLURM_TIMEOUT_MIN",
)
"""What is read: the names in ``.env.example``. Others could run code or send the key of W&B to a stranger."""

_PACKAGE = Path(__file__).parents[1]


def load_environment() -> None:
    """Take the non-empty variables of the file that the shell does not set; one that is set to nothing counts as unset.

    A ``.env`` in the working directory is not read: whoever made the folder would have a say in what ncflow does.

    Raises:
        SystemExit: If ``NCFLOW_ENV_FILE`` names no file that can be read, after a line that says so.
    """
    for name in NAMES:
        if os.environ.get(name) == "":
            del os.environ[name]
    file = _file()
    if file is None:
        return
    try:
        content = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text in UTF-8"
        print(f"ncflow: error: {FILE} must be a file that can be read ({reason}), found '{file}'", file=sys.stderr)
        raise SystemExit(2) from None
    found = dotenv_values(stream=StringIO(content))
    unknown = [name for name in found if name not in NAMES]
    if unknown:
        print(f"ncflow: {file}: left out, as ncflow reads other names alone: {', '.join(unknown)}", file=sys.stderr)
    for name in NAMES:
        if value := found.get(name):
            os.environ.setdefault(name, value)


def _file() -> Path | None:
    """The named file, else that of the checkout; an installed package has none."""
    named = os.environ.get(FILE)
    if named:
        return Path(named).expanduser()
    project = _PACKAGE.parent
    in_checkout = not (_PACKAGE / "conf").is_dir() and (project / "conf" / "train.yaml").is_file()
    return project / ".env" if in_checkout and (project / ".env").is_file() else None
