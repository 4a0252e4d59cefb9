"""What a farm on one machine is made of, and the order in which its parts come up."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Final

from cli import embedded
from cli.local import Local
from cli.processes import http_status, verb
from cli.supervisor import Child, Program, StartFailed, Supervisor, terminal
from shared.machinery.settings import Settings, child_environment, load_settings, variable_of
from shared.vocabulary.catalog import BUNDLED, MINIATURES, MODELS

STOP_ORDER: Final = ("worker", "upkeep", "api", "redis", "postgres")
_BUILD_S: Final = 180.0
_DRAIN_S: Final = 20.0  # nobody who presses Ctrl-C on a laptop waits ten minutes


@dataclass(frozen=True, slots=True)
class Plan:
    """What one `up` runs; made once from options and environment."""

    settings: Settings
    local: Local
    port: int
    ranks: int
    models: tuple[str, ...]
    with_worker: bool

    @property
    def url(self) -> str:
        """Where this machine reaches the API."""
        host = self.settings.host
        return f"http://{'127.0.0.1' if host in {'0.0.0.0', '::'} else host}:{self.port}"  # noqa: S104

    @property
    def models_dir(self) -> Path:
        """Where checkpoints are."""
        given = "models_dir" in self.settings.model_fields_set
        return self.settings.models_dir if given else self.local.models

    @property
    def lora_dir(self) -> Path:
        """Where adapters are."""
        given = "lora_dir" in self.settings.model_fields_set
        return self.settings.lora_dir if given else self.local.loras

    def options(self) -> tuple[str, ...]:
        """Give the options of `wanfarm up` that lead to this plan."""
        words = ["--port", str(self.port), "--ranks", str(self.ranks)]
        if len(self.models) == 1:
            words += ["--model", self.models[0]]
        return (*words, *(() if self.with_worker else ("--no-worker",)))

    def missing_checkpoints(self) -> list[str]:
        """Name the models that come with us and are not there yet."""
        return [
            name
            for name in self.models
            if name in BUNDLED and not (self.models_dir / MODELS[name].directory).exists()
        ]

    def environment(self) -> dict[str, str]:
        """Give the environment of the farm's processes; what the user set stays as it is."""
        first = {MODELS[name].takes_image: name for name in reversed(self.models)}
        wanted = {
            "models_dir": str(self.models_dir),
            "lora_dir": str(self.lora_dir),
            "default_text_model": first.get(False, self.models[0]),
            "default_image_model": first.get(True, self.models[0]),
            "device": "cpu" if self.models[0] in BUNDLED else "cuda",
            "group": "cpu0" if self.models[0] in BUNDLED else "g0",
            "drain_s": str(_DRAIN_S),
            "api_processes": "1",
        }
        given = self.settings.model_fields_set
        changes = {variable_of(name): value for name, value in wanted.items() if name not in given}
        if "secret_key" not in given:
            changes["WANFARM_SECRET_KEY_FILE"] = str(self.local.secret("secret-key"))
        return child_environment(
            **changes,
            WANFARM_DATA_DIR=str(self.local.root),
            WANFARM_PORT=str(self.port),
            WANFARM_RANKS=str(self.ranks),
            WANFARM_MODELS=",".join(self.models),
            PYTHONUNBUFFERED="1",
        )


