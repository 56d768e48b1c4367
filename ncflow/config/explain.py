"""Errors of Hydra and OmegaConf as one line that names the option, the rule and the value found."""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path

from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ncflow.checks import error_line
from ncflow.config.identity import flatten
from ncflow.config.schema import CONF_DIR, ConfigError, RunConfig

# Lines of Hydra's messages that say where the config system was, not what is wrong.
_NOISE = ("full_key:", "object_type=", "reference_type=", "To append to your", "Config search path", "provider=")


def explain(error: BaseException) -> str:
    """One line for the user."""
    refusal = _refusal(error)
    if refusal is not None:
        return str(refusal)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing_option(error.missing_cfg_file)
    if isinstance(error, OSError) or isinstance(error.__cause__, OSError):
        return _join(str(error if isinstance(error, OSError) else error.__cause__))
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return f"{type(error).__name__}: {_join(str(error))} (HYDRA_FULL_ERROR=1 shows where)"
    text = _join(f"{error}\n{error.__cause__ or ''}")
    unknown = re.match(r"Could not override '([^']+)'", text)
    if unknown:
        return _unknown_key(unknown[1])
    return text


def one_line(error: BaseException) -> str:
    """An error as one line; its kind is named unless it was written for the user."""
    return error_line(error, named=not isinstance(error, ConfigError))


def _refusal(error: BaseException | None) -> ConfigError | None:
    """Our own error, also where OmegaConf put its own around it while it resolved a value."""
    while isinstance(error, OmegaConfBaseException):
        error = error.__cause__ or error.__context__
    return error if isinstance(error, ConfigError) else None


def _join(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "; ".join(line for line in dict.fromkeys(lines) if not line.startswith(_NOISE))


def _missing_option(path: str) -> str:
    group = path.split("/")[0]
    options = [str(file.relative_to(CONF_DIR / group).with_suffix("")) for file in (CONF_DIR / group).rglob("*.yaml")]
    if path.startswith("hydra/") or not options:
        return f"there is no option {path!r}"
    return f"{group} must be one of {', '.join(sorted(options))}, found {path.removeprefix(f'{group}/')!r}"


def _unknown_key(key: str) -> str:
    owners = [option for option, known in _known_keys() if known == key]
    if owners:
        return f"{key} is an option of {', '.join(owners)}, which this config does not choose"
    close = difflib.get_close_matches(key, [known for _, known in _known_keys()], n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"{key} is not an option of this config{hint}"


def _known_keys() -> Iterator[tuple[str, str]]:
    """(where it is known, dotted name) of every option."""
    schema = OmegaConf.to_container(OmegaConf.structured(RunConfig))
    assert isinstance(schema, dict)
    for name, _ in flatten({str(key): value for key, value in schema.items()}):
        yield "every config", name
    for group in (folder for folder in sorted(Path(CONF_DIR).iterdir()) if folder.is_dir()):
        for file in sorted(group.glob("*.yaml")):
            options = OmegaConf.load(file)
            if isinstance(options, DictConfig):
                yield from ((f"{group.name}={file.stem}", f"{group.name}.{key!s}") for key in options)
