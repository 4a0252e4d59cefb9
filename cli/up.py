"""`wanfarm up`: the whole farm of one machine under one supervisor, and the verbs around it."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import click

from cli.embedded import EmbeddedUnavailable
from cli.local import Local
from cli.ports import owner_of, port_is_free
from cli.processes import verb
from cli.stack import STOP_ORDER, Plan, Stack, local_of, login_link, plan_of
from cli.supervisor import StartFailed, StopAsked, Supervisor, terminal
from shared.machinery.settings import child_environment, load_settings
from shared.vocabulary.catalog import MODELS

_START_S = 240.0


@click.command()
@click.option("-d", "--detach", is_flag=True, help="Run in the background.")
@click.option("--port", type=click.IntRange(1, 65_535), help="Port of API and dashboard.")
@click.option("--model", type=click.Choice(list(MODELS)), help="The worker's only model.")
@click.option("--ranks", type=click.IntRange(1, 64), help="Processes of the worker's group.")
@click.option("--no-worker", is_flag=True, help="Services and API only.")
def up(
    *, detach: bool, port: int | None, model: str | None, ranks: int | None, no_worker: bool
) -> None:
    """Run a whole farm on this machine until Ctrl-C."""
    plan = plan_of(port=port, model=model, ranks=ranks, with_worker=not no_worker)
    if detach:
        _start_in_background(plan)
        return
    with plan.local.lock(patience_s=0.5) as held:
        if held:
            _serve(plan)
            return
    facts = plan.local.await_stage(("ready",), within=_START_S)
    click.echo(f"This farm runs already at {facts['url'] if facts else plan.url}.")


@click.command()
def down() -> None:
    """Stop the farm of this directory and wait until it is gone."""
    local = local_of(load_settings())
    facts = local.facts()
    if not local.is_running() or facts is None:
        click.echo(f"No farm is running in {local.root}.")
        return
    os.kill(facts["pid"], signal.SIGTERM)
    if not local.await_end(within=facts["drain_s"] + 60):
        raise click.ClickException(
            f"The farm (pid {facts['pid']}) did not stop in time. "
            f"A second `wanfarm down` ends it hard; its output is in {local.log}."
        )
    click.echo("The farm is stopped.")


@click.command()
def status() -> None:
    """Show the processes of this directory's farm and its queue."""
    local, facts = _running()
    click.echo(f"farm      {facts['url']}  {'ready' if facts['ready'] else 'starting'}")
    for name, process in facts["processes"].items():
        state = f"pid {process['pid']}" if process["pid"] else "down, starts again"
        restarts = f", restarted {process['restarts']} times" if process["restarts"] else ""
        click.echo(f"{name:<9} {state}{restarts}")
    for name, count in _counts(facts).items():
        click.echo(f"{name:<12} {count}")
    click.echo(f"data      {local.root}")


@click.command("login-url")
def login_url() -> None:
    """Print a one-time link to the dashboard of this directory's farm."""
    local, facts = _running()
    click.echo(login_link(facts["url"], local))


def _running() -> tuple[Local, dict[str, Any]]:
    local = local_of(load_settings())
    facts = local.facts()
    if not local.is_running() or facts is None:
        raise click.ClickException(
            f"No farm is running in {local.root}. Start one with `wanfarm up`."
        )
    return local, facts


def _counts(facts: dict[str, Any]) -> dict[str, int]:
    """Ask a running farm how many videos wait and run; nothing when it does not answer."""
    import httpx

    try:
        key = Path(facts["admin_key_file"]).read_text().strip()
        answer = httpx.get(
            f"{facts['url']}/v1/queue", headers={"Authorization": f"Bearer {key}"}, timeout=5
        )
    except (OSError, httpx.HTTPError):
        return {}
    return answer.json().get("counts", {}) if answer.is_success else {}


def _serve(plan: Plan) -> None:
    """Run the farm in the foreground until it is asked to stop."""
    _refuse_taken_port(plan)
    supervisor = Supervisor(terminal)
    supervisor.listen_for_stop()
    stack = Stack(plan, supervisor)
    try:
        stack.start()
        while not supervisor.stops:
            supervisor.pump(1.0)
            if supervisor.changed:
                stack.publish()
    except StopAsked:
        pass
    except (StartFailed, EmbeddedUnavailable) as err:
        raise click.ClickException(str(err)) from err
    finally:
        terminal("farm", "stopping; Ctrl-C again kills")
        supervisor.stop(STOP_ORDER)
        supervisor.close()
        plan.local.forget()
        terminal("farm", "stopped")


def _refuse_taken_port(plan: Plan) -> None:
    if not port_is_free(plan.settings.host, plan.port):
        owner = owner_of(plan.port) or "a process of another user"
        raise click.ClickException(
            f"Port {plan.port} is taken by {owner}. Choose another: `--port {plan.port + 1}`."
        )


def _start_in_background(plan: Plan) -> None:
    if not plan.local.is_running():
        plan.local.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with plan.local.log.open("wb") as log:
            process = subprocess.Popen(
                verb("up", *plan.options()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=child_environment(),
                start_new_session=True,
            )
        plan.local.await_start(process, within=30)
    facts = plan.local.await_stage(("ready",), within=_START_S)
    if facts is None:
        said = plan.local.log.read_text(errors="replace").splitlines()[-12:]
        raise click.ClickException("The farm did not start. It said:\n" + "\n".join(said))
    click.echo(f"The farm runs at {facts['url']}. Output goes to {plan.local.log}.")
    click.echo(f"dashboard {login_link(facts['url'], plan.local)}")
    click.echo("`wanfarm down` stops it.")