class Stack:
    """Brings the parts up in the order they need each other, and as much at once as can be."""

    def __init__(self, plan: Plan, supervisor: Supervisor) -> None:
        """Take what to run and who runs it; nothing starts yet."""
        self._plan = plan
        self._supervisor = supervisor
        self._environment = plan.environment()
        self._home: embedded.Home | None = None  # set while Postgres is embedded
        self._versions: list[str] = []
        self._stage = "services"

    def start(self) -> None:
        """Start everything; returns when the API answers.

        Raises:
            EmbeddedUnavailable: when a service cannot run here.
            StartFailed: when a part does not come up.
            StopAsked: when the user asks to stop meanwhile.
        """
        self._plan.local.forget_services()
        self.publish()
        missing = self._plan.missing_checkpoints() if self._plan.with_worker else []
        builder = self._start_builder(missing) if missing else None
        self._start_services()
        self._prepare_database()
        self._enter("farm")
        api = self._supervisor.start(self._program("api", "api"))
        if builder:
            self._finish(builder)
        if self._plan.with_worker:
            self._start_worker()
        self._supervisor.wait_ready(api, self._api_answers, within=60)
        # last, because it is in nobody's way to a first video
        upkeep = self._program("upkeep", "upkeep", "run")
        silent = {**upkeep.environment, "WANFARM_METRICS_PORT": "0"}  # a port is the worker's
        self._supervisor.start(replace(upkeep, environment=silent))
        self._enter("ready")
        self._greet()

    def publish(self) -> None:
        """Tell other commands how the farm stands."""
        self._supervisor.changed = False
        children = self._supervisor.children.items()
        self._plan.local.publish(
            {
                "url": self._plan.url,
                "pid": os.getpid(),
                "stage": self._stage,
                "ready": self._stage == "ready",
                "admin_key_file": str(self._plan.local.admin_key),
                "drain_s": float(self._environment["WANFARM_DRAIN_S"]),
                "group": self._environment["WANFARM_GROUP"],
                "services": self._versions,
                "processes": {n: {"pid": c.pid, "restarts": c.restarted} for n, c in children},
            }
        )

    def _enter(self, stage: str) -> None:
        self._stage = stage
        self.publish()

    def _start_services(self) -> None:
        given = self._plan.settings.model_fields_set
        wanted = [
            (field, name, prepare, ready)
            for field, name, prepare, ready in (
                ("database_url", "postgres", embedded.prepare_postgres, embedded.postgres_ready),
                ("redis_url", "valkey", embedded.prepare_valkey, embedded.valkey_ready),
            )
            if field not in given
        ]
        if not wanted:
            return
        home = embedded.open_home(self._plan.local.root, self._plan.settings.embedded_user)
        self._home = home if "database_url" not in given else None
        waiting: list[tuple[Child, Callable[[], bool]]] = []
        for field, name, prepare, ready in wanted:
            service = prepare(home)
            child = self._supervisor.start(service.program)
            waiting.append((child, partial(_service_ready, ready, service, child)))
            self._remember(field, service.url)
            self._versions.append(f"{name} {service.version}")
        for child, is_ready in waiting:
            self._supervisor.wait_ready(child, is_ready, within=30)

    def _prepare_database(self) -> None:
        """Bring schema and admin key up to date, unless this very cluster is known to be."""
        versions = Path(__file__).parent.parent / "migrations" / "versions"
        known = json.dumps([self._versions, sorted(path.name for path in versions.glob("*.py"))])
        mark = self._home.path / "prepared" if self._home else None
        key = self._plan.local.admin_key
        if mark and mark.exists() and mark.read_text() == known and key.exists():
            return
        for words in (("db", "upgrade"), ("db", "admin-key")):
            self._supervisor.run_to_end(self._program("schema", *words), within=60)
        if mark:
            embedded.write_private(mark, known)

    def _remember(self, field: str, url: str) -> None:
        """Hand a URL with its password on by file, so that it shows in no environment."""
        path = self._plan.local.secret(variable_of(field), url)
        self._environment[f"{variable_of(field)}_FILE"] = str(path)

    def _start_builder(self, missing: list[str]) -> Child:
        models = [part for name in missing for part in ("--model", name)]
        words = ("--to", str(self._plan.models_dir), *models)
        if self._plan.lora_dir == self._plan.local.loras:  # ours, to put into what we like
            words += ("--loras", str(self._plan.lora_dir))
        program = Program(
            name="models",
            argv=(sys.executable, "-c", "from mini.build import main; main()", *words),
            environment=self._environment,
        )
        return self._supervisor.start(program, restarts=False)

    def _finish(self, builder: Child) -> None:
        self._supervisor.wait_ready(builder, lambda: builder.process is None, within=_BUILD_S)
        if builder.failures:
            raise StartFailed("The miniature models could not be made; see the lines above.")
        del self._supervisor.children[builder.program.name]

    def _start_worker(self) -> None:
        drain = float(self._environment["WANFARM_DRAIN_S"])
        program = self._program("worker", "worker", "run")
        self._supervisor.start(replace(program, stop_within_s=drain + 15))

    def _program(self, name: str, *words: str) -> Program:
        return Program(name=name, argv=verb(*words), environment=self._environment)

    def _api_answers(self) -> bool:
        host, _, port = self._plan.url.removeprefix("http://").rpartition(":")
        return http_status(host, int(port), "/readyz") == HTTPStatus.OK

    def _greet(self) -> None:
        local = self._plan.local
        link = "`wanfarm login-url` prints a one-time link"
        if sys.stdout.isatty():  # a log is no place for it
            link = f"{login_link(self._plan.url, local)} (one use, 5 minutes)"
        for line in (
            f"ready at {self._plan.url}, data in {local.root}",
            f"dashboard: {link}",
            f"admin key in {local.admin_key}; wanfarm reads it by itself",
            "Ctrl-C stops the farm",
        ):
            terminal("farm", line)


def local_of(settings: Settings) -> Local:
    """Give the state directory that settings name."""
    return Local(settings.data_dir.absolute())


def plan_of(
    *, port: int | None, model: str | None, ranks: int | None, with_worker: bool = True
) -> Plan:
    """Settle what to run: options first, then the environment, then the miniatures on CPU."""
    settings = load_settings()
    models = settings.models if "models" in settings.model_fields_set else MINIATURES
    return Plan(
        settings=settings,
        local=local_of(settings),
        port=port or settings.port,
        ranks=ranks or settings.ranks,
        models=(model,) if model else models,
        with_worker=with_worker,
    )


def login_link(url: str, local: Local) -> str:
    """Make the admin key if there is none, and a one-time link that logs a browser in with it.

    Args:
        url: where the farm answers.
        local: its state directory; knows the embedded services.
    """
    from shared.jobs import keys
    from shared.machinery.farm import open_farm

    farm = open_farm(load_settings(**local.service_urls()))
    try:
        keys.ensure_admin_key(farm, local.admin_key)
        key_id = local.admin_key.read_text().split("_")[1]
        return f"{url}/login?t={keys.create_login_token(farm, key_id)}"
    finally:
        farm.close()


def _service_ready(
    ready: Callable[[embedded.Service, int | None], bool], service: embedded.Service, child: Child
) -> bool:
    return ready(service, child.pid)
