"""Verbs start at once: help imports nothing heavy, and no verb ever imports torch."""

import subprocess
import sys

import click
import pytest

from cli import main
from tests.cli.conftest import ROOT

SLOW = {"celery", "flask", "httpx", "pydantic", "rich", "sqlalchemy", "torch"}
CHECK = "import sys; from cli.main import run; code = run(sys.argv[1:]); print(*sys.modules)"


def modules_after(*words, **environment):
    said = subprocess.run(
        [sys.executable, "-c", CHECK, *words],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        **environment,
    )
    return set(said.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "verb", ["submit", "watch", "get", "ls", "cancel", "download", "doctor", "models", "plan"]
)
def test_help_of_a_verb_imports_nothing_slow(verb):
    assert modules_after(verb, "--help") & SLOW == set()


def test_a_verb_that_talks_to_a_farm_needs_neither_torch_nor_database(environment):
    loaded = modules_after("ls", env=environment)

    assert "httpx" in loaded
    assert loaded & {"torch", "diffusers", "sqlalchemy", "celery", "flask"} == set()


def test_the_doctor_never_imports_torch(environment):
    assert "torch" not in modules_after("doctor", env=environment)


def leaves(command, path=()):
    """Every verb below a command, with its words."""
    if not isinstance(command, click.Group):
        yield " ".join(path), command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        yield from leaves(command.get_command(context, name), (*path, name))


OURS = {
    words: command
    for words, command in leaves(main.wanfarm)
    if main.VERBS[words.split()[0]][0]
    in {"videos", "groups", "operate", "doctor", "models", "plan"}
}


@pytest.mark.parametrize("words", OURS)
def test_every_verb_speaks_json_and_every_option_is_described(words):
    command = OURS[words]
    options = [param for param in command.params if isinstance(param, click.Option)]

    assert "--json" in {name for option in options for name in option.opts}
    assert [option.name for option in options if not option.help] == []
    assert command.help.rstrip().endswith(".")
