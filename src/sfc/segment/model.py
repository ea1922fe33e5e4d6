"""A trained segmenter that stands on its own: out of a run, into a folder of two files, and back in one line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from sfc.data.class_list import BACKGROUND
from sfc.errors import CheckpointError, ConfigError, SFCError
from sfc.run.files import atomic_write, write_json
from sfc.run.folder import RunFolder
from sfc.segment.config import ModelConfig, PredictConfig, Way
from sfc.segment.deeplab import DeepLabV2
from sfc.segment.networks import build_segmenter
from sfc.segment.predict import Predictor
from sfc.segment.segmenter import Segmenter, SegmenterConfig
from sfc.settings.read import load_settings
from sfc.settings.shared import NONE, PUBLISHED

FORMAT = 4
CONFIG, WEIGHTS = "config.json", "model.safetensors"


@dataclass(frozen=True)
class Model:
    """A trained segmenter and all that its use needs.

    Args:
        net: in evaluation mode.
        classes: foreground; channel 1 + c of the network is class c, and channel 0 the background.
        network: describes the network without the run that it comes from.
        predict: scales and CRF of its predictions.
        longest: the long side that larger photographs are shrunk to, as in training; None: they are not.
        provenance: plain values that say which data and masks it was made from, and by which versions and commit.
    """

    net: Segmenter
    classes: tuple[str, ...]
    network: SegmenterConfig
    predict: PredictConfig
    longest: int | None
    provenance: dict[str, Any]

    @cached_property
    def _predictor(self) -> Predictor:
        return Predictor(self.net, self.predict, longest=self.longest)

    def probabilities(self, image: NDArray[np.uint8], way: Way = "multi") -> NDArray[np.float32]:
        """Class probabilities of every pixel.

        Args:
            image: uint8 [H, W, 3], RGB.
            way: `single`: the image as it is; `multi`: the scales, mirror and pooling of `predict`; with `+crf` a
                dense CRF behind it.

        Returns:
            float32 [K, H, W], sums to 1 over K; 0 is the background.

        Raises:
            ValueError: the image is not uint8 [H, W, 3].
        """
        strips = self._predictor.strips(image, (way,))
        return np.concatenate([strip.probabilities[way] for strip in strips], axis=1)

    def mask(self, image: NDArray[np.uint8], way: Way = "multi") -> NDArray[np.uint8]:
        """uint8 [H, W]: 0 background, 1 + class index; see `probabilities`."""
        return self._predictor.masks(image, (way,))[way].labels

    def weights_hash(self) -> str:
        """sha256 over the names and values of the weights, in hexadecimal; the same in a run and a model folder."""
        digest = hashlib.sha256()
        for name, value in sorted(_state(self.net).items()):
            digest.update(f"{name}\0{value.dtype}\0{list(value.shape)}\n".encode())
            digest.update(value.numpy().tobytes())
        return digest.hexdigest()


def save_model(model: Model, folder: Path) -> None:
    """Writes `model.safetensors` and `config.json`; the same bytes for the same model.

    A folder without `config.json` is half written, and `load` says so.

    Raises:
        SFCError: the folder is something else, cannot be written, or the disk is full.
    """
    present = folder / CONFIG
    if RunFolder(folder).config.exists() or (present.exists() and _format(present) != FORMAT):
        raise SFCError(f"{folder}: holds something else than a model; choose another folder")
    with atomic_write(folder / WEIGHTS) as file:
        file.write(save(_state(model.net), metadata={"format": "pt"}))
        # Old settings must not lie beside new weights, whenever this ends.
        (folder / CONFIG).unlink(missing_ok=True)
    content = {
        "format": FORMAT,
        "classes": [BACKGROUND, *model.classes],
        "network": asdict(_portable(model.network)),
        "preprocessing": _preprocessing(model.net),
        "sizes": _sizes(model.net),
        "predict": asdict(model.predict),
        "longest": model.longest,
        "provenance": model.provenance,
    }
    write_json(folder / CONFIG, content)


def _preprocessing(net: Segmenter) -> dict[str, Any]:
    """What is done to the pixels of an image before the network sees them."""
    return {"colours": "RGB", "divide_by": 255, **net.pixels.plain(), "layout": "[N, 3, H, W]"}


def _portable(network: SegmenterConfig) -> SegmenterConfig:
    """Names, not paths: a model travels, and whose folders it was made in is nobody's business."""
    return replace(network, weights=NONE if network.weights == NONE else PUBLISHED)


