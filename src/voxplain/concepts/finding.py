"""What records of directions and components have in common."""

from __future__ import annotations

from pydantic import ConfigDict

from voxplain.records.record import Record


class Finding(Record):
    """A record that does not change; numbers that are not defined are NaN, in JSON as well."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")
