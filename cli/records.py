"""Verbs that read: what a request would come to, a video's log, how it was made."""

from typing import Any

import click

from cli import render
from cli.client import Ask, Exit
from cli.request import body_of, read_prompt, spec_options
from cli.session import Session, farm_verb

Json = dict[str, Any]


@click.command()
@click.argument("word", metavar="PROMPT")
@farm_verb
@spec_options
def estimate(session: Session, word: str, **options: Any) -> int:  # noqa: ANN401 - click's
    """Foresee a video of PROMPT (a text, `-` or `@file`); nothing is stored."""
    body = body_of(options) | {"prompt": read_prompt(word)}
    told = session.api.ask(Ask("POST", "/v1/videos/estimate", body))
    for warning in told["warnings"]:
        session.screen.note(f"Note: {warning['message']}")
    session.screen.object(told, render.estimate_lines(told), short=", ".join(told["fits"]))
    return Exit.OK


@click.command()
@click.argument("video_id")
@click.option("--tail", type=click.IntRange(1, 5000), default=200, show_default=True, help="Lines.")
@farm_verb
def logs(session: Session, video_id: str, *, tail: int) -> int:
    """Print the newest lines of a video's log."""
    ask = Ask("GET", f"/v1/videos/{video_id}/log", params={"tail": tail})
    with session.api.answer(ask) as response:
        click.echo(response.read().decode(), nl=False)
    return Exit.OK


@click.command()
@click.argument("video_id")
@farm_verb
def provenance(session: Session, video_id: str) -> int:
    """Print how a completed video was made, as JSON."""
    told = session.api.get(f"/v1/videos/{video_id}/provenance")
    session.screen.object(told, [render.to_json(told)], short=told["id"])
    return Exit.OK
