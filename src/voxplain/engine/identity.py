"""Declarations and images by value: when two are the same, and how a sidecar shows one."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor


def identity(value: object) -> Hashable:
    """A hashable stand-in that is equal for declarations that are equal by value."""
    if isinstance(value, (Tensor, np.ndarray)):
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        digest = hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=16).hexdigest()
        return (str(array.dtype), array.shape, digest)
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return (type(value), *((name, identity(getattr(value, name))) for name in fields))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [part.name for part in dataclasses.fields(value)]
        return (type(value), *((name, identity(getattr(value, name))) for name in names))
    if isinstance(value, Mapping):
        return tuple(sorted((str(key), identity(part)) for key, part in value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(identity(part) for part in value)
    return value if isinstance(value, Hashable) else repr(value)


def image_key(image: Tensor) -> str:
    """A key of the content of an image ``(C, *spatial)``: the same alone and in any batch.

    Axes of size one do not count, so that a volume of one slice gets the draws of the slice.
    """
    values = image.detach().to("cpu", torch.float32).contiguous().numpy()
    digest = hashlib.blake2b(np.ascontiguousarray(values).tobytes(), digest_size=16)
    digest.update(str([size for size in values.shape if size != 1]).encode())
    return digest.hexdigest()


def plain(value: object) -> Any:
    """A declaration as JSON: names and numbers, a tensor by its shape and mean."""
    if isinstance(value, (Tensor, np.ndarray)):
        values = value.double() if isinstance(value, Tensor) else value  # labels have no mean else
        return {"tensor": list(value.shape), "mean": float(values.mean())}
    if isinstance(value, BaseModel):
        # What may name a file is written as the model itself writes it: without its place.
        written = value.model_dump(include={*getattr(value, "files", ())})
        return plain({**dict(value), **written})
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {part.name: getattr(value, part.name) for part in dataclasses.fields(value)}
        return {"name": getattr(value, "name", type(value).__name__), **plain(fields)}
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return value
