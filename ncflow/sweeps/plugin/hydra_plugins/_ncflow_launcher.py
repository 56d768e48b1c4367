"""What ncflow's launchers share. Every Hydra application imports this module at its start, so it imports little."""

from typing import Any

from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class NcflowLauncher(Launcher):
    """A launcher that keeps what Hydra gives.

    Args:
        options: Of its config group.
    """

    def __init__(self, **options: Any) -> None:
        self.options: dict[str, Any] = {
            name: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            for name, value in options.items()
        }

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config
