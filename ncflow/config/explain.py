"""Errors of Hydra and OmegaConf as one line that names the option, the rule and the value found."""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ncflow.checks import error_line
from ncflow.config.identity import flatten
from ncflow.config.left_out import why_left_out
from ncflow.config.schema import CONF_DIR, ConfigError, RunConfig

_NESTED_GROUPS = ("hydra/launcher", "hydra/sweeper")
_WITHOUT_OPTIONS = ("experiment", "recipe", "budget", "bn")  # their files are of the whole config
_MOST_LISTED, _MOST_MEANT = 20, 3
_ALIKE = 0.5  # of the last parts of two names; those before them are often the same
# What OmegaConf and Hydra say of types, in words.
_IN_WORDS = (
    (
        r"Error merging override (\S+?)=(.*?); Invalid value assigned: \w+ is not a ListConfig, list or tuple\.?",
        r"\1 must be a list, found \2",
    ),
    (
        r"Config group override must be a string or a list\. Got NoneType",
        "the option of a group must be a name, found null",
    ),
)
# Lines of Hydra's messages that say where the config system was, not what is wrong.
_NOISE = ("full_key:", "object_type=", "reference_type=", "To append to your", "Config search path", "provider=")


def explain(error: BaseException) -> str:
    """One line for the user."""
    refusal = _refusal(error)
    if refusal is not None:
        return str(refusal)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return missing_option(error.missing_cfg_file, error.options or ())
    if isinstance(error, OSError) or isinstance(error.__cause__, OSError):
        return _join(str(error if isinstance(error, OSError) else error.__cause__))
    words = next(
        (re.sub(form, said, text) for form, said in _IN_WORDS if re.fullmatch(form, text := _said(error))), None
    )
    if words is not None:
        return words
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return f"{type(error).__name__}: {_join(str(error))} (HYDRA_FULL_ERROR=1 shows where)"
    text = _said(error)
    unknown = re.match(r"Could not override '([^']+)'", text)
    if unknown:
        return unknown_key(unknown[1])
    return text


def one_line(error: BaseException) -> str:
    """An error as one line; its kind is named unless it was written for the user."""
    return error_line(error, named=not isinstance(error, ConfigError))


def _refusal(error: BaseException | None) -> ConfigError | None:
    """Our own error, also where OmegaConf put its own around it while it resolved a value."""
    while isinstance(error, OmegaConfBaseException):
        error = error.__cause__ or error.__context__
    return error if isinstance(error, ConfigError) else None


def _said(error: BaseException) -> str:
    return _join(f"{error}\n{error.__cause__ or ''}")


def _join(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "; ".join(line for line in dict.fromkeys(lines) if not line.startswith(_NOISE))


def missing_option(path: str, beside: Sequence[str]) -> str:
    """Of an option that a group lacks; ``beside`` are those in a ``--config-dir`` too, and the group's folders."""
    group = next((name for name in _NESTED_GROUPS if path.startswith(f"{name}/")), path.split("/")[0])
    option = path.removeprefix(f"{group}/")
    options = {name for name, _ in options_of(group)} | {name for name in beside if not name.startswith("_")}
    options -= {name.partition("/")[0] for name in options if "/" in name}
    if not options:
        return f"there is no option {path!r}"
    is_short = len(options) <= _MOST_LISTED
    listed = ", ".join(sorted(options)) if is_short else f"{len(options)} that ncflow --help {group} lists"
    return f"{group} must be one of {listed}, found {option!r}{_did_you_mean(_close(option, options))}"


def options_of(group: str, configs: Path = CONF_DIR) -> list[tuple[str, Path]]:
    """Names and files of the options of a group, those in its folders as ``folder/name``; the shared parts are none."""
    folder = configs / group
    files = [file for file in sorted(folder.rglob("*.yaml")) if not file.name.startswith("_")]
    return [(str(file.relative_to(folder).with_suffix("")), file) for file in files]


def _close(word: str, known: Iterable[str]) -> list[str]:
    """Names that somebody may have meant: those with this last part, else the one that is spelt like it."""
    names = sorted(set(known))
    alike = [name for name in names if _last(name) == _last(word)]
    if alike:
        return alike[:_MOST_MEANT]
    return [name for name in difflib.get_close_matches(word, names, n=1) if _ratio(_last(word), _last(name)) >= _ALIKE]


def _last(name: str) -> str:
    return re.split(r"[./]", name)[-1]


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _did_you_mean(names: Sequence[str]) -> str:
    return f"; did you mean {' or '.join(names)}?" if names else ""


def unknown_key(key: str, found: str = "") -> str:
    """Of an option that this config does not have; ``found`` says which value it was given."""
    reason = why_left_out(key)
    if reason is not None:
        return f"{key} must be left out: {reason}"
    owners = [option for option, known in _known_keys() if known == key]
    if owners:
        return f"{key} is an option of {', '.join(owners)}, which this config does not choose"
    close = _close(key, (known for _, known in _known_keys()))
    return f"{key} is not an option of this config{found}{_did_you_mean(close)}"


def _known_keys() -> Iterator[tuple[str, str]]:
    """(where it is known, dotted name) of every option."""
    schema = OmegaConf.to_container(OmegaConf.structured(RunConfig))
    assert isinstance(schema, dict)
    for name, _ in flatten({str(key): value for key, value in schema.items()}):
        yield "every config", name
    groups = [folder.name for folder in sorted(Path(CONF_DIR).iterdir()) if folder.is_dir() and folder.name != "hydra"]
    for group in (*groups, *_NESTED_GROUPS):
        yield "every command", group
        for option, file in options_of(group) if group not in _WITHOUT_OPTIONS else ():
            options = OmegaConf.load(file)
            if isinstance(options, DictConfig):
                yield from ((f"{group}={option}", f"{group.replace('/', '.')}.{key!s}") for key in options)
