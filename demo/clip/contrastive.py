"""Training a CLIP: what is minimised, and a table for the few words that its sentences have."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def contrastive_loss(image: Tensor, text: Tensor, truth: Tensor, scale: Tensor) -> Tensor:
    """Cross-entropy of who belongs to whom, where one sentence may be true of many images.

    Source:
        Yang et al. 2022 (UniCL), https://arxiv.org/abs/2204.03610, eq. 1 to 3, with sentences in
        the place of labels.

    Args:
        image: Image embeddings of length 1, shape ``(B, D)``.
        text: Sentence embeddings of length 1, shape ``(T, D)``.
        truth: 1 true, 0 false, -1 left out, shape ``(B, T)``.
        scale: Factor on the cosines.

    Returns:
        Mean of both directions, in nats.
    """
    logits = (scale * image @ text.T).masked_fill(truth < 0, -1e4)
    return (_one_way(logits, truth) + _one_way(logits.T, truth.T)) / 2


def _one_way(logits: Tensor, truth: Tensor) -> Tensor:
    right = (truth > 0).float()
    count = right.sum(dim=1)
    found = -(right * logits.log_softmax(dim=1)).sum(dim=1) / count.clamp(min=1)
    return found.sum() / (count > 0).sum().clamp(min=1)


def state_loss(features: Tensor, way: Tensor, label: Tensor, scale: Tensor) -> Tensor:
    """Cross-entropy of the choice between two sentences, as in zero-shot scoring.

    Args:
        features: Embeddings of length 1, shape ``(B, D)``.
        way: From a sentence that says normal to its opposite, shape ``(K, D)``.
        label: 0 normal, 1 anomalous, shape ``(B,)``.
        scale: Factor on the cosines.

    Returns:
        Mean over both labels and all pairs of sentences, in nats.
    """
    logits = scale * features @ way.T  # (B, K)
    target = label.to(logits.dtype).unsqueeze(1).expand_as(logits)
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=1)
    sides = [losses[label == value] for value in (0, 1)]
    return torch.stack([side.mean() for side in sides if len(side)]).mean()


class WordTable(nn.Module):
    """Word embeddings of a few word pieces; all others share one.

    A word that the training never shows means nothing, instead of something by chance.

    Args:
        known: Ids of the word pieces with an embedding of their own.
        vocabulary: Word pieces in all.
        width: Features of an embedding.
    """

    row: Tensor

    def __init__(self, known: Sequence[int], vocabulary: int, width: int) -> None:
        super().__init__()
        row = torch.zeros(vocabulary, dtype=torch.long)
        row[torch.tensor(known)] = torch.arange(1, len(known) + 1)
        self.register_buffer("row", row)
        self.rows = nn.Embedding(len(known) + 1, width)
        nn.init.normal_(self.rows.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """``(B, L)`` to ``(B, L, D)``."""
        return self.rows(self.row[ids])

    def expanded(self) -> Tensor:
        """The table in full, shape ``(vocabulary, width)``."""
        return self.rows.weight.detach()[self.row]


@torch.no_grad()
def whiten_patches(convolution: nn.Conv2d, pixels: Tensor) -> None:
    """Starts a patch embedding from the strongest components of real patches, all equally loud.

    Patches are mostly brightness; what is fine and faint, as defects are, is lost in a random
    embedding for as long as it takes to learn it.

    Source:
        The first layer of https://arxiv.org/abs/2404.00498, with a random rotation after it.

    Args:
        convolution: Takes patches that do not overlap; changed in place.
        pixels: Images as the network sees them, shape ``(B, 3, H, W)``.
    """
    outputs, side = convolution.out_channels, convolution.kernel_size[0]
    patches = F.unfold(pixels.float().contiguous(), side, stride=side).transpose(1, 2).flatten(0, 1)
    patches = patches - patches.mean(dim=0)
    covariance = (patches.T @ patches / len(patches)).cpu()  # mps has neither float64 nor eigh
    variances, components = torch.linalg.eigh(covariance.double())
    variances, components = variances.flip(0)[:outputs], components.flip(1)[:, :outputs]
    whitening = (components / (variances + 0.01 * variances.mean()).sqrt()).T.float()
    rotation = torch.linalg.qr(torch.randn(outputs, outputs)).Q
    convolution.weight.copy_(0.5 * (rotation @ whitening).view_as(convolution.weight))
