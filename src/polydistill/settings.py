"""Base of everything a recipe can set: frozen, typed, and deaf to no typo."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from polydistill.errors import UserError
from polydistill.plugins import nearest


class Settings(BaseModel):
    """Frozen settings that refuse unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str) -> Self:
        """Validate ``values`` read from ``where`` (a file or the command line).

        Raises:
            UserError: the first problem, with the key, and for an unknown key the nearest known one.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise UserError(f"{where}: {_first_problem(cls, error)}") from None


def _first_problem(model: type[BaseModel], error: ValidationError) -> str:
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "missing":
        return f"{key!r} is missing"
    if problem["type"] != "extra_forbidden":
        text = problem["msg"].removeprefix("Value error, ")
        found = problem["input"]
        return f"{key}: {text} (found {found!r:.80})" if key else text
    owner: Any = model
    for part in problem["loc"][:-1]:
        field = owner.model_fields.get(part)
        named = (field.annotation, *get_args(field.annotation)) if field is not None else ()  # ``Group | None`` too
        owner = next((a for a in named if hasattr(a, "model_fields")), owner)
    return f"unknown key {key!r}; {nearest(str(problem['loc'][-1]), owner.model_fields)}"
