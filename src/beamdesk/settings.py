"""Settings: read once at start-up from one TOML file and the environment, then passed on explicitly.

Order: environment (`BEAMDESK_PORT=8090`, nested with two underscores: `BEAMDESK_LEASE__INITIAL_HOURS=12`), then the file named by
`BEAMDESK_CONFIG` (default `/etc/beamdesk/beamdesk.toml`), then the embedded defaults, which run a whole one-machine deployment.
"""

from __future__ import annotations

import os
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from beamdesk.domain.catalog import Flavor, Resources, sized
from beamdesk.domain.errors import ConfigurationError
from beamdesk.domain.ids import FlavorId
from beamdesk.domain.lease import LeaseRules
from beamdesk.domain.policy import Quota
from beamdesk.domain.srm import SrmRules
from beamdesk.domain.text import Text
from beamdesk.guest_settings import GuestSettings
from beamdesk.openstack_settings import OpenStackSettings
from beamdesk.scheduling.errors import SchedulingError
from beamdesk.scheduling.vocabulary import parse

DEFAULT_CONFIG = Path("/etc/beamdesk/beamdesk.toml")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FlavorSettings(_Section):
    """A size on offer. Memory in MiB, disk in GiB. ``specs``: ``beamdesk:WORD`` as in a flavor of Nova."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,30}$")
    title_en: str
    title_zh: str
    vcpus: int = Field(ge=1, le=512)
    memory_mib: int = Field(ge=512)
    disk_gib: int = Field(ge=1)
    gpus: int = Field(ge=0, default=0)
    specs: dict[str, str] = {}

    @model_validator(mode="after")
    def _words(self) -> FlavorSettings:
        try:
            sized(parse(self.specs), self._amount())
        except SchedulingError as error:
            raise ValueError(f"size {self.id}: {error.message}") from error
        return self

    def _amount(self) -> Resources:
        return Resources(self.vcpus, self.memory_mib, self.disk_gib, self.gpus)

    def flavor(self) -> Flavor:
        """Return the domain object."""
        return Flavor(FlavorId(self.id), Text(self.title_en, self.title_zh), self._amount(), parse(self.specs))


_TEN_YEARS_H = 10 * 365 * 24


class LeaseSettings(_Section):
    """How long a desktop may run, in hours; warnings in minutes."""

    initial_hours: float = Field(gt=0, le=_TEN_YEARS_H, default=8)
    extension_hours: float = Field(gt=0, le=_TEN_YEARS_H, default=4)
    maximum_hours: float = Field(gt=0, le=_TEN_YEARS_H, default=168)
    warn_minutes: float = Field(ge=0, le=60 * _TEN_YEARS_H, default=30)
    idle_hours: float = Field(gt=0, le=_TEN_YEARS_H, default=2)
    idle_warn_minutes: float = Field(ge=0, le=60 * _TEN_YEARS_H, default=15)

    def rules(self) -> LeaseRules:
        """Return the domain object."""
        return LeaseRules(
            initial=timedelta(hours=self.initial_hours),
            extension=timedelta(hours=self.extension_hours),
            maximum_ahead=timedelta(hours=self.maximum_hours),
            warn_before=timedelta(minutes=self.warn_minutes),
            idle_after=timedelta(hours=self.idle_hours),
            idle_warn_before=timedelta(minutes=self.idle_warn_minutes),
        )


class QuotaSettings(_Section):
    """A limit per person or experiment: desktops in any state, resources of the running ones."""

    desktops: int = Field(ge=0)
    vcpus: int = Field(ge=0)
    memory_mib: int = Field(ge=0)
    disk_gib: int = Field(ge=0)
    gpus: int = Field(ge=0)

    def quota(self) -> Quota:
        """Return the domain object."""
        return Quota(self.desktops, Resources(self.vcpus, self.memory_mib, self.disk_gib, self.gpus))


class CapacitySettings(_Section):
    """What desktops may use of this machine; None = all that it has. CPUs are shared `cpu_allocation_ratio` times, as in Nova.

    ``aggregates``: whom it is for, such as beamlines; ``dedicated``: for nobody else.
    """

    cpu_allocation_ratio: float = Field(gt=0, le=16, default=4.0)
    memory_mib: int | None = Field(ge=512, default=None)
    disk_gib: int | None = Field(ge=1, default=None)
    aggregates: tuple[str, ...] = ()
    dedicated: bool = False


class SrmSettings(_Section):
    """Monitoring of hosts and their GPUs: when a silent host's cards are no longer lent, how cards are cleaned, what is kept."""

    stale_after_s: float = Field(ge=1, le=3600, default=60)
    clock_skew_s: float = Field(ge=10, le=86400, default=300)
    clean_timeout_minutes: float = Field(gt=0, le=1440, default=20)
    clean_attempts: int = Field(ge=1, le=10, default=3)
    history_days: float = Field(gt=0, le=3660, default=14)
    placement_cloud: str = ""
    placement_region: str = ""

    def rules(self) -> SrmRules:
        """Return the domain object."""
        return SrmRules(
            stale_after=timedelta(seconds=self.stale_after_s),
            skew_refused=timedelta(seconds=self.clock_skew_s),
            clean_timeout=timedelta(minutes=self.clean_timeout_minutes),
            clean_attempts=self.clean_attempts,
            history=timedelta(days=self.history_days),
        )


class SchedulingSettings(_Section):
    """Which hosts and cards desktops get (docs/explanation/scheduling.md)."""

    policy: Literal["beamdesk", "heps", "nova-default", "fgd", "best-fit", "random"] = "beamdesk"


