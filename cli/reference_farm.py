"""Writes the reference of a farm's states and of the services in docker-compose.yml."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from cli.tables import table
from shared.machinery.settings import Settings, variable_of
from shared.vocabulary.states import MOVES, GroupState, Phase, VideoState

Json = dict[str, Any]

_COMPOSE: Final = Path(__file__).parent.parent / "docker-compose.yml"
_VARIABLE: Final = re.compile(r"\$\{(FARM_\w+):-([^}]*)\}")
_VIDEOS: Final = MappingProxyType(
    {
        VideoState.QUEUED: "Waits. A worker takes it, or somebody or a deadline cancels it.",
        VideoState.IN_PROGRESS: (
            "A worker holds it by a lease. It ends it, or puts it back to try again; a video whose "
            "lease has run out is put back by whoever notices first."
        ),
        VideoState.COMPLETED: "Its files are stored.",
        VideoState.FAILED: "No attempt is left, or none would help. `error` says why.",
        VideoState.CANCELLED: "Somebody or a deadline ended it. `error` says who, and when.",
    }
)
_GROUPS: Final = MappingProxyType(
    {
        GroupState.STARTING: "Its ranks have not all said hello.",
        GroupState.LOADING: "Weights are on their way to the devices.",
        GroupState.IDLE: "Waits for a video.",
        GroupState.BUSY: "Renders one.",
        GroupState.DRAINING: "Finishes its video and takes no other.",
        GroupState.DRAINED: "Has none and takes none, until it is resumed.",
        GroupState.DOWN: "Silent for 30 seconds, stopped, or out of service; it says which.",
    }
)
_PHASES: Final = MappingProxyType(
    {
        Phase.LOAD: "Weights come to the devices, where they are not there yet.",
        Phase.TEXT_ENCODE: "The prompt becomes embeddings.",
        Phase.IMAGE_ENCODE: "A given picture becomes latents.",
        Phase.DENOISE: "Step after step of the transformer.",
        Phase.DECODE: "Latents become pictures.",
        Phase.ENCODE: "Pictures become an MP4, in part while others are decoded.",
        Phase.STORE: "Files go into the store.",
    }
)
_SERVICES: Final = MappingProxyType(
    {
        "postgres": "The truth about every video. The only service whose volume must be kept.",
        "redis": "The doorbell. It may forget everything at any time.",
        "migrate": "Brings the schema up to date, once, before the others start.",
        "api": "API, dashboard and documentation.",
        "upkeep": "Sends webhooks, ends what expired, removes files that belong to nobody.",
        "worker-mini": "A group without a GPU that renders the miniature.",
        "worker-g0": "A group of GPUs.",
        "worker-g1": "Another one.",
        "prometheus": "Collects metrics and judges the alerts, in the profile `obs`.",
        "grafana": "Shows them, in the profile `obs`.",
    }
)


def states_page() -> str:
    """Write the page of states and phases."""
    videos = [
        (state.glyph, state.word, f"`{state}`", _VIDEOS[state], _next(state))
        for state in VideoState
    ]
    groups = [(state.glyph, f"`{state}`", _GROUPS[state]) for state in GroupState]
    phases = [(f"`{phase}`", _PHASES[phase]) for phase in Phase]
    return "\n".join(
        [
            "# States",
            "",
            "What the API calls a video or a group, and the word and sign that the dashboard and "
            "the command line show for it.",
            "",
            "## Of a video",
            *table("sign, shown as, value, meaning, may become", videos),
            "",
            "One function makes every move, and the database refuses those that this table does "
            "not have. A final state never changes; doing it again is a new video. "
            "[The life of a job](../explanation/life-of-a-job.md) tells who moves what.",
            "",
            "That a cancel was asked for is no state: `cancel_requested_at` is set, and pages say "
            '"cancelling" until the ranks have stopped.',
            "",
            "## Of a group",
            *table("sign, value, meaning", groups),
            "",
            "## Phases of an attempt",
            "",
            "Detail of a video in progress, in this order; never a state.",
            *table("value, meaning", phases),
        ]
    )


def _next(state: VideoState) -> str:
    """List where a state may lead, in the order in which states are told."""
    if state.is_final:
        return "nothing, it is final"
    return ", ".join(f"`{goal}`" for goal in VideoState if goal in MOVES[state])


def compose_page() -> str:
    """Write the page of the services that the compose file starts."""
    import yaml  # comes with the tools of developers, not with the command line

    text = _COMPOSE.read_text()
    services: Json = yaml.safe_load(text)["services"]
    lines = [
        "# Services of docker-compose.yml",
        "",
        "What `docker compose --profile gpu up -d --build` starts; "
        "[Run workers on a GPU server](../how-to/gpu-server.md) tells when and how.",
        "",
        "## Variables of the file",
        "",
        "Compose reads these from your shell or from a file `.env` beside it.",
        *table("variable, if unset", _variables(text)),
    ]
    for name, service in services.items():
        lines += ["", f"## {name}", "", _SERVICES[name], *table("what, how", _facts(service))]
        lines += table("variable, value, meaning", _environment(service))
    return "\n".join(lines)


def _variables(text: str) -> list[tuple[str, str]]:
    found = dict(_VARIABLE.findall(text))
    return [(f"`{name}`", f"`{value}`" if value else "empty") for name, value in found.items()]


def _facts(service: Json) -> list[tuple[str, str]]:
    facts = {
        "image": service["image"],
        "command": shlex.join(service.get("command", ())),
        "only with profile": ", ".join(service.get("profiles", ())),
        "published": ", ".join(service.get("ports", ())),
        "starts after": ", ".join(service.get("depends_on", ())),
        "user": service["user"],
        "volumes": ", ".join(service.get("volumes", ())),
        "secrets": ", ".join(service.get("secrets", ())),
        "restart": service["restart"],
        "time to stop": service.get("stop_grace_period", ""),
        "asked for its health": " ".join(service.get("healthcheck", {}).get("test", [])[1:]),
    }
    return [(what, f"`{how}`") for what, how in facts.items() if how]


def _environment(service: Json) -> list[tuple[str, str, str]]:
    meanings = dict(_meanings())
    values: Json = service.get("environment", {})
    return [
        (f"`{name}`", f"`{value}`" if value else "empty", meanings.get(name, ""))
        for name, value in values.items()
    ]


def _meanings() -> Iterator[tuple[str, str]]:
    for field, facts in Settings.model_fields.items():
        yield variable_of(field), facts.description or ""
        yield f"{variable_of(field)}_FILE", f"The file with it. {facts.description}"
