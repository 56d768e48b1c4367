"""Options that people look for and that a run does not have: why, and what to use instead."""

_LENGTH = "epochs is what sets how long a run is"
_IDLE = "it does nothing in a run of ncflow"
_EQUAL_EPOCHS = "runs are compared at equal epochs, and are not stopped early; epochs is what sets how many"

NOT_TRAINER_OPTIONS = {
    **dict.fromkeys(("max_epochs", "min_epochs", "max_steps", "min_steps", "max_time"), _LENGTH),
    "fast_dev_run": "runs are compared at equal epochs; experiment=debug is a run of one epoch",
    "logger": "logger=csv, none, wandb, tensorboard or mlflow is what sets it",
    "default_root_dir": "runs_dir is what sets it",
    **dict.fromkeys(("overfit_batches", "limit_train_batches"), "data.num_samples is what limits the training data"),
    "callbacks": f"ncflow needs its own; {_EQUAL_EPOCHS}",
    **dict.fromkeys(("plugins", "enable_checkpointing", "barebones"), "ncflow needs its own"),
    **dict.fromkeys(("enable_progress_bar", "enable_model_summary", "log_every_n_steps"), "ncflow has its own"),
    **dict.fromkeys(("limit_val_batches", "limit_test_batches", "limit_predict_batches"), _IDLE),
    **dict.fromkeys(("val_check_interval", "check_val_every_n_epoch", "num_sanity_val_steps", "inference_mode"), _IDLE),
    **dict.fromkeys(("use_distributed_sampler", "reload_dataloaders_every_n_epochs"), _IDLE),
    **dict.fromkeys(("enable_autolog_hparams", "model_registry"), _IDLE),
}
"""Arguments of lightning.Trainer that ncflow sets itself, that do nothing here, or that would break a run."""

_ELSEWHERE = {
    **dict.fromkeys(("callbacks", "early_stopping", "patience"), _EQUAL_EPOCHS),
    "max_epochs": _LENGTH,
    **dict.fromkeys(("ckpt_path", "resume"), "the same command goes on from its checkpoint"),
}


def why_left_out(key: str) -> str | None:
    """Why there is no such option, by its dotted name; None if nothing is known of it."""
    first, _, rest = key.partition(".")
    if first == "trainer":
        return NOT_TRAINER_OPTIONS.get(rest.partition(".")[0])
    return _ELSEWHERE.get(first)
