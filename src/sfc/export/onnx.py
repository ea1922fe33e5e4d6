"""A trained segmenter as one ONNX file: photographs in, class probabilities out, at any size."""

from __future__ import annotations

import io
import json
import logging
import operator
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfc.data.class_list import BACKGROUND
from sfc.errors import SFCError
from sfc.run.files import atomic_write
from sfc.segment.model import Model
from sfc.segment.probabilities import ImageLogits, adjusted
from sfc.segment.segmenter import Segmenter

LARGEST = 2**31 - 2**20
"""Bytes of weights that one ONNX file holds, with room for the graph."""
TOLERANCE = 1e-4
"""Largest difference between the probabilities of the file and of torch."""
TRACED, COMPARED = (2, 70, 91), ((1, 53, 38), (2, 64, 96), (1, 224, 224), (1, 333, 500))
"""Images, height and width; windows of attention may fit at some sizes and not at others."""
PATIENCE = 600.0
"""Seconds after which an export is given up. EfficientNet-Lite0 takes less than two minutes; where the number of
attention's windows depends on the size of the image (Swin), the exporter simplifies formulas of it without end."""
NOISY = ("torch", "onnxscript", "onnx_ir", "onnxruntime")


class _TookTooLong(BaseException):
    """Not an Exception, as the exporter catches these and tries its next way."""


class _Photographs(nn.Module):
    """A segmenter with everything around it: uint8 [N, H, W, 3] to float32 [N, K, H, W]."""

    def __init__(self, net: Segmenter, logit_adjustment: float) -> None:
        super().__init__()
        self.net, self.logit_adjustment = net, logit_adjustment

    def forward(self, image: Tensor) -> Tensor:
        logits = self.net(self.net.pixels.normalise(image.permute(0, 3, 1, 2)))
        logits = adjusted(logits, self.net, self.logit_adjustment)
        size = [image.shape[1], image.shape[2]]
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=False).softmax(dim=1)


def export_onnx(model: Model, path: Path) -> None:
    """Writes a segmenter as an ONNX file, after a look at whether it computes what torch does.

    Its input `image` is uint8 [images, height, width, 3], RGB, any size; its output `probabilities` is float32
    [images, K, height, width], of the image at one scale without mirror; 0 is the background. Class names, provenance
    and `longest`, the long side that larger photographs have to be shrunk to first, are in its metadata, as JSON.

    Args:
        model: stays as it is.
        path: the file.

    Raises:
        SFCError: onnx or onnxscript is not installed, the network is too large or cannot be exported, the file
            computes something else (looked at where onnxruntime is installed), or it cannot be written.
    """
    if not (find_spec("onnx") and find_spec("onnxscript")):
        raise SFCError("ONNX files need packages that are not installed: pip install 'sfc-wsss[onnx]'")
    size = sum(value.numel() * value.element_size() for value in model.net.state_dict().values())
    if size > LARGEST:
        raise SFCError(f"{path}: an ONNX file holds 2 GB, and the weights are {size / 2**30:.1f}")
    net = deepcopy(model.net).cpu().to(memory_format=torch.contiguous_format).eval()
    with _silence():
        content = _exported(model, net, path)
        if find_spec("onnxruntime"):
            _compare(content, net, model.predict.logit_adjustment, path)
    with atomic_write(path) as file:
        file.write(content)


def _exported(model: Model, net: Segmenter, path: Path) -> bytes:
    """The file, checked by onnx."""
    import onnx

    name = f"{model.network.architecture} with {model.network.backbone}"
    try:
        with torch.no_grad(), _patience(PATIENCE):
            program = torch.onnx.export(
                _Photographs(net, model.predict.logit_adjustment).eval(),
                (torch.zeros(*TRACED, 3, dtype=torch.uint8),),
                dynamo=True,
                dynamic_shapes={"image": {0: "images", 1: "height", 2: "width"}},
                input_names=["image"],
                output_names=["probabilities"],
                custom_translation_table={operator.floordiv: _floor_division},
                verbose=False,
            )
        assert program is not None
        proto = program.model_proto
        _describe(proto, model)
        onnx.checker.check_model(proto, full_check=True)
    except _TookTooLong:
        minutes = f"{PATIENCE / 60:.0f} minutes"
        raise SFCError(f"{path}: {name} cannot be exported to ONNX (no end of it in {minutes})") from None
    except Exception as error:  # the exporter's own errors, and whatever a network raises when it is traced
        raise SFCError(f"{path}: {name} cannot be exported to ONNX ({_cause(error)})") from error
    content: bytes = proto.SerializeToString()
    return content


def _floor_division(a: Any, b: Any) -> Any:
    """Rounds down as Python does; the exporter's own rounds towards zero, which is wrong for −(−a // b)."""
    from onnxscript import opset18 as op

    return op.Div(op.Sub(a, op.Mod(a, b)), b)


def _describe(proto: Any, model: Model) -> None:
    """Says what the file is, and takes out where on this machine each node was traced."""
    import onnx

    graph = proto.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    proto.doc_string = (
        "image: uint8 [images, height, width, 3], RGB, as decoded; probabilities: float32 [images, classes, height, "
        "width], 0 is the background"
    )
    properties = {"classes": [BACKGROUND, *model.classes], "provenance": model.provenance, "longest": model.longest}
    texts = {name: json.dumps(value, ensure_ascii=False) for name, value in properties.items()}
    onnx.helper.set_model_props(proto, texts)


def _compare(content: bytes, net: Segmenter, logit_adjustment: float, path: Path) -> None:
    """Refuses a file whose answers are not torch's."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # it writes past sys.stderr
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    for shape in COMPARED:
        images = random.integers(0, 256, (*shape, 3), dtype=np.uint8)
        expected = np.stack(
            [ImageLogits(net, image, logit_adjustment=logit_adjustment).probabilities() for image in images]
        )
        try:
            (found,) = session.run(["probabilities"], {"image": images})
        except Exception as error:  # onnxruntime's errors share no class
            raise SFCError(f"{path}: the exported network does not run ({_cause(error)})") from error
        difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else np.inf
        if not difference <= TOLERANCE:
            raise SFCError(
                f"{path}: the exported network's probabilities differ from torch's by {difference:.1g} on images of "
                f"{shape[1]} × {shape[2]}; it is not written"
            )


def _cause(error: BaseException) -> str:
    """The first line of the error that began it; the exporter's own are pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Raises _TookTooLong in what takes longer; where signals can interrupt it, so in the main thread and on Unix."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def give_up(*_: object) -> None:
        raise _TookTooLong

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _silence() -> Iterator[None]:
    """Keeps to itself what the exporter says about its own workings."""
    loggers = [logging.getLogger(name) for name in NOISY]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
