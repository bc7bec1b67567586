"""How much images of one class differ, in the features of a network."""

from __future__ import annotations

import torch
from torch import Tensor

from .._core.errors import UserError
from ..data.dataset import Dataset
from ..models import hooks
from ..models.network import Network, frozen
from ..records.divergence import pixel_batches

__all__ = ["FEWEST", "PER_CLASS", "diversity"]

PER_CLASS = 64
"""Number of images per class that are compared; the result depends on it."""
FEWEST = 16
"""Number of images below which a class is left out."""
IMAGES = 2048
"""Number of images that are looked at."""


@torch.no_grad()
def diversity(network: Network, source: Dataset | Tensor) -> float | None:
    """Effective number of directions in which images of one class differ, averaged over classes.

    Of the first 2,048 images, up to 64 of each class that the network predicts: the exponential of the entropy of the
    eigenvalues of the covariance of their penultimate features (the effective rank of Roy and Vetterli 2007). A set that
    repeats a few pictures per class has fewer directions than pictures, also if its statistics and classes are those of the
    training data. `source` is a data set, or pixels (N, C, H, W) in the network's range. None if fewer than 16 images are of
    the same class, or if no image passes a linear or convolutional layer.
    """
    try:
        hooks.shapes(network, (hooks.FEATURES,))
    except UserError:  # a network without such a layer
        return None
    features, classes = _features(network, source)
    ranks = []
    for label in classes.unique():
        rows = features[classes == label][:PER_CLASS]
        if len(rows) >= FEWEST:
            ranks.append(_effective_rank(rows))
    return sum(ranks) / len(ranks) if ranks else None


def _features(network: Network, source: Dataset | Tensor) -> tuple[Tensor, Tensor]:
    """Penultimate features (N, F) in float64, and predicted classes (N,)."""
    features, classes = [], []
    with frozen(network.module), hooks.watch(network, (hooks.FEATURES,)) as activations:
        for pixels in pixel_batches(network, source, (hooks.FEATURES,), limit=IMAGES):
            logits = network.logits(pixels.to(network.device))
            feature = activations[hooks.FEATURES]
            features.append((feature if feature.ndim == 2 else feature.flatten(2).mean(2)).double().cpu())
            classes.append(logits.argmax(1).cpu())
    return torch.cat(features), torch.cat(classes)


def _effective_rank(features: Tensor) -> float:
    """Exponential of the entropy of the variances along the principal directions of features (N, F)."""
    variances = torch.linalg.svdvals(features - features.mean(0)).square()
    shares = variances / variances.sum().clamp(min=1e-300)
    return float(torch.special.entr(shares).sum().exp()) if bool(variances.sum() > 0) else 0.0
