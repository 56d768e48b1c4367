"""``ncflow --help``: what it does, its groups and options; ``ncflow --help data=digits`` those of one choice.

What is said of an option is the comment beside it in the configs.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from ncflow.config.explain import missing_option, options_of
from ncflow.config.schema import CONF_DIR, LOGGERS, ConfigError
from ncflow.results.report import wrapped

_WHAT = """\
ncflow trains a classifier, or a grid of them, measures its neural collapse and keeps it in a folder. The same command
again goes on: what is finished is skipped, what was interrupted resumes.

usage: ncflow [-m] [GROUP=OPTION ...] [OPTION=VALUE ...]"""
_EXAMPLES = {
    "ncflow data=digits model.norm=none weight_decay=5e-3": "one run",
    "ncflow -m model.norm=last,none weight_decay=1e-4,1e-3 seed=0,1": "a sweep",
    "ncflow experiment=quickstart hydra/launcher=local": "an experiment, a process a core",
    "ncflow experiment=debug model=convnet data=digits": "does it run at all?",
    "ncflow --config-dir my_conf data=my_data model=my_model": "data and model of your own",
}
_GROUPS = {
    "experiment": "a grid with its figures; _small: for two cores",
    "data": "what is classified",
    "model": "the network",
    "bn": "where BN is, and of which kind",
    "loss": "what is minimised",
    "optimizer": "with its learning rate",
    "scheduler": "how the learning rate falls",
    "trainer": "device and precision",
    "logger": "who is told beside the files of the run",
    "hydra/launcher": "where the runs of a sweep are trained",
    "hydra/sweeper": "which runs a sweep has",
}
_MORE = """\
--cfg job prints the config, --info where it comes from, --hydra-help the rest.
Completion, of experiments too: eval "$(ncflow -sc install=bash)" (or fish)
Also, each with --help: ncflow-figures, ncflow-status, ncflow-measure,
ncflow-theory, ncflow-sync"""
_FIELD = re.compile(r"^( *)([\w@/]+):\s*(.*?)\s*$")


class Option(NamedTuple):
    """A line of a config: dotted name, value as it is written, and comment."""

    name: str
    value: str
    comment: str


def show(arguments: Sequence[str]) -> None:
    """Print what is asked for.

    Args:
        arguments: Of the command; of the options ``--config-dir`` counts, and of the overrides groups and choices.

    Raises:
        SystemExit: If something is asked for that there is not.
    """
    own = [Path(found) for option in ("--config-dir", "-cd") if (found := _after(option, arguments))]
    words = [word for word in arguments if not word.startswith("-") and Path(word) not in own]
    try:
        for told in [_told_of(word, own) for word in words] or [_overview(own)]:
            print(told, flush=True)
    except BrokenPipeError:  # by a reader who has seen enough; what Python flushes at its end would fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ConfigError as error:
        print(f"ncflow: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _after(option: str, arguments: Sequence[str]) -> str | None:
    """The value of an option of the command."""
    joined = next((word.partition("=")[2] for word in arguments if word.startswith(f"{option}=")), None)
    return joined or next((value for word, value in pairwise(arguments) if word == option), None)


def _overview(own: Sequence[Path]) -> str:
    what, usage = _WHAT.split("\n\n")
    parts = [wrapped(what), "", usage, ""]
    parts += ["Examples:", *(f"  {command}\n      {what}" for command, what in _EXAMPLES.items())]
    parts += ["", "Groups (ncflow --help GROUP and ncflow --help GROUP=OPTION say more):"]
    for group, what in _GROUPS.items():
        names = [name for name, _ in _options(group, own)]
        some = [name for name in names if "/" not in name]
        folders = dict.fromkeys(f"{name.partition('/')[0]}/..." for name in names if "/" in name)
        parts.append(wrapped(f"{group} ({what}): {', '.join([*some, *folders])}", "  ", "      "))
    parts += ["", "Launchers of a sweep (hydra/launcher=...):"]
    parts.append("  basic: one after the other, in this process; it is what you get without any")
    for name, file in _options("hydra/launcher", own):
        parts.append(wrapped(f"{name}: {_header(file)}", "  ", "      "))
    parts += ["", "Options of every run:"]
    fields = [option for option in _commented(CONF_DIR / "train.yaml") if not option.name.startswith("hydra")]
    return "\n".join([*parts, *map(_line, fields), "", _MORE])


def _told_of(word: str, own: Sequence[Path]) -> str:
    """Of a group its options, of a choice its own, of an option of every run what it is."""
    group, is_choice, name = word.partition("=")
    files = dict(_options(group, own))
    if files and not is_choice:
        return "\n".join(wrapped(f"{group}={name}: {_header(file)}", "", "    ") for name, file in files.items())
    if files and name in files:
        return _choice(group, name, files)
    if files:
        raise ConfigError(missing_option(f"{group}/{name}", list(files)))
    fields = {option.name: option for option in _commented(CONF_DIR / "train.yaml")}
    if group in fields:
        return _line(fields[group])
    raise ConfigError(f"--help must be followed by a group ({', '.join(_GROUPS)}) or a choice of one, found {word!r}")


def _choice(group: str, name: str, files: dict[str, Path]) -> str:
    lines = [wrapped(_header(files[name]))]
    target = _takes(group, name, files)
    if target is None:
        body = files[name].read_text().splitlines()
        return "\n".join([*lines, *(line for line in body if not line.startswith("#"))])
    from ncflow.config.build import rules_of

    rules = rules_of(target)
    prefix = group.replace("/", ".")
    for option in _merged(name, files).values():
        if option.name not in ("name", "_target_", "_recursive_", "defaults"):
            whole = option._replace(name=f"{prefix}.{option.name}")
            lines.append(_line(whole, rules.get(option.name, "")))
    return "\n".join(lines)


def _takes(group: str, name: str, files: dict[str, Path]) -> Callable[..., Any] | None:
    """What takes the options of a choice, for their types; None for a part of the whole config."""
    from ncflow.config.build import locate

    if group == "logger":
        return LOGGERS.get(name)
    if group == "trainer":
        from ncflow.training.trainer import TrainerOptions

        return TrainerOptions
    if group == "hydra/launcher":
        from ncflow.sweeps.local import LocalOptions
        from ncflow.training.stacked.launcher import StackedOptions

        if name == "slurm":
            from ncflow.sweeps.slurm import SlurmOptions

            return SlurmOptions
        return {"local": LocalOptions, "stacked": StackedOptions}.get(name)
    target = _merged(name, files).get("_target_")
    return locate(group, target.value) if target is not None and group != "hydra/sweeper" else None


def _options(group: str, own: Sequence[Path]) -> list[tuple[str, Path]]:
    """The options of a group, and those in folders of the user's."""
    return [found for folder in (CONF_DIR, *own) for found in options_of(group, folder)]


