"""A reference to a secret in a definition; `runtime.secrets` resolves it. Pure, so that definitions
stay pure.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

ENV_PREFIX = "HOSTLER_SECRET_"

_ENV = re.compile(rf"{ENV_PREFIX}[A-Z0-9_]{{1,100}}")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


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
