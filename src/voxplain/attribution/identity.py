"""When two declarations are the same: equality by value, tensors included."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Hashable, Mapping

import numpy as np
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
