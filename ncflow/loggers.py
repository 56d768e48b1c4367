"""Weights & Biases, kept in the run's own folder and resumed under the same id."""

import logging
import netrc
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from ncflow.results import read_json, write_json

log = logging.getLogger(__name__)

IDENTITY = "wandb.json"


def _has_key() -> bool:
    """Whether a key is in the environment or in the user's netrc; asks no server."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _mode() -> str:
    mode = os.environ.get("WANDB_MODE")
    if mode:
        return mode
    if _has_key():
        return "online"
    log.info("W&B: no key found, so the run is kept offline in its folder; `wandb sync` sends it later")
    return "offline"


def wandb_logger(folder: Path, described: Mapping[str, Any], project: str, entity: str | None) -> Any:
    """Logger of one run; the same folder always gives the same W&B run.

    Args:
        folder: The run's folder; W&B writes into its ``wandb/``.
        described: The run's flat description; ``name`` names it, ``experiment`` is its group, all is its config.
        project: W&B project.
        entity: W&B entity; None or empty takes the account's own.
    """
    from lightning.pytorch.loggers import WandbLogger

    identity = read_json(folder / IDENTITY)
    if identity is None:
        identity = {"id": secrets.token_hex(6)}
        write_json(folder / IDENTITY, identity)
    logger = WandbLogger(
        name=described["name"],
        group=described["experiment"],
        id=identity["id"],
        project=project,
        entity=entity or None,
        save_dir=str(folder),
        mode=_mode(),
        resume="allow",
        # Without this, a second run in the same process goes on writing into the first.
        reinit="create_new",
        config=dict(described),
    )
    logger.experiment.define_metric("epoch")
    logger.experiment.define_metric("*", step_metric="epoch")
    return logger