def _flavors() -> tuple[FlavorSettings, ...]:
    return (
        FlavorSettings(id="small", title_en="Small", title_zh="小型", vcpus=1, memory_mib=2048, disk_gib=10),
        FlavorSettings(id="medium", title_en="Medium", title_zh="中型", vcpus=2, memory_mib=4096, disk_gib=20),
        FlavorSettings(id="large", title_en="Large", title_zh="大型", vcpus=4, memory_mib=8192, disk_gib=40),
        FlavorSettings(id="gpu.small", title_en="GPU small", title_zh="GPU 小型", vcpus=4, memory_mib=16384, disk_gib=40, gpus=1),
    )


class Settings(BaseSettings):
    """All settings of all processes."""

    model_config = SettingsConfigDict(env_prefix="BEAMDESK_", env_nested_delimiter="__", extra="forbid", frozen=True)

    site_name: str = Field(default="Beamdesk", min_length=1, max_length=40)
    contact: str = Field(default="", max_length=200)
    state_dir: Path = Path("/var/lib/beamdesk")
    cache_dir: Path = Path("/var/cache/beamdesk")
    account: str = Field(default="beamdesk", pattern=r"^[a-z_][a-z0-9_-]{0,30}$")
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=1, le=65535)
    portal_origin: str | None = Field(default=None, pattern=r"^https?://[a-z0-9.-]+(:[0-9]+)?$")
    gateway_host: str = "127.0.0.1"
    gateway_port: int = Field(default=8081, ge=1, le=65535)
    desktop_domain: str = Field(default="localhost", pattern=r"^[a-z0-9.-]+$")
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    database_url: str | None = Field(default=None, pattern=r"^(sqlite\+aiosqlite|postgresql\+psycopg)://")
    cloud: Literal["local", "openstack", "fake"] = "local"
    demo: bool = True
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"
    keep_events_days: int = Field(default=400, ge=1, le=36500)
    lease: LeaseSettings = LeaseSettings()
    person_quota: QuotaSettings = QuotaSettings(desktops=4, vcpus=8, memory_mib=16384, disk_gib=200, gpus=1)
    experiment_quota: QuotaSettings = QuotaSettings(desktops=12, vcpus=32, memory_mib=65536, disk_gib=800, gpus=4)
    capacity: CapacitySettings = CapacitySettings()
    openstack: OpenStackSettings = OpenStackSettings()
    guest: GuestSettings = GuestSettings()
    srm: SrmSettings = SrmSettings()
    scheduling: SchedulingSettings = SchedulingSettings()
    flavors: tuple[FlavorSettings, ...] = Field(default_factory=_flavors, min_length=1)

    @field_validator("state_dir", "cache_dir")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        if not path.is_absolute():
            raise ValueError("must be an absolute path")
        return path

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together")
        if self.port == self.gateway_port and self.host == self.gateway_host:
            raise ValueError("port and gateway_port must differ")
        if len({flavor.id for flavor in self.flavors}) != len(self.flavors):
            raise ValueError("two flavors have the same id")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file (which arrives as init arguments)."""
        return env_settings, init_settings

    @property
    def scheme(self) -> str:
        """Return http on one machine, https where a certificate is set."""
        return "https" if self.tls_certificate else "http"

    @property
    def origin(self) -> str:
        """Return the portal's origin."""
        return self.portal_origin or f"{self.scheme}://localhost:{self.port}"

    @property
    def store_url(self) -> str:
        """Return the database's URL."""
        return self.database_url or f"sqlite+aiosqlite:///{self.app_dir}/store.db"

    @property
    def app_dir(self) -> Path:
        """Return the only directory that belongs to the service account: database, deployment id, demo accounts."""
        return self.state_dir / "app"

    @property
    def run_dir(self) -> Path:
        """Return the directory of sockets and pid files."""
        return self.state_dir / "run"

    @property
    def helper_socket(self) -> Path:
        """Return the privileged helper's socket."""
        return self.run_dir / "helper" / "helper.sock"

    @property
    def deployment_id_path(self) -> Path:
        """Return the file with the UUID that marks all that this deployment makes in a cloud."""
        return self.app_dir / "deployment-id"

    def read_deployment_id(self) -> str:
        """Return this deployment's UUID.

        Raises:
            ConfigurationError: nothing was deployed here yet.
        """
        try:
            return self.deployment_id_path.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigurationError(f"{self.state_dir} holds no deployment. Start it with: make up") from error

    @property
    def data_dir(self) -> Path:
        """Return the root of the experiments' folders."""
        return self.state_dir / "data"

    @property
    def log_dir(self) -> Path:
        """Return the directory of log files."""
        return self.state_dir / "log"


def load_settings(path: Path | None = None) -> Settings:
    """Read the settings.

    Raises:
        ConfigurationError: the file cannot be read or a value is wrong; the text names file and key.
    """
    named = path or (Path(os.environ["BEAMDESK_CONFIG"]) if "BEAMDESK_CONFIG" in os.environ else None)
    source = named or DEFAULT_CONFIG
    values: dict[str, object] = {}
    if named is not None or source.exists():
        values = _read(source)
    try:
        return Settings(**values)  # type: ignore[arg-type]  # pydantic validates what the file says
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "settings"
        origin = f"{source} or the environment" if values else "the environment"
        raise ConfigurationError(f"Setting {key} in {origin} is wrong: {first['msg']}. Correct it and start again.") from error


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"Cannot read the configuration {path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The configuration {path} is not valid TOML: {error}.") from error
