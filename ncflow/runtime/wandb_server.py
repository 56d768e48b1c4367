"""Whether W&B's server takes runs: asked once, before W&B itself would wait for minutes."""

import base64
import json
import netrc
import os
import ssl
import threading
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

# W&B's server has two names, and W&B takes a key that was stored under the older one for the newer, too.
_OLDER_NAMES = {"api.forge.coreweave.com": "api.wandb.ai"}
_ANSWER_SECONDS = 3.0  # a name that is not found may take twice as long


def import_wandb() -> Any:
    """The wandb module, without its reports to its server on how it does."""
    # W&B tells its server how it does, of offline runs too, and the process waits for that at its end.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    return wandb


def server_problem() -> str | None:
    """Why W&B's server would take no run, or None; known within a few seconds."""
    url = _server()
    key = _key(url)
    if key is None:
        return None if os.environ.get("WANDB_IDENTITY_TOKEN_FILE") else "no key found"
    found: list[str | None] = []
    asking = threading.Thread(target=lambda: found.append(_ask(url, key)), daemon=True)
    asking.start()
    asking.join(2 * _ANSWER_SECONDS)  # looking up the server's name has no limit of its own
    return found[0] if found else f"{url} does not answer"


def _server() -> str:
    return (os.environ.get("WANDB_BASE_URL") or import_wandb().setup().settings.base_url).rstrip("/")


def _key(url: str) -> str | None:
    """The key for a server, from the environment or from the user's netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return os.environ["WANDB_API_KEY"]
    host = urlsplit(url).netloc
    try:
        stored = netrc.netrc(os.environ.get("NETRC") or Path.home() / ".netrc")
    except (OSError, netrc.NetrcParseError):
        return None
    entry = stored.authenticators(host) or stored.authenticators(_OLDER_NAMES.get(host, host))
    return entry[2] or None if entry else None


def _ask(url: str, key: str) -> str | None:
    """What keeps a server from taking runs under a key, or None."""
    credentials = base64.b64encode(f"api:{key}".encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {credentials}", "User-Agent": "ncflow"}
    question = json.dumps({"query": "query{viewer{id}}"}).encode()
    try:
        with urlopen(Request(f"{url}/graphql", question, headers), timeout=_ANSWER_SECONDS) as response:
            viewer = json.load(response)["data"]["viewer"]
    except HTTPError as error:
        return f"{url} refuses the key" if error.code in (401, 403) else f"{url} answers {error.code}"
    except OSError as error:
        reason = error.reason if isinstance(error, URLError) else error
        # Certificates are W&B's to judge, which may know of others.
        return None if isinstance(reason, ssl.SSLError) else f"{url} does not answer ({reason})"
    except Exception:
        return f"{url} is no W&B server"
    return None if viewer else f"{url} refuses the key"
