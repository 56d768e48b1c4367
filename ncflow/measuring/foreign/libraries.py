"""Models that torchvision, timm and transformers build; nothing is ever downloaded."""

import importlib
from types import ModuleType
from typing import Any

from torch import nn

from ncflow.checks import ArgumentError, error_line, require

LIBRARIES = ("torchvision", "timm", "hf")


def as_module(name: str, found: Any) -> nn.Module:
    """What a constructor returned, if it is a model.

    Raises:
        ArgumentError: If it is not.
    """
    require(isinstance(found, nn.Module), name, "a function that returns an nn.Module", type(found).__name__)
    model: nn.Module = found
    return model


def of_library(name: str, num_classes: int | None) -> nn.Module:
    """``torchvision:NAME`` or ``timm:NAME`` with weights at random, of C classes or as many as it has by itself.

    Raises:
        ArgumentError: If the library is missing or has no such model.
    """
    library, _, kind = name.partition(":")
    options = {} if num_classes is None else {"num_classes": num_classes}
    module = installed(library if library == "timm" else "torchvision.models")
    try:
        if library == "timm":
            return as_module(name, module.create_model(kind, pretrained=False, **options))
        return as_module(name, module.get_model(kind, weights=None, **options))
    except Exception as error:  # of a name that there is not, or an option that it does not have
        raise ArgumentError(f"MODEL must be one that {library} has ({error_line(error)}), found {name!r}") from error


def of_hub(model: str) -> nn.Module:
    """``hf:FOLDER``, or ``hf:NAME`` whose files lie in the cache of Hugging Face, as its config names the class.

    Raises:
        ArgumentError: If transformers is missing, the files are, or they do not have exactly the model's weights.
    """
    name = model.removeprefix("hf:")
    transformers = installed("transformers")
    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = transformers.AutoConfig.from_pretrained(name, **options)
        kind = getattr(transformers, (config.architectures or ["AutoModel"])[0])
        found, info = kind.from_pretrained(name, weights_only=True, output_loading_info=True, **options)
    except Exception as error:  # transformers' errors share no class
        why = error_line(error, named=True)[:300]
        raise ArgumentError(
            f"MODEL must be a folder of Hugging Face or in its cache ({why}), found {model!r}"
        ) from error
    wrong = {word: sorted(map(str, info.get(f"{word}_keys") or [])) for word in ("missing", "unexpected", "mismatched")}
    said = "; ".join(f"{word}: {', '.join(names[:5])}" for word, names in wrong.items() if names)
    require(not said, "weights", "of exactly the model's names and shapes", f"{said} in {name}")
    return as_module(model, found)


def installed(name: str) -> ModuleType:
    """A library that ncflow can do without.

    Raises:
        ArgumentError: If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ArgumentError(f"{name} must be installed for this: pip install {name} ({error_line(error)})") from error
