"""The only reader of the environment: every setting, its variable, its default, its check."""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import NoDecode, SettingsConfigDict

from shared.machinery.cache_settings import (
    CacheConfigurationError,
    CacheSettings,
    aliases_in,
    split_list,
)
from shared.vocabulary.cache_levels import settle
from shared.vocabulary.catalog import MODELS
from shared.vocabulary.plan import Attention, Precision
from shared.vocabulary.planning import degrees_of
from shared.vocabulary.spec import CacheWish

_PREFIX: Final = "WANFARM_"
_UNPREFIXED: Final = ("DATABASE_URL", "REDIS_URL")
_PASSWORD: Final = re.compile(r"(?<=://)[^/@\s]+(?=@)")


class ConfigurationError(Exception):
    """A setting is missing or wrong; the text names its variable, the value and the rule."""


def _psycopg(url: str) -> str:
    scheme, _, rest = url.partition("://")
    if scheme not in {"postgres", "postgresql", "postgresql+psycopg"}:
        raise ValueError("must be a postgresql:// URL")
    return f"postgresql+psycopg://{rest}"


def _redis(url: str) -> str:
    if url.partition("://")[0] not in {"redis", "rediss", "unix"}:
        raise ValueError("must be a redis:// URL")
    return url


def _origin(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/"):
        raise ValueError("must be http:// or https://, a host and maybe a port, and no path")
    return url


def _known_model(name: str) -> str:
    if name not in MODELS:
        raise ValueError(f"must be one of {', '.join(MODELS)}")
    return name


ModelId = Annotated[str, AfterValidator(_known_model)]
Switch = Literal["auto", "on", "off"]
Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[int, Field(ge=0, le=1_000_000)]


class Settings(CacheSettings):
    """All settings of all processes. Each comes from `WANFARM_<NAME>` or `WANFARM_<NAME>_FILE`."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, env_ignore_empty=True)

    # services
    database_url: Annotated[str, AfterValidator(_psycopg)] = Field(
        default="postgresql://localhost/wanfarm",
        validation_alias="DATABASE_URL",
        description="Postgres, the truth about every job.",
        validate_default=True,
    )
    redis_url: Annotated[str, AfterValidator(_redis)] = Field(
        default="redis://localhost:6379/0",
        validation_alias="REDIS_URL",
        description="Redis, the doorbell; may be emptied at any time.",
    )
    key_prefix: str = Field(default="wanfarm:", description="Before every Redis key and channel.")
    data_dir: Path = Field(
        default=Path(".wanfarm"), description="Results, images and the state of `wanfarm up`."
    )
    min_free_mb: Annotated[int, Field(ge=0)] = Field(
        default=1024,
        description="Free MiB in it below which no video is taken, so that those taken fit.",
    )
    s3_bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")] | None = Field(
        default=None, description="Bucket for results and images, in place of `WANFARM_DATA_DIR`."
    )
    s3_endpoint: Annotated[str, AfterValidator(_origin)] | None = Field(
        default=None, description="Where the bucket is, for clients too; Amazon's if not set."
    )
    s3_region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")] = Field(
        default="us-east-1", description="Region of the bucket."
    )
    s3_prefix: Annotated[str, Field(pattern=r"^([A-Za-z0-9_.-]+/)+$")] = Field(
        default="wanfarm/", description="Before every key; all below it is the farm's."
    )
    models_dir: Path = Field(
        default=Path(".wanfarm/models"), description="Checkpoints, one directory each."
    )

    # api
    host: str = Field(
        default="127.0.0.1", description="Address that the API, and each metrics port, binds to."
    )
    port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        default=8080, description="Port the API binds to."
    )
    api_processes: Count = Field(default=2, description="gunicorn workers.")
    api_threads: Annotated[int, Field(ge=4)] = Field(default=32, description="Threads of each.")
    public_url: str | None = Field(
        default=None, description="How clients reach the farm; for links in bodies."
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_list)] = Field(
        default=("localhost", "127.0.0.1", "[::1]"),
        description="Host headers that are answered, comma-separated.",
    )
    auth: Literal["keys", "none"] = Field(
        default="keys", description="`none` starts only on a loopback address."
    )
    secret_key: SecretStr = Field(
        default=SecretStr(""), description="Signs cookies and links; made by `wanfarm up`."
    )
    default_text_model: ModelId = Field(
        default="wan2.2-t2v-a14b", description="Model of a request without model and image."
    )
    default_image_model: ModelId = Field(
        default="wan2.2-i2v-a14b", description="Model of a request with an image and no model."
    )
    max_body_bytes: Count = Field(default=24 * 2**20, description="Largest request body.")
    max_image_bytes: Count = Field(default=16 * 2**20, description="Largest input image.")
    max_lora_bytes: Count = Field(default=2 * 2**30, description="Largest LoRA upload.")
    file_days: Annotated[int, Field(ge=1, le=3650)] = Field(
        default=30, description="Days that an uploaded file is kept."
    )
    max_queued_per_key: Count = Field(default=100, description="Waiting videos of one key.")
    submit_per_min: Rate = Field(
        default=300, description="Submits of one key in a minute, per API process; 0: no limit."
    )
    uploads_per_min: Rate = Field(
        default=30, description="Uploads of one key in a minute, per API process; 0: no limit."
    )
    requests_per_s: Rate = Field(
        default=200, description="Other requests of one key, per API process; 0: no limit."
    )
    max_queued: Count = Field(default=1000, description="Waiting videos in all.")
    max_streams: Count = Field(default=12, description="Held-open answers per API process.")
    max_streams_per_key: Count = Field(default=8, description="Held-open answers per key.")

    # webhooks
    webhook_allow_private: bool = Field(
        default=False,
        description="For a lab: send webhooks over http and to private addresses too.",
    )

    # the audit log
    audit_days: Count = Field(
        default=90, description="Days that it is kept known who did what to the farm."
    )

    # the job protocol
    lease_s: Seconds = Field(default=120, description="How long a silent attempt keeps its job.")
    heartbeat_s: Seconds = Field(default=10, description="How often a parent renews it.")
    tick_s: Seconds = Field(
        default=5, description="How often lost rings and leases are looked for."
    )
    idle_look_s: Seconds = Field(default=30, description="How often an idle parent looks unasked.")
    store_wait_s: Annotated[float, Field(ge=0)] = Field(
        default=600, description="How long a finished video waits for a store that refuses it."
    )
    run_limit_s: Seconds = Field(default=14_400, description="Longest attempt.")
    drain_s: Seconds = Field(default=600, description="Grace of a running job at SIGTERM.")

    # one GPU group
    group: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,31}$")] = Field(
        default="g0", description="Name of this worker's group."
    )
    ranks: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1, description="Processes of the group, one per GPU."
    )
    device: Literal["cuda", "cpu"] = Field(default="cuda", description="What ranks compute on.")
    models: Annotated[tuple[ModelId, ...], NoDecode, BeforeValidator(split_list)] = Field(
        default=("wan2.2-t2v-a14b",), description="Models this group takes jobs of; first is warm."
    )
    engine: str = Field(
        default="worker.engine.engine:Engine", description="The class that ranks run."
    )
    rank_start_s: Seconds = Field(default=120, description="Until every rank has said hello.")
    load_s: Seconds = Field(default=900, description="Until a model is loaded.")
    hang_s: Seconds = Field(default=900, description="Longest silence of a busy rank group.")

    # the engine of the group
    precision: Precision | Literal["auto"] = Field(
        default="auto",
        description="Class of the arithmetic; `auto` is `bf16` on CUDA, `reference` on the CPU.",
    )
    attention: Attention = Field(
        default="auto", description="Attention kernels; `auto` takes the fastest that works here."
    )
    parallel: Annotated[str, Field(pattern=r"^(auto|[1-9]\d?x[1-9]\d?x[1-9]\d?)$")] = Field(
        default="auto", description="Ranks as cfg x ulysses x ring, such as `2x2x1`."
    )
    offload_text_encoder: Switch = Field(default="auto", description="Text encoder to the CPU.")
    offload_dit: Switch = Field(default="auto", description="The idle expert to the CPU.")
    offload_vae: Switch = Field(default="auto", description="VAE to the CPU while denoising.")
    offload_image_encoder: Switch = Field(
        default="auto", description="Accepted for other tools' sake; Wan2.2 has no image encoder."
    )
    offload_layerwise: Switch = Field(default="auto", description="Stream block weights in.")
    pin_cpu_memory: bool = Field(default=True, description="Pin what waits in CPU memory.")
    shard_weights: bool = Field(default=False, description="Each rank keeps a share of each block.")
    shard_text: bool = Field(default=False, description="Split the text encoder over the ranks.")
    vae_path: Path | None = Field(
        default=None, description="Directory of a VAE that replaces the checkpoint's."
    )
    vae_dtype: Literal["bf16", "fp32"] = Field(default="bf16", description="VAE weights on CUDA.")
    prompt_cache_mb: Annotated[int, Field(ge=0)] = Field(
        default=512, description="CPU memory for embeddings of prompts seen before."
    )
    checkpoint_seconds: Seconds = Field(
        default=30, description="Work between two saves of the latents."
    )
    lora_dir: Path = Field(
        default=Path(".wanfarm/loras"), description="Adapters, one directory each."
    )

    # the command line
    url: str | None = Field(default=None, description="Farm that the command line talks to.")
    api_key: SecretStr | None = Field(default=None, description="Key that it shows.")
    embedded_user: str = Field(
        default="nobody", description="User of the embedded Postgres when started as root."
    )

    # metrics and logs
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        default=0, description="Port where a worker or upkeep tells its metrics; 0: it does not."
    )
    metrics_auth: bool = Field(
        default=False, description="The API's `/metrics` asks for a key that may read."
    )
    traces_url: Annotated[str, Field(pattern="^https?://.")] | None = Field(
        default=None,
        description="Where spans go, by OTLP over HTTP: `http://collector:4318/v1/traces`.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least level that is written."
    )
    log_prompts: bool = Field(
        default=False, description="Log prompts themselves, not their length and hash."
    )


def load_settings(**overrides: object) -> Settings:
    """Read the environment once.

    Args:
        overrides: values by field name that beat the environment, such as command-line options.

    Raises:
        ConfigurationError: naming the variable, when a value breaks its rule or a name is unknown.
    """
    _refuse_unknown(os.environ)
    try:
        aliases = aliases_in(os.environ)
    except CacheConfigurationError as err:
        raise ConfigurationError(str(err)) from err
    named = {field: os.environ[alias] for field, alias in aliases.items()}
    try:
        settings = Settings.model_validate(_from_files(os.environ) | named | overrides)
    except ValidationError as err:
        first = err.errors()[0]
        field = str(first["loc"][0])
        rule = first["msg"].removeprefix("Value error, ")
        value = _PASSWORD.sub("***", repr(first["input"]))
        variable = aliases.get(field) or variable_of(field)
        raise ConfigurationError(f"{variable} is {value}. {rule[0].upper()}{rule[1:]}.") from err
    _check_together(settings, aliases)
    return settings


def _check_together(settings: Settings, aliases: Mapping[str, str]) -> None:
    """Check what one value alone cannot break.

    Raises:
        ConfigurationError: naming the variables.
    """
    if settings.heartbeat_s * 3 > settings.lease_s:
        raise ConfigurationError(
            f"WANFARM_HEARTBEAT_S is {settings.heartbeat_s:g}. It must be at most a third of "
            f"WANFARM_LEASE_S ({settings.lease_s:g}), so that one lost renewal loses no job."
        )
    if (settings.cache_scm_compute_bins is None) != (settings.cache_scm_cache_bins is None):
        raise ConfigurationError(
            "WANFARM_CACHE_SCM_COMPUTE_BINS and WANFARM_CACHE_SCM_CACHE_BINS go together. Set both."
        )
    if settings.s3_bucket is None and settings.s3_endpoint is not None:
        raise ConfigurationError(
            "WANFARM_S3_ENDPOINT is set and WANFARM_S3_BUCKET is not. Set both, or neither."
        )
    degrees = degrees_of(settings.parallel)
    for model in (MODELS[name] for name in settings.models):
        if degrees and (fault := degrees.fault(model, settings.ranks)):
            raise ConfigurationError(f"WANFARM_PARALLEL is {settings.parallel!r}: {fault}")
        settled = settle(CacheWish(enabled=True), settings.cache, model)
        for fault in settled.faults(model) if settled else ():
            text = fault.message
            for field, alias in aliases.items():
                text = text.replace(variable_of(field), alias)
            raise ConfigurationError(text)


def variable_of(field: str) -> str:
    """Name the environment variable of a field."""
    return field.upper() if field.upper() in _UNPREFIXED else _PREFIX + field.upper()


def child_environment(**changes: str) -> dict[str, str]:
    """Give this process's environment with changes: for programs that we start."""
    return dict(os.environ) | changes


def _from_files(environment: Mapping[str, str]) -> dict[str, object]:
    """Read settings given as `<VARIABLE>_FILE`: secrets mounted as files."""
    values: dict[str, object] = {}
    for field in Settings.model_fields:
        variable = variable_of(field)
        path = environment.get(f"{variable}_FILE")
        if not path:
            continue
        if environment.get(variable):
            raise ConfigurationError(f"{variable} and {variable}_FILE are both set. Keep one.")
        try:
            key = variable if variable in _UNPREFIXED else field
            values[key] = Path(path).read_text().strip()
        except OSError as err:
            raise ConfigurationError(f"{variable}_FILE cannot be read: {err.strerror}.") from err
    return values


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    known = {variable_of(field) for field in Settings.model_fields}
    for name in environment:
        if name.startswith(_PREFIX) and name.removesuffix("_FILE") not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ConfigurationError(f"{name} is not a setting of wanfarm.{hint}")
