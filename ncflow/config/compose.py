"""The cells of a sweep: composed as Hydra does, but what they share only once.

Hydra reads its files anew for each cell, in a tenth of a second or two. Here cells that choose the same options of the
groups share what Hydra composed for them, and only their own values are put into it, in a hundredth of that.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from ncflow.config.identity import describe, experiment_name
from ncflow.results import RunFolder


class Composer:
    """Composes the cells of a sweep.

    Args:
        context: As Hydra gives it to its plugins.
        sweep: The config of the sweep.
    """

    def __init__(self, context: HydraContext, sweep: DictConfig) -> None:
        self._loader, self._sweep = context.config_loader, sweep
        self._parser = OverridesParser.create(config_loader=self._loader)
        self._parsed: dict[str, Override] = {}
        self._is_group: dict[str, bool] = {}
        self._templates: dict[tuple[str, ...], DictConfig] = {}
        self._scratch: dict[tuple[tuple[str, ...], tuple[str, ...]], DictConfig] = {}
        self._looked_at: list[str] = []
        OmegaConf.register_new_resolver("ncflow.output_dir", _output_dir, replace=True)
        OmegaConf.register_new_resolver("ncflow.override_dirname", self._dirname_looked_at, replace=True)
        OmegaConf.register_new_resolver("ncflow.task_overrides", lambda: self._looked_at, replace=True)

    def cell(self, overrides: Sequence[str], number: int | None = None) -> DictConfig:
        """Config of a cell with Hydra's own part, which ``${hydra:...}`` refers to from then on.

        Args:
            overrides: Those of the cell.
            number: Of the cell in the sweep, if it is known.
        """
        groups, values = self._parted(overrides)
        cfg = copy.deepcopy(self._template(groups))
        if not _put(cfg, values):
            cfg = self._by_hydra(overrides)  # which says what is wrong
        self._note(cfg, overrides)
        with read_write(cfg.hydra), open_dict(cfg.hydra):
            if number is not None:
                cfg.hydra.job.id = cfg.hydra.job.num = number
            _refer_to(cfg)
            cfg.hydra.sweep.subdir = str(cfg.hydra.sweep.subdir)  # which what trains it elsewhere cannot know
            cfg.hydra.runtime.output_dir = _output_dir(cfg)
        return cfg

    def shared(self, overrides: Sequence[str]) -> DictConfig:
        """Config of a cell, as :meth:`cell` gives it, but one that the next call may change: to look at."""
        groups, values = self._parted(overrides)
        key = groups, tuple(value.key_or_group for value in values)
        self._looked_at = self._of_task(overrides)
        is_merged = any(isinstance(value.value(), dict) for value in values)  # into that of the cell before
        if is_merged or any("${" in line for line in overrides):  # whose values Hydra's own part has as they are
            return self.cell(overrides)
        if key not in self._scratch:
            cfg = self._scratch[key] = copy.deepcopy(self._template(groups))
            with read_write(cfg.hydra):  # what takes long is worked out where it is asked for
                cfg.hydra.runtime.output_dir = "${ncflow.output_dir:}"
                cfg.hydra.job.override_dirname = "${ncflow.override_dirname:}"
                cfg.hydra.overrides.task = "${ncflow.task_overrides:}"
        cfg = self._scratch[key]
        if not _put(cfg, values):
            del self._scratch[key]
            return self.cell(overrides)
        _refer_to(cfg)
        return cfg

    def _by_hydra(self, overrides: Sequence[str]) -> DictConfig:
        return self._loader.load_sweep_config(self._sweep, list(overrides))

    def _template(self, groups: tuple[str, ...]) -> DictConfig:
        if groups not in self._templates:
            self._templates[groups] = self._by_hydra(groups)
        return self._templates[groups]

    def _parted(self, overrides: Sequence[str]) -> tuple[tuple[str, ...], list[Override]]:
        """Those that Hydra has to compose with, and those that give a value to an option that there is."""
        groups, values = [], []
        for line in overrides:
            parsed = self._parse(line)
            key = parsed.key_or_group
            if parsed.type == OverrideType.CHANGE and parsed.package is None and not parsed.is_hydra_override():
                if key not in self._is_group:
                    self._is_group[key] = bool(self._loader.get_group_options(key))
                if not self._is_group[key]:
                    values.append(parsed)
                    continue
            groups.append(line)
        return tuple(groups), values

    def _parse(self, line: str) -> Override:
        if line not in self._parsed:
            (self._parsed[line],) = self._parser.parse_overrides([line])
        return self._parsed[line]

    def _note(self, cfg: DictConfig, overrides: Sequence[str]) -> None:
        """What Hydra's own part says of the overrides of a cell."""
        task = self._of_task(overrides)
        with read_write(cfg.hydra):
            cfg.hydra.overrides.task = task
            cfg.hydra.job.override_dirname = self._dirname(cfg, task)

    def _of_task(self, overrides: Sequence[str]) -> list[str]:
        """Those that are not of Hydra's own part."""
        return [line for line in overrides if not self._parse(line).is_hydra_override()]

    def _dirname(self, cfg: DictConfig, task: Sequence[str]) -> str:
        name = cfg.hydra.job.config.override_dirname
        lines = [self._parse(line) for line in task]
        return str(get_overrides_dirname(lines, list(name.exclude_keys), name.item_sep, name.kv_sep))

    def _dirname_looked_at(self, _root_: DictConfig) -> str:
        return self._dirname(_root_, self._looked_at)


