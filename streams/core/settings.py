"""Settings, from the environment (or an `.env` file). What a command needs and does not find is a Misconfigured error
that names the variable and says how to set it."""

from functools import cache
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from schemas.errors import Misconfigured

Value = TypeVar("Value")


class Settings(BaseSettings):
    """One field per variable. The four addresses have the names that other software uses too; the rest starts with
    `AUGENBLICK_`. Tracing follows OpenTelemetry's own variables (OTEL_TRACES_EXPORTER, OTEL_EXPORTER_*)."""

    model_config = SettingsConfigDict(env_prefix="AUGENBLICK_", env_file=".env", extra="ignore", frozen=True)

    kafka_bootstrap_servers: str | None = Field(
        default=None, validation_alias="KAFKA_BOOTSTRAP_SERVERS", description="host:port of Apache Kafka, several by commas"
    )
    kafka_fetch_wait_ms: int = Field(
        default=500, ge=1, description="how long a broker may wait for more before it answers a fetch"
    )
    database_url: SecretStr | None = Field(
        default=None, validation_alias="DATABASE_URL", description="postgresql://user:password@host:port/database"
    )
    triton_url: str | None = Field(default=None, validation_alias="TRITON_URL", description="host:port of Triton's gRPC service")
    secret_key: SecretStr | None = Field(
        default=None,
        description="32 bytes in base64 that seal secrets in the database: `openssl rand -base64 32`; former keys behind it",
    )
    secret_key_file: Path | None = Field(default=None, description="a file with the same, one key a line, the newest first")
    public_url: str | None = Field(
        default=None, description="where the gateway is reached from outside, for providers' notifications: https://…"
    )
    denied_parties_file: Path | None = Field(
        default=None, description="whom nobody may pay: a name or an id a line; looked at before every payment"
    )
    janitor_schedule_s: Annotated[tuple[float, ...], NoDecode] | None = Field(
        default=None,
        description="seconds after which a provider is asked about an unknown payment, again and again, by commas: 5,30,300,3600",
    )
    provider_request_lives_s: float = Field(
        default=120,
        ge=5,
        description="how long a request may be on its way to a provider: until then a refusal of its repetition does not count",
    )
    provider_calls: int = Field(default=32, ge=1, le=256, description="calls to one payment provider at once, in one worker")
    trace_page: str | None = Field(
        default=None, description="where a trace can be seen, with {trace_id}: http://host:9411/zipkin/traces/{trace_id}"
    )

    gateway_host: str = Field(default="127.0.0.1", description="where the gateway listens")
    gateway_port: int = Field(default=8400, description="where the gateway listens")
    gateway_audience: str = Field(default="augenblick-gateway", description="the audience device tokens must name")
    console_host: str = Field(default="127.0.0.1", description="where the operators' console listens")
    console_port: int = Field(default=8401, description="where the operators' console listens")

    glance_budget_ms: int = Field(default=1500, ge=50, le=60_000, description="from capture to the latest useful answer")
    window: int = Field(default=16, ge=1, le=256, description="events in flight at once in one worker")
    group_window: int = Field(
        default=64,
        ge=1,
        le=256,
        description="the same for intents, payments and webhooks, which commit together what is ready at once",
    )
    frames_at_once: int = Field(
        default=16,
        ge=1,
        le=64,
        description="frames at the models at once, from one worker; fewer make answers younger and more complete, and fewer",
    )
    worker_instance: str = Field(default="0", description="distinguishes workers of one role; keep it over restarts")
    allow_private_endpoints: bool = Field(
        default=False,
        description="let webhooks go to private and local addresses, and by http, not to link-local ones: for development only",
    )
    webhook_schedule_s: Annotated[tuple[float, ...], NoDecode] | None = Field(
        default=None, description="seconds to wait after each failed webhook attempt, by commas, instead of the usual: 5,300,1800"
    )
    webhook_timeout_s: float = Field(default=15.0, gt=0, le=60, description="how long a merchant's endpoint may take to answer")
    shops: Annotated[tuple[str, ...], NoDecode] = Field(default=("catalogue",), description="the shops that are asked, by commas")
    translator: str = Field(default="glossary", description="who translates products' titles")
    catalogue_directory: Path | None = Field(
        default=None, description="where catalogues' snapshots lie, for Triton to read them: a directory that both see"
    )
    hop_history_days: int = Field(default=7, ge=1, description="how long the console remembers journeys' hops")

    @field_validator("webhook_schedule_s", "janitor_schedule_s", "shops", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def variable(field: str) -> str:
    """The environment variable of a field."""
    alias = Settings.model_fields[field].validation_alias
    return alias if isinstance(alias, str) else f"AUGENBLICK_{field.upper()}"


def load() -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(
            f"{variable(str(item['loc'][0])) if str(item['loc'][0]) in Settings.model_fields else item['loc'][0]}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)
        )
        raise Misconfigured(f"A setting cannot be used: {wrong}.") from error


def require(value: Value | None, field: str) -> Value:
    """`value`, or a Misconfigured error that says which variable to set to what."""
    if value is None:
        description = Settings.model_fields[field].description
        raise Misconfigured(
            f"{variable(field)} is not set: {description}. "
            "Set it in the environment or in .env, or let `augenblick up` start an embedded one (AUGENBLICK_ROOT names its "
            "directory, where that is not the usual one)."
        )
    return value


@cache
def version() -> str:
    from importlib.metadata import version as installed

    return installed("augenblick")
