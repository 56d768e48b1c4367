"""Hydra's completion, which knows the options of a group but not those in its folders: ``experiment=pan_cao/fig2``."""

from collections.abc import Iterator
from typing import Any

from hydra.core.object_type import ObjectType
from hydra.plugins.completion_plugin import CompletionPlugin

_NESTED = "experiment"
_of_hydra = CompletionPlugin._query_config_groups


def complete_nested() -> None:
    """Let every shell's completion offer the experiments in folders; harmless when repeated."""
    CompletionPlugin._query_config_groups = _query  # type: ignore[method-assign]


def _query(self: Any, word: str, config_name: str | None, words: list[str]) -> tuple[list[str], bool]:
    group, _, begun = word.partition("=")
    if group == _NESTED and "=" in word:
        return [f"{group}={name}" for name in _options(self, group) if name.startswith(begun)], True
    found, is_exact = _of_hydra(self, word, config_name, words)
    # Its folders are no groups of their own, and what options share is none of them.
    kept = [name for name in found if not name.startswith(f"{_NESTED}/") and "=_" not in name]
    return [f"{name}=" if name == _NESTED else name for name in kept], is_exact


def _options(plugin: Any, group: str, above: str = "") -> Iterator[str]:
    options, folders = (
        plugin.config_loader.get_group_options(f"{group}/{above}".rstrip("/"), kind)
        for kind in (ObjectType.CONFIG, ObjectType.GROUP)
    )
    yield from (f"{above}{name}" for name in options if name not in folders)
    for folder in folders:
        yield from _options(plugin, group, f"{above}{folder}/")