def _format(path: Path) -> Any:
    try:
        return _read_json(path, CheckpointError).get("format")
    except CheckpointError:
        return None


def load(folder: str | Path) -> Model:
    """Opens a model folder; runs no code that it may hold, and needs no network.

    Args:
        folder: what `sfc export` wrote: model.safetensors and config.json.

    Raises:
        CheckpointError: the folder or one of its files is missing or damaged, or they do not fit together.
        ConfigError: its settings are not those of this version of sfc.
    """
    folder = Path(folder)
    path = folder / CONFIG
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: there is no such model folder")
    if not path.is_file():
        raise CheckpointError(f"{folder}: no model folder, or half of one ({CONFIG} is missing)")
    content = _read_json(path, CheckpointError)
    if content.get("format") != FORMAT:
        raise CheckpointError(f"{path}: format {content.get('format')!r}; this version of sfc reads {FORMAT}")
    classes = _classes(path, content.get("classes"))
    settings = _settings(path, content)
    with torch.random.fork_rng(devices=[]):
        try:
            net = build_segmenter(settings.network, len(classes) + 1, blank=True).eval()
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
    if content.get("preprocessing") != _preprocessing(net):
        raise ConfigError(f"{path}: this version of sfc prepares images otherwise than 'preprocessing' says")
    _load_weights(net, folder / WEIGHTS)
    provenance = content.get("provenance")
    if not isinstance(provenance, dict):
        raise ConfigError(f"{path}: 'provenance' must be a section of names and values")
    return Model(net, classes, settings.network, settings.predict, _longest(path, content), provenance)


def _read_json(path: Path, kind: type[CheckpointError | ConfigError]) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise kind(f"{path}: damaged, or cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise kind(f"{path}: damaged (holds no names and values)")
    return cast(dict[str, Any], content)


def _classes(path: Path, names: Any) -> tuple[str, ...]:
    """The foreground classes among the names of the channels."""
    valid = isinstance(names, list) and len(names) > 1 and all(isinstance(name, str) for name in names)
    if not valid or names[0] != BACKGROUND or len(set(names)) < len(names):
        raise ConfigError(f"{path}: 'classes' must be {BACKGROUND} and then different names of classes")
    return tuple(names[1:])


def _longest(path: Path, content: Mapping[str, Any]) -> int | None:
    longest = content.get("longest")
    if longest is not None and (type(longest) is not int or longest < 1):
        raise ConfigError(f"{path}: 'longest' must be a number of pixels, or null")
    return longest


def _settings(path: Path, content: Mapping[str, Any]) -> ModelConfig:
    """The settings of a model folder, as strictly read as a recipe's."""
    for name in ("network", "predict"):
        if not isinstance(content.get(name), dict):
            raise ConfigError(f"{path}: '{name}' is missing or no section of settings")
    try:
        return load_settings(ModelConfig, (), {name: content[name] for name in ("network", "predict")})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _load_weights(net: Segmenter, path: Path) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file")
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged, or not a safetensors file") from error
    wanted = net.state_dict()
    wrong = sorted(wanted.keys() ^ state.keys())
    wrong += [name for name in wanted if name in state and wanted[name].shape != state[name].shape]
    if wrong:
        raise CheckpointError(f"{path}: not the weights of the network in {CONFIG} ({wrong[0]} does not fit)")
    net.load_state_dict(state)


def _state(net: Segmenter) -> dict[str, Tensor]:
    """Every weight on the CPU, each in memory of its own."""
    state = net.state_dict()
    return {name: state[name].cpu().clone(memory_format=torch.contiguous_format) for name in state}


def _sizes(net: Segmenter) -> dict[str, Any]:
    """What those need to know who run the network with other code."""
    padded = net.backbone if isinstance(net, DeepLabV2) else net
    return {
        "stride": net.stride,
        "padded_to_multiple": padded.multiple,
        "padding": "by the network itself, with zeros at the right and bottom of the normalised image",
    }
