"""What every segmentation network is to training and prediction: image in, class logits out."""

from __future__ import annotations

from torch import nn

from sfc.networks.backbone import BATCH_NORMS

FROM_CLASSIFIER = "classifier"


class Segmenter(nn.Module):
    """What every segmentation network is to training and prediction.

    `forward` takes a normalised image [N, 3, H, W] of any size and returns logits [N, K, h, w]; channel 0 is the
    background and 1 + c is class c. Cell (i, j) of the h × w grid stands for the same part of the image as pixel
    (i, j) of an image shrunk to h × w.

    Args:
        frozen_norm: the backbone's batch norms neither learn nor update their statistics.

    Attributes:
        stride: pixels of the image to a cell of the logits; sizes are rounded up.
    """

    stride: int

    def __init__(self, frozen_norm: bool) -> None:
        super().__init__()
        self.frozen_norm = frozen_norm

    @property
    def encoder(self) -> nn.Module:
        """The part that published weights exist for."""
        raise NotImplementedError

    def head_parameters(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Weights, and biases, of the layers that no published weights exist for."""
        known = {id(parameter) for parameter in self.encoder.parameters()}
        head = [(name, p) for name, p in self.named_parameters() if id(p) not in known]
        biases = [parameter for name, parameter in head if name.endswith("bias")]
        return [parameter for name, parameter in head if not name.endswith("bias")], biases

    def freeze_norms(self) -> None:
        """Takes the backbone's batch norms out of training, if that is wanted."""
        if self.frozen_norm:
            for module in self.encoder.modules():
                if isinstance(module, BATCH_NORMS):
                    module.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Segmenter:
        """Training mode, save that frozen norms stay as in evaluation."""
        super().train(mode)
        self.freeze_norms()
        return self
