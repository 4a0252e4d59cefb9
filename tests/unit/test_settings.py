"""Settings: one reader, strict; a wrong value stops the start and names its variable."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from shared.machinery.cache_settings import CacheSettings
from shared.machinery.settings import (
    ConfigurationError,
    Settings,
    child_environment,
    load_settings,
    variable_of,
)

ROOT = Path(__file__).parents[2]
SHOW = """
import json
from shared.machinery.settings import ConfigurationError, load_settings
try:
    print(json.dumps({"settings": load_settings().model_dump(mode="json")}))
except ConfigurationError as err:
    print(json.dumps({"error": str(err)}))
"""


def read(**environment: str) -> dict:
    """What a process with this environment makes of it."""
    ours = ("WANFARM_", "DATABASE_URL", "REDIS_URL")
    clean = {n: v for n, v in child_environment().items() if not n.startswith(ours)}
    ran = subprocess.run(
        [sys.executable, "-c", SHOW],
        env=clean | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(ran.stdout)


def test_an_empty_environment_is_enough():
    settings = read()["settings"]

    assert settings["database_url"] == "postgresql+psycopg://localhost/wanfarm"
    assert (settings["port"], settings["lease_s"]) == (8080, 120)


def test_every_kind_of_value_is_read_from_its_variable():
    settings = read(
        DATABASE_URL="postgres://u:p@db/farm",
        WANFARM_PORT="80",
        WANFARM_MODELS="wan2.2-ti2v-5b, wan2.2-t2v-a14b",
        WANFARM_ALLOWED_HOSTS="a.example,b.example",
        WANFARM_LEASE_S="67.5",
        WANFARM_GROUP="",
    )["settings"]

    assert settings["database_url"] == "postgresql+psycopg://u:p@db/farm"
    assert settings["models"] == ["wan2.2-ti2v-5b", "wan2.2-t2v-a14b"]
    assert settings["allowed_hosts"] == ["a.example", "b.example"]
    assert (settings["port"], settings["lease_s"], settings["group"]) == (80, 67.5, "g0")


WRONG = {
    "database_url": "mysql://db/farm",
    "redis_url": "localhost:6379",
    "min_free_mb": -1,
    "s3_bucket": "My_Bucket",
    "s3_endpoint": "minio:9000",
    "s3_region": "Home Town",
    "s3_prefix": "no-slash",
    "port": 70_000,
    "api_processes": 0,
    "api_threads": 1,
    "auth": "maybe",
    "default_text_model": "wan3",
    "default_image_model": "wan3",
    "max_body_bytes": 0,
    "max_image_bytes": 0,
    "max_lora_bytes": 0,
    "file_days": 0,
    "max_queued_per_key": 0,
    "submit_per_min": -1,
    "uploads_per_min": -1,
    "requests_per_s": -1,
    "max_queued": -1,
    "max_streams": 0,
    "max_streams_per_key": 0,
    "audit_days": 0,
    "lease_s": 0,
    "heartbeat_s": -1,
    "tick_s": 0,
    "idle_look_s": 0,
    "store_wait_s": -1,
    "run_limit_s": 0,
    "drain_s": 0,
    "group": "My Group",
    "ranks": 0,
    "device": "tpu",
    "models": "wan2.2-t2v-a14b,wan3",
    "rank_start_s": 0,
    "load_s": 0,
    "hang_s": 0,
    "precision": "fp4",
    "attention": "sparse",
    "parallel": "2x2",
    "offload_text_encoder": "maybe",
    "offload_dit": "maybe",
    "offload_vae": "maybe",
    "offload_image_encoder": "maybe",
    "offload_layerwise": "maybe",
    "pin_cpu_memory": "perhaps",
    "webhook_allow_private": "perhaps",
    "shard_weights": "perhaps",
    "shard_text": "perhaps",
    "vae_dtype": "fp16",
    "prompt_cache_mb": -1,
    "checkpoint_seconds": 0,
    "metrics_port": 70_000,
    "metrics_auth": "perhaps",
    "traces_url": "collector:4317",
    "log_level": "LOUD",
    "log_prompts": "perhaps",
}
ANYTHING_GOES = {
    "key_prefix",
    "data_dir",
    "models_dir",
    "host",
    "public_url",
    "allowed_hosts",
    "secret_key",
    "engine",
    "lora_dir",
    "vae_path",
    "url",
    "api_key",
    "embedded_user",
}


def test_the_table_below_has_every_setting():
    cache = set(CacheSettings.model_fields)  # those have a table of their own

    assert set(WRONG) | ANYTHING_GOES | cache == set(Settings.model_fields)


@pytest.mark.parametrize("field", WRONG)
def test_a_wrong_value_stops_the_start_and_names_its_variable(field):
    variable = variable_of(field)
    key = field if variable.startswith("WANFARM_") else variable

    with pytest.raises(ConfigurationError) as refused:
        load_settings(**{key: WRONG[field]})

    text = str(refused.value)
    wrong = str(WRONG[field]).rpartition(",")[2]
    assert text.startswith(f"{variable} is ")
    assert wrong in text
    assert text.count(". ") == 1
    assert text.endswith(".")


def test_a_wrong_value_in_the_environment_is_named_too():
    assert read(WANFARM_PORT="eighty")["error"].startswith("WANFARM_PORT is 'eighty'. ")


def test_a_password_in_a_wrong_url_is_not_shown():
    for variable in ("DATABASE_URL", "REDIS_URL"):
        error = read(**{variable: "mysql://user:hunter2@db/farm"})["error"]

        assert error.startswith(f"{variable} is 'mysql://***@db/farm'")
        assert "hunter2" not in error


def test_a_typo_suggests_the_nearest_name():
    assert read(WANFARM_PROT="80")["error"] == (
        "WANFARM_PROT is not a setting of wanfarm. Did you mean WANFARM_PORT?"
    )


def test_a_name_far_from_all_is_refused_without_a_guess():
    assert (
        read(WANFARM_QQQQQQQQQQQQQQQQ="1")["error"]
        == "WANFARM_QQQQQQQQQQQQQQQQ is not a setting of wanfarm."
    )


def test_a_secret_is_read_from_a_file(tmp_path):
    path = tmp_path / "database-url"
    path.write_text("postgresql://u:p@db/farm\n")

    settings = read(DATABASE_URL_FILE=str(path), WANFARM_GROUP_FILE=str(path.with_name("no")))

    assert settings["error"] == "WANFARM_GROUP_FILE cannot be read: No such file or directory."
    settings = read(DATABASE_URL_FILE=str(path))["settings"]
    assert settings["database_url"] == "postgresql+psycopg://u:p@db/farm"


def test_a_variable_and_its_file_together_are_refused(tmp_path):
    error = read(WANFARM_PORT="80", WANFARM_PORT_FILE=str(tmp_path / "port"))["error"]

    assert error == "WANFARM_PORT and WANFARM_PORT_FILE are both set. Keep one."


def test_a_typo_in_the_name_of_a_file_variable_is_refused():
    assert "Did you mean WANFARM_PORT?" in read(WANFARM_PRT_FILE="x")["error"]


def test_an_option_of_the_command_line_beats_the_environment():
    assert load_settings(port=1234).port == 1234


def test_settings_do_not_change_after_the_start():
    with pytest.raises(ValidationError):
        load_settings().port = 1


def test_secrets_are_not_shown():
    settings = load_settings(secret_key="hunter2", api_key="hunter2")

    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_says_what_it_is_for(name):
    assert Settings.model_fields[name].description.endswith(".")


def test_an_endpoint_without_a_bucket_is_not_ignored():
    with pytest.raises(ConfigurationError, match="WANFARM_S3_BUCKET is not"):
        load_settings(s3_endpoint="http://localhost:9000")


def test_a_heartbeat_that_a_lease_cannot_outlive_is_refused():
    with pytest.raises(ConfigurationError, match="at most a third of WANFARM_LEASE_S"):
        load_settings(lease_s=20, heartbeat_s=10)
