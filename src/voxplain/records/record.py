"""What all records of a run have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A part of a file of a run; a key that is not known is an error."""

    model_config = ConfigDict(extra="forbid")
