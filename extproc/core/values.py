"""Values: data without behaviour that the type checker keeps frozen, and nothing at run time.

A dataclass that Python freezes sets each field through `object.__setattr__`: making one takes five times the
instructions, and an exchange makes some forty.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def value(cls: type[T]) -> type[T]:
    """Make a dataclass with slots, comparison and hash of `cls`, which nobody may change once it is made."""
    return dataclasses.dataclass(slots=True, unsafe_hash=True)(cls)


def replace(instance: T, **changes: Any) -> T:
    """Return a value like `instance` but for `changes`; raises TypeError for what is no field."""
    return dataclasses.replace(instance, **changes)  # type: ignore[type-var]
