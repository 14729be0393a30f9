"""Random draws that depend on the seed and the image only, never on order or batching."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor


def image_key(image: Tensor) -> str:
    """A key of the content of an image ``(C, *spatial)``: the same alone and in any batch.

    Axes of size one do not count, so that a volume of one slice gets the draws of the slice.
    """
    values = image.detach().to("cpu", torch.float32).contiguous().numpy()
    digest = hashlib.blake2b(np.ascontiguousarray(values).tobytes(), digest_size=16)
    digest.update(str([size for size in values.shape if size != 1]).encode())
    return digest.hexdigest()


def generator(*parts: object) -> torch.Generator:
    """A CPU generator for one work item, from everything that identifies it."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def standard_normal(like: Tensor, source: torch.Generator) -> Tensor:
    """N(0, 1) of the shape, type and place of a tensor, the same on every device."""
    return torch.randn(like.shape, generator=source, dtype=torch.float32).to(like)
