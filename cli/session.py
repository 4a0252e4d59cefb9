"""What every verb that talks to a farm shares: its options, its screen, its client."""

import contextlib
import functools
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import Any, Concatenate, ParamSpec

import click

from cli.client import Client, Exit, FarmError, find_target
from cli.render import Screen

P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Session:
    """One run of a verb: the farm that it asks, and where its words go."""

    api: Client
    screen: Screen


@dataclass(frozen=True, slots=True)
class Reach:
    """How a verb was told to reach a farm, and how to speak."""

    url: str | None
    key: str | None = field(repr=False)
    screen: Screen

    @contextlib.contextmanager
    def session(self) -> Generator[Session]:
        """Open a client on the farm; closed at the end of the block."""
        with Client(find_target(self.url, self.key), self.screen.note) as api:
            yield Session(api, self.screen)


def farm_options(run: Callable[Concatenate[Reach, P], int]) -> Callable[..., int]:
    """Give a verb `--url`, `--key`, `--json` and `--quiet`; it gets what they say."""

    @click.option("--url", help="The farm; else WANFARM_URL, else the one of this folder.")
    @click.option("--key", help="The API key; else WANFARM_API_KEY, else this folder's.")
    @click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
    @click.option("-q", "--quiet", is_flag=True, help="Ids only, and no notes.")
    @functools.wraps(run)
    def verb(
        *args: Any,  # noqa: ANN401 - click's
        url: str | None,
        key: str | None,
        as_json: bool,
        quiet: bool,
        **options: Any,  # noqa: ANN401 - click's
    ) -> int:
        return run(Reach(url, key, Screen(as_json=as_json, quiet=quiet)), *args, **options)

    return verb


def farm_verb(run: Callable[Concatenate[Session, P], int]) -> Callable[..., int]:
    """Give a verb the options of `farm_options`; it gets an open session."""

    @functools.wraps(run)
    def verb(reach: Reach, *args: P.args, **options: P.kwargs) -> int:
        with reach.session() as session:
            return run(session, *args, **options)

    return farm_options(verb)


def for_each(ids: Iterable[str], act: Callable[[str], int]) -> int:
    """Do something for several ids; one that fails does not stop the others.

    Returns:
        The highest exit code.
    """
    worst = 0
    for one in ids:
        try:
            worst = max(worst, act(one))
        except FarmError as err:
            if err.exit_code == Exit.UNREACHABLE:
                raise
            err.show()
            worst = max(worst, err.exit_code)
    return worst
