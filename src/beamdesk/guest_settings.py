"""The settings section ``[guest]``: how desktops in a cloud reach Beamdesk, and where their data come from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from beamdesk.domain.errors import ConfigurationError
from beamdesk.domain.storage import AREAS, StorageArea
from beamdesk.guest import mount_units
from beamdesk.guest.errors import SetupError


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StorageSettings(_Section):
    """Where an area of the experiments lies. ``secret_file``: holds the key of a CephFS client."""

    area: Literal["raw", "processed"]
    kind: Literal["nfs", "nfs4", "oceanstor", "lustre", "ceph"]
    source: str = Field(min_length=1, max_length=500)
    options: str = Field(default="", max_length=300)
    secret_file: Path | None = None

    @model_validator(mode="after")
    def _can_be_mounted(self) -> StorageSettings:
        if set(re.findall(r"\$\{?(\w*)", self.source)) - {"folder"}:
            raise ValueError("source may only contain ${folder}")
        try:
            mount_units.options(StorageArea(self.area, self.kind, self.source, self.options).mount("experiment-1"))
        except SetupError as error:
            raise ValueError(str(error)) from error
        return self

    def storage_area(self) -> StorageArea:
        """Return the domain object.

        Raises:
            ConfigurationError: the secret cannot be read.
        """
        secret = ""
        if self.secret_file is not None:
            try:
                secret = self.secret_file.read_text(encoding="ascii").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(f"Cannot read the storage secret {self.secret_file}.") from error
        return StorageArea(self.area, self.kind, self.source, self.options, secret)


class GuestSettings(_Section):
    """The guest API's address for desktops in a cloud (none: only the Unix socket of this machine), and the site's storage.

    ``boot_timeout_s``: until a started desktop must be ready. ``silent_after_s``: until an agent that says nothing counts as dead.
    ``cut_off_after_s``: the same where the cloud calls its host silent too.
    """

    host: str | None = None
    port: int = Field(default=8443, ge=1, le=65535)
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    boot_timeout_s: float | None = Field(default=None, ge=10, le=7200)
    silent_after_s: float | None = Field(default=None, ge=6, le=3600)
    cut_off_after_s: float = Field(default=180, ge=6, le=86400)
    storage: tuple[StorageSettings, ...] = Field(default=(), max_length=len(AREAS))

    @model_validator(mode="after")
    def _consistent(self) -> GuestSettings:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together")
        if self.host is not None and self.tls_certificate is None:
            raise ValueError("tls_certificate and tls_key are needed: desktops enrol over HTTPS only")
        if len({area.area for area in self.storage}) != len(self.storage):
            raise ValueError("an area is described twice")
        return self
