"""The base of every group of settings."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticKnownError

Bytes = Annotated[int, Field(ge=1024, le=2**31 - 2**22)]
"""A size in bytes. The bound leaves some room below the 2 GiB that a gRPC message can have."""


class StrictNumbers(BaseModel):
    """A model that refuses booleans for numbers. Python would treat them as 0 and 1."""

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and info.field_name is not None:
            annotation = cls.model_fields[info.field_name].annotation
            kinds = {annotation, *get_args(annotation)}
            if bool not in kinds and kinds & {int, float}:
                raise PydanticKnownError("int_type" if int in kinds else "float_type")
        return value


class Model(StrictNumbers):
    """A group of settings: frozen, without unknown fields, and never printed in an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
