"""The settings that a search may try: a recipe's `space`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from polyface.training.specs import Strict


class RangeSpec(Strict):
    """A key's values from low to high, both belonging to it: whole numbers where both are. log: drawn by their
    logarithm, as a learning rate is."""

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> RangeSpec:
        if self.low >= self.high or (self.log and self.low <= 0):
            raise PydanticCustomError("range", "low must be below high, and above 0 where log is true")
        return self

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def ends(self) -> Sequence[Any]:
        return self.low, self.high


class ChoicesSpec(Strict):
    """A key's values, one by one; null leaves the key out."""

    choices: list[Any] = Field(min_length=1)

    @property
    def ends(self) -> Sequence[Any]:
        return self.choices[0], self.choices[-1]


def _spec(given: Any) -> Any:
    """The values of a key, of the class that they are told in."""
    if not isinstance(given, Mapping):
        raise PydanticCustomError("space", "expected {low: …, high: …} or {choices: […]}")
    return (ChoicesSpec if "choices" in given else RangeSpec).model_validate(given)


Space = dict[str, Annotated[RangeSpec | ChoicesSpec, BeforeValidator(_spec)]]
"""Dotted keys of a recipe (`stage.key.key`), and the values that each may have."""