def _merged(name: str, files: dict[str, Path]) -> dict[str, Option]:
    """Options of a file after those of the files that it stands on."""
    file, merged = files[name], dict[str, Option]()
    content = OmegaConf.load(file)
    parents = content.get("defaults") if isinstance(content, DictConfig) else None
    for parent in parents or ():
        beside = file.parent / f"{parent}.yaml"
        if parent != "_self_" and beside.is_file():
            merged |= _merged(str(parent), {**files, str(parent): beside})
    for option in _commented(file):
        known = merged.get(option.name)
        merged[option.name] = option if option.comment or known is None else option._replace(comment=known.comment)
    return merged


def _header(file: Path) -> str:
    """The comment at the top of a file, as one line."""
    lines = []
    for line in file.read_text().splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.lstrip("# "))
    return " ".join(lines)


def _commented(file: Path) -> Iterator[Option]:
    """The options of a file that are at its top, or one level below."""
    above, parent, seen = list[str](), "", False
    for line in file.read_text().splitlines():
        if line.lstrip().startswith("#"):
            above.append(line.lstrip("# "))
            continue
        field = _FIELD.match(line)
        if field is None:
            above = []
            continue
        indent, name, rest = field.groups()
        value, _, comment = rest.partition(" #") if not rest.startswith("#") else ("", "", rest[1:])
        comment = comment.strip() or (" ".join(above) if seen else "")
        above, seen = [], True
        if not indent:
            parent = f"{name}." if not value.strip() else ""
            if value.strip():
                yield Option(name, value.strip(), comment)
        elif parent and len(indent) == 2:
            yield Option(f"{parent}{name}", value.strip(), comment)


def _line(option: Option, rule: str = "") -> str:
    """An option, its type, and what is said of it."""
    what = "; ".join(part for part in (rule, option.comment) if part)
    first = f"  {option.name}={option.value}"
    return wrapped(f"{first:<34} {what}".rstrip(), "", "      ") if what else first
