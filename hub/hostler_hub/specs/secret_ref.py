"""References to secrets: of definitions, which `runtime.secrets` resolves, and of builds, which
`builds.secrets` does. Pure, so that specifications stay pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictStr,
    StringConstraints,
    model_validator,
)

from hostler_hub.specs.fields import STRICT, refuse

ENV_PREFIX = "HOSTLER_SECRET_"
SECRETS = 64

_ENV = re.compile(rf"{ENV_PREFIX}[A-Z0-9_]{{1,100}}")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]{0,127}$"
# Set by the agent for each command, or changed on its way to the program.
_RESERVED = frozenset({"PWD", "PYTHONPATH"})


class SecretRef(BaseModel):
    """A reference to a secret: exactly one of ``env`` and ``file``."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    env: Annotated[str, Field(pattern=f"^{_ENV.pattern}$")] | None = None
    file: Annotated[str, Field(pattern=f"^{_FILE.pattern}$")] | None = None

    @model_validator(mode="after")
    def _one(self) -> SecretRef:
        if (self.env is None) == (self.file is None):
            raise ValueError('a secret is either {"env": NAME} or {"file": NAME}')
        return self


class BuildSecret(BaseModel):
    """A reference to a secret for builds, and the form in which a command gets it: the value of a
    variable, or a file whose path the variable holds.
    """

    model_config = STRICT

    ref: Annotated[StrictStr, StringConstraints(pattern=f"^{_FILE.pattern}$")]
    as_: Annotated[Literal["env", "file"], Field(alias="as")] = "env"


def _not_reserved(name: str) -> str:
    if name.upper() in _RESERVED or name.upper().startswith("HOSTLER_"):
        raise refuse("env_name", f"{name} is a variable that the agent sets; choose another")
    return name


def _is_empty(secrets: Mapping[str, Any]) -> bool:
    return not secrets


VariableName = Annotated[
    StrictStr, StringConstraints(pattern=_VARIABLE), AfterValidator(_not_reserved)
]
# Left out where it is empty, so that a build without secrets is stored as it always was.
SecretRefs = Annotated[
    dict[VariableName, BuildSecret], Field(max_length=SECRETS, exclude_if=_is_empty)
]