class Cells(Sequence[DictConfig]):
    """The configs of some cells, each composed when it is asked for: thousands need not be held.

    Args:
        composer: Of the sweep.
        overrides: Of each cell.
        first: Number of the first one in the sweep.
    """

    def __init__(self, composer: Composer, overrides: Sequence[Sequence[str]], first: int) -> None:
        self._composer, self._overrides, self._first = composer, overrides, first

    def __len__(self) -> int:
        return len(self._overrides)

    @overload
    def __getitem__(self, index: int) -> DictConfig: ...

    @overload
    def __getitem__(self, index: slice) -> list[DictConfig]: ...

    def __getitem__(self, index: int | slice) -> DictConfig | list[DictConfig]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        return self._composer.cell(self._overrides[index], self._first + index)

    def looked_at(self, places: Iterable[int]) -> Iterator[DictConfig]:
        """The configs at some places, each as :meth:`Composer.shared` gives it."""
        return (self._composer.shared(self._overrides[place]) for place in places)


class Chosen(Sequence[DictConfig]):
    """Some of the configs of others, each asked for there.

    Args:
        configs: The others.
        places: Those of the chosen ones.
    """

    def __init__(self, configs: Sequence[DictConfig], places: Sequence[int]) -> None:
        self._configs, self._places = configs, places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> DictConfig: ...

    @overload
    def __getitem__(self, index: slice) -> "Chosen": ...

    def __getitem__(self, index: int | slice) -> "DictConfig | Chosen":
        if isinstance(index, slice):
            return Chosen(self._configs, self._places[index])
        return self._configs[self._places[index]]

    def looked_at(self, places: Iterable[int]) -> Iterator[DictConfig]:
        """The configs at some places, each as :func:`looked_at` gives it."""
        return looked_at(self._configs, [self._places[place] for place in places])


def looked_at(configs: Sequence[DictConfig], places: Iterable[int] | None = None) -> Iterator[DictConfig]:
    """Configs that are looked at one after the other, each of which may change when the next is asked for.

    Args:
        configs: All of them.
        places: Of those to look at; None for all.
    """
    places = range(len(configs)) if places is None else places
    if isinstance(configs, Cells | Chosen):
        return configs.looked_at(places)
    return (configs[place] for place in places)


_latest: list[tuple[HydraContext, DictConfig, Composer]] = []


def composer_of(context: HydraContext, sweep: DictConfig) -> Composer:
    """The composer of a sweep: the same for its sweeper and its launcher."""
    if not any(known is context and config is sweep for known, config, _ in _latest):
        _latest[:] = [(context, sweep, Composer(context, sweep))]
    return _latest[0][2]


def cells_of(
    context: HydraContext, sweep: DictConfig, overrides: Sequence[Sequence[str]], first: int
) -> Sequence[DictConfig]:
    """The cells that a launcher is given.

    Args:
        context: As Hydra gives it to its plugins.
        sweep: The config of the sweep.
        overrides: Of each cell.
        first: Number of the first one in the sweep.
    """
    return Cells(composer_of(context, sweep), overrides, first)


def _refer_to(cfg: DictConfig) -> None:
    """Let ``${hydra:...}`` refer to this config: the one itself, as to copy Hydra's part takes longer than the rest."""
    HydraConfig.instance().cfg = cfg  # type: ignore[assignment]


def _output_dir(_root_: DictConfig) -> str:
    return str(folder_of(_root_).absolute())


def _put(cfg: DictConfig, values: Sequence[Override]) -> bool:
    """Put values into a config, as Hydra does; False if one does not fit."""
    try:
        for value in values:
            OmegaConf.update(cfg, value.key_or_group, value.value(), merge=True)
    except OmegaConfBaseException:
        return False
    return True


def folder_of(cfg: DictConfig) -> Path:
    """Folder of a composed cell."""
    return Path(str(cfg.hydra.sweep.dir)) / str(cfg.hydra.sweep.subdir)


def run_of(cfg: DictConfig, start: Path = Path()) -> RunFolder:
    """The run of a composed cell, in a folder that is relative to another one."""
    path = start / folder_of(cfg)
    return RunFolder(path, describe(cfg, experiment_name(cfg), path))
