"""The command line's frame: verbs come lazily, errors are one line, exit codes are kept."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from cli import main
from shared.machinery.settings import child_environment

ROOT = Path(__file__).parents[2]


def wanfarm(*words, **environment):
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=child_environment(**environment),
    )


def test_help_lists_every_verb():
    said = wanfarm("--help").stdout

    assert [verb for verb in main.VERBS if f"  {verb} " not in said] == []


def test_a_shell_completes_verbs_and_options():
    asked = {"COMP_WORDS": "wanfarm groups drain --w", "COMP_CWORD": "3"}
    code = "from cli.main import main; import sys; sys.argv = ['wanfarm']; main()"
    environment = child_environment(_WANFARM_COMPLETE="bash_complete", **asked)

    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT
    )

    assert said.stdout.splitlines() == ["plain,--wait"]


def test_help_imports_nothing_heavy():
    heavy = {"celery", "flask", "httpx", "pydantic", "rich", "sqlalchemy", "torch"}
    code = "import sys; from cli.main import run; run(['--help']); print(*sys.modules)"

    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout

    assert heavy & set(loaded.split()) == set()


@pytest.mark.parametrize("verb", main.VERBS)
def test_a_verb_is_where_the_table_says(verb):
    module, text = main.VERBS[verb]

    assert importlib.util.find_spec(f"cli.{module}")
    command = main.wanfarm.get_command(click.Context(main.wanfarm), verb)
    assert isinstance(command, click.Command)
    assert text.endswith(".")


def test_a_verb_whose_package_is_missing_says_so(monkeypatch):
    monkeypatch.setattr(main, "VERBS", {"get": ("nowhere", "Show one video.")})

    with pytest.raises(click.ClickException, match=r"needs the package 'cli\.nowhere'"):
        main.wanfarm.get_command(click.Context(main.wanfarm), "get")


def test_an_unknown_verb_is_a_usage_error():
    done = wanfarm("sumbit")

    assert done.returncode == 2
    assert "sumbit" in done.stderr


def test_a_wrong_setting_is_one_line_and_a_usage_error():
    done = wanfarm("api", WANFARM_PROT="8080")

    assert done.returncode == 2
    assert done.stderr == (
        "Error: WANFARM_PROT is not a setting of wanfarm. Did you mean WANFARM_PORT?\n"
    )


def test_ping_worker_believes_a_fresh_heartbeat_only(tmp_path):
    beat = tmp_path / "groups" / "g7.heartbeat"
    environment = {"WANFARM_GROUP": "g7", "WANFARM_DATA_DIR": str(tmp_path)}

    assert wanfarm("ping", "worker", **environment).returncode == 1
    beat.parent.mkdir()
    beat.touch()
    assert wanfarm("ping", "worker", **environment).returncode == 0
    os.utime(beat, (1, 1))
    old = wanfarm("ping", "worker", **environment)
    assert (old.returncode, "old" in old.stderr) == (1, True)


def test_ping_api_says_when_nobody_answers():
    done = wanfarm("ping", "api", "--port", "1")

    assert done.returncode == 1
    assert "no answer" in done.stderr
