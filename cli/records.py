"""Verbs that read: what a request would come to, a video's log, how it was made."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import click

from cli import render
from cli.client import Ask, Exit
from cli.request import body_of, read_prompt, spec_options
from cli.session import Session, farm_verb
from shared.vocabulary import chronicle

Json = dict[str, Any]


@click.command()
@click.argument("word", metavar="PROMPT")
@farm_verb
@spec_options
def estimate(session: Session, word: str, **options: Any) -> int:  # noqa: ANN401 - click's
    """Foresee a video of PROMPT (a text, `-` or `@file`); nothing is stored."""
    return foresee(session, body_of(options) | {"prompt": read_prompt(word)})


def foresee(session: Session, body: Json) -> int:
    """Tell what a request would come to."""
    told = session.api.ask(Ask("POST", "/v1/videos/estimate", body))
    for warning in told["warnings"]:
        session.screen.note(f"Note: {warning['message']}")
    session.screen.object(told, render.estimate_lines(told), short=", ".join(told["fits"]))
    return Exit.OK


@click.command()
@click.argument("video_id")
@click.option("--tail", type=click.IntRange(1, 5000), default=200, show_default=True, help="Lines.")
@click.option("-f", "--follow", is_flag=True, help="Stay, and print each new line, to the end.")
@farm_verb
def logs(session: Session, video_id: str, *, tail: int, follow: bool) -> int:
    """Print the newest lines of a video's log."""
    if follow:
        return _follow(session, video_id, tail)
    ask = Ask("GET", f"/v1/videos/{video_id}/log", params={"tail": tail})
    with session.api.answer(ask) as response:
        click.echo(response.read().decode(), nl=False)
    return Exit.OK


def _follow(session: Session, video_id: str, tail: int) -> int:
    """Print the newest lines, and then each new one until the video ends."""
    newest = deque(_events(session, video_id), maxlen=tail)
    for line in chronicle.lines(newest):
        click.echo(line)
    seen = newest[-1]["id"] if newest else 0
    for event in session.api.follow(video_id, after=seen):
        if event.id is not None:
            click.echo("".join(chronicle.lines([event.data])))
    return Exit.OK


def _events(session: Session, video_id: str) -> Iterator[Json]:
    """Read a video's events, first to last."""
    after, more = 0, True
    while more:
        page = session.api.get(f"/v1/videos/{video_id}/events", after=after, limit=500)
        yield from page["data"]
        after, more = page["last_id"], page["has_more"]


@click.command()
@click.argument("video_id")
@farm_verb
def provenance(session: Session, video_id: str) -> int:
    """Print how a completed video was made, as JSON."""
    told = session.api.get(f"/v1/videos/{video_id}/provenance")
    session.screen.object(told, [render.to_json(told)], short=told["id"])
    return Exit.OK
