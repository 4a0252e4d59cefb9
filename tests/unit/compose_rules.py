"""The rules of a deployment: each takes the services of a compose file and fails by an assertion.

They hold of docker-compose.yml and of every file that `wanfarm plan` writes.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from cli.main import wanfarm
from shared.machinery.settings import Settings, variable_of

COMPOSE = Path(__file__).parents[2] / "docker-compose.yml"
OURS = "wanfarm-"
KNOWN = {variable_of(field) for field in Settings.model_fields}
NOT_OURS = {  # read by libraries inside our containers
    "HF_HUB_OFFLINE",
    "HOME",
    "NVIDIA_DRIVER_CAPABILITIES",
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
}

Services = dict[str, dict[str, Any]]


def load(text: str | None = None) -> dict[str, Any]:
    """Read a compose file's text; without one, the file that is shipped."""
    return resolve(yaml.safe_load(COMPOSE.read_text() if text is None else text))


def resolve(value: Any) -> Any:
    """Put the defaults of ${NAME:-default} in, as compose does with an empty environment."""
    if isinstance(value, dict):
        return {key: resolve(item) for key, item in value.items()}
    if isinstance(value, list):
        return [resolve(item) for item in value]
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value) if isinstance(value, str) else value


def ours(services: Services) -> Services:
    return {name: s for name, s in services.items() if s["image"].startswith(OURS)}


def gpu_groups(services: Services) -> Services:
    return {name: s for name, s in services.items() if "deploy" in s}


def gpus(service: dict[str, Any]) -> list[str]:
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert "count" not in device, "count and device_ids exclude each other"
    assert device["capabilities"] == ["gpu"]
    assert all(isinstance(name, str) for name in device["device_ids"]), "unquoted device id"
    return device["device_ids"]


def seconds(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([smh])", text).groups()
    return int(number) * {"s": 1, "m": 60, "h": 3600}[unit]


# --- the rules: each takes the services and fails by an assertion -------------------------------


def devices_are_disjoint_and_as_many_as_ranks(services: Services) -> None:
    taken: list[str] = []
    for service in gpu_groups(services).values():
        assert len(gpus(service)) == int(service["environment"]["WANFARM_RANKS"])
        taken += gpus(service)
    assert len(taken) == len(set(taken)), "two groups share a GPU"


def groups_have_their_own_names(services: Services) -> None:
    names = [s["environment"].get("WANFARM_GROUP") for n, s in services.items() if "worker" in n]
    assert None not in names
    assert len(names) == len(set(names))


def restart_is_a_word(services: Services) -> None:
    for name, service in services.items():
        assert service["restart"] == ("no" if name == "migrate" else "unless-stopped"), name


def long_running_services_have_a_health_check(services: Services) -> None:
    for name, service in services.items():
        if name != "migrate":
            assert service["healthcheck"]["test"][0] == "CMD", name
            assert "start_interval" in service["healthcheck"], name


def nothing_starts_before_what_it_needs(services: Services) -> None:
    for name, service in ours(services).items():
        wanted = {"postgres"} if name == "migrate" else {"migrate", "redis"}
        needs = service.get("depends_on", {})  # compose refuses names of another file
        assert set(needs) == wanted & set(services), name
        for other, how in needs.items():
            expected = "completed_successfully" if other == "migrate" else "healthy"
            assert how["condition"] == f"service_{expected}", name


def containers_can_do_little(services: Services) -> None:
    for name, service in services.items():
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"]), name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["init"] is True, name
        assert "privileged" not in service, name


def grace_is_longer_than_the_drain(services: Services) -> None:
    for name, service in services.items():
        drain = service.get("environment", {}).get("WANFARM_DRAIN_S")
        if drain:
            assert seconds(service["stop_grace_period"]) > float(drain) + 60, name
        elif "worker" in name:
            pytest.fail(f"{name} says no drain time")


def environment_is_known_and_holds_no_secret(services: Services) -> None:
    for name, service in ours(services).items():
        for variable, value in service["environment"].items():
            assert isinstance(value, str), f"{name}: {variable} is not quoted"
            assert variable.removesuffix("_FILE") in KNOWN | NOT_OURS, f"{name}: {variable}"
        assert "DATABASE_URL" not in service["environment"], name
        assert "WANFARM_SECRET_KEY" not in service["environment"], name
    assert "POSTGRES_PASSWORD" not in services.get("postgres", {}).get("environment", {})


def secrets_are_mounted_where_they_are_read(services: Services) -> None:
    for name, service in services.items():
        read = {
            value.removeprefix("/run/secrets/")
            for variable, value in service.get("environment", {}).items()
            if variable.endswith("_FILE")
        }
        assert read == set(service.get("secrets", [])), name


def commands_are_verbs(services: Services) -> None:
    for service in ours(services).values():
        for argv in (service["command"], service.get("healthcheck", {}).get("test", [])[1:]):
            if argv:
                assert argv[0] == "wanfarm"
                assert_is_verb(argv[1:])


def assert_is_verb(words: list[str]) -> None:
    command: click.Command | None = wanfarm
    for word in words:
        assert isinstance(command, click.Group), words
        command = command.get_command(click.Context(command), word)
        assert command is not None, words
    assert not isinstance(command, click.Group), words


def images_have_exact_tags(services: Services) -> None:
    for name, service in services.items():
        tag = service["image"].rpartition(":")[2]
        assert re.match(r"v?\d+\.\d+", tag), f"{name}: {service['image']}"


def api_and_grafana_are_published_on_loopback_and_nothing_else(services: Services) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    may = {"api": ["127.0.0.1:8080:8080"], "grafana": ["127.0.0.1:3000:3000"]}
    assert published == {name: ports for name, ports in may.items() if name in services}


def gpu_services_have_room_for_nccl(services: Services) -> None:
    for name, service in gpu_groups(services).items():
        assert service["shm_size"] == "16gb", name
        assert service["ipc"] == "private", name
        assert service["ulimits"] == {"memlock": -1, "stack": 67108864, "nofile": 65536}, name


def weights_are_read_only(services: Services) -> None:
    for name, service in gpu_groups(services).items():
        folder = service["environment"]["WANFARM_MODELS_DIR"]
        assert any(v.endswith(f":{folder}:ro") for v in service["volumes"]), name
        assert service["environment"]["HF_HUB_OFFLINE"] == "1", name


def written_folders_are_mounted(services: Services) -> None:
    for name, service in ours(services).items():
        mounted = [v.split(":")[1] for v in service["volumes"]] + ["/tmp"]
        for variable in ("WANFARM_DATA_DIR", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "HOME"):
            folder = service["environment"].get(variable)
            assert folder is None or any(f"{folder}/".startswith(f"{m}/") for m in mounted), name


def logs_are_rotated(services: Services) -> None:
    for name, service in services.items():
        options = service["logging"]["options"]
        assert options == {"max-size": "20m", "max-file": "5"}, name


RULES: tuple[Callable[[Services], None], ...] = (
    devices_are_disjoint_and_as_many_as_ranks,
    groups_have_their_own_names,
    restart_is_a_word,
    long_running_services_have_a_health_check,
    nothing_starts_before_what_it_needs,
    containers_can_do_little,
    grace_is_longer_than_the_drain,
    environment_is_known_and_holds_no_secret,
    secrets_are_mounted_where_they_are_read,
    commands_are_verbs,
    images_have_exact_tags,
    api_and_grafana_are_published_on_loopback_and_nothing_else,
    gpu_services_have_room_for_nccl,
    weights_are_read_only,
    written_folders_are_mounted,
    logs_are_rotated,
)
