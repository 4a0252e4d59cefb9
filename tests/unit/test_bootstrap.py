"""deploy/bootstrap.py: what it refuses, what it falls back on, and that a repeat is free."""

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest

from shared.machinery.settings import child_environment

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy" / "bootstrap.py"


@pytest.fixture
def tree(tmp_path):
    """A folder with nothing in it but what bootstrap.py needs."""
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "bootstrap.py").write_text(SCRIPT.read_text())
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    (tmp_path / "constraints.txt").write_text("")
    return tmp_path


@pytest.fixture
def bootstrap(tree):
    """The script as a module that works in that folder."""
    spec = importlib.util.spec_from_file_location("bootstrap", tree / "deploy" / "bootstrap.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(tree, *words, **environment):
    return subprocess.run(
        [sys.executable, "-I", str(tree / "deploy" / "bootstrap.py"), *words],
        capture_output=True,
        text=True,
        check=False,
        env=child_environment(**environment),
    )


def stamp(bootstrap, extras):
    bin_folder = bootstrap.VENV / "bin"
    bin_folder.mkdir(parents=True)
    (bin_folder / "python").symlink_to(sys.executable)
    facts = {"fingerprint": bootstrap.fingerprint(), "extras": extras}
    bootstrap.STAMP.write_text(json.dumps(facts))


def fake(folder, name, script):
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_a_second_setup_does_nothing(tree, bootstrap):
    stamp(bootstrap, ["api", "cli"])

    done = run(tree, "setup", "--extras", "cli")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_changed_file_means_a_new_setup(tree, bootstrap, name):
    stamp(bootstrap, ["cli"])

    (tree / name).write_text("# changed\n")

    assert not bootstrap.is_set_up(bootstrap.fingerprint(), ["cli"])


def test_an_extra_that_is_not_there_means_a_new_setup(bootstrap):
    stamp(bootstrap, ["cli"])

    assert not bootstrap.is_set_up(bootstrap.fingerprint(), ["cli", "worker"])


def test_a_broken_venv_means_a_new_setup(bootstrap):
    stamp(bootstrap, ["cli"])
    (bootstrap.VENV / "bin" / "python").unlink()

    assert not bootstrap.is_set_up(bootstrap.fingerprint(), ["cli"])


def test_an_unknown_extra_is_refused_by_name(tree):
    done = run(tree, "setup", "--extras", "gpu")

    assert done.returncode == 1
    assert "no extra 'gpu'" in done.stderr


def test_an_old_python_looks_for_a_newer_one(tree, bootstrap, monkeypatch):
    fake(tree / "bin", "python3", "exit 1")
    fake(tree / "bin", "python3.12", "exit 0")
    monkeypatch.setenv("PATH", str(tree / "bin"))
    monkeypatch.setattr(bootstrap.sys, "executable", str(tree / "bin" / "python3"))

    assert bootstrap.choose_python() == str(tree / "bin" / "python3.12")


def test_without_a_new_python_it_says_what_to_install(tree, bootstrap, monkeypatch):
    fake(tree / "bin", "python3", "exit 1")
    monkeypatch.setenv("PATH", str(tree / "bin"))
    monkeypatch.setattr(bootstrap.sys, "executable", str(tree / "bin" / "python3"))

    with pytest.raises(bootstrap.Refusal, match=r"needs Python 3\.11"):
        bootstrap.choose_python()


def test_without_the_venv_module_virtualenv_is_used(tree, bootstrap):
    """Some distributions cut ensurepip out of their Python."""
    fake(
        tree / "bin",
        "python",
        f'echo "$@" >> {tree}/calls\ncase "$2" in venv) exit 1;; esac\nexit 0',
    )

    bootstrap.make_venv(str(tree / "bin" / "python"))

    calls = (tree / "calls").read_text().splitlines()
    assert calls[0] == f"-m venv {tree}/.venv"
    assert re.match(rf"-m pip install --quiet --target {tree}/.boot", calls[1])
    assert calls[2] == f"-m virtualenv --quiet {tree}/.venv"


def test_with_neither_venv_nor_pip_it_names_the_package(tree, bootstrap):
    fake(tree / "bin", "python", "exit 1")

    with pytest.raises(bootstrap.Refusal, match="python3-venv"):
        bootstrap.make_venv(str(tree / "bin" / "python"))


def test_a_failed_install_leaves_no_stamp(tree, bootstrap):
    stamp(bootstrap, ["cli"])
    (tree / "pyproject.toml").write_text("# changed\n")
    fake(bootstrap.VENV / "bin", "pip", "exit 1")
    bootstrap.VENV.joinpath("bin", "python").unlink()
    fake(bootstrap.VENV / "bin", "python", 'case "$2" in pip) exit 1;; esac\nexit 0')

    done = run(tree, "setup", "--extras", "cli")

    assert done.returncode == 1
    assert "make setup" in done.stderr
    assert not bootstrap.is_set_up(bootstrap.fingerprint(), ["cli"])


def test_torch_wheels_are_handed_to_pip(tree, bootstrap):
    wheels = tree / "wheels"
    wheels.mkdir()
    fake(tree / ".venv", "x", "")
    fake(bootstrap.VENV / "bin", "python", f'echo "$@" >> {tree}/calls')
    fake(bootstrap.VENV / "bin", "pip", "exit 0")

    run(tree, "setup", "--extras", "worker", TORCH_WHEELS=str(wheels))

    assert f"--find-links {wheels}" in (tree / "calls").read_text()


@pytest.fixture
def pips(tree, bootstrap):
    """Fakes of pip and uv; what they were called with, pip's configuration besides."""
    configured = (
        "global.index-url='https://a.example/x'\n:env:.find-links='w1\\nw2'\nglobal.cert='c'"
    )
    answer = f'case "$*" in *"config list"*) printf "%s\\n" "{configured}"; exit;; esac'
    fake(tree / ".venv", "x", "")
    fake(bootstrap.VENV / "bin", "python", f'{answer}\necho "pip $@" >> {tree}/calls')
    return lambda: (tree / "calls").read_text().splitlines()


def test_uv_looks_where_pip_would(tree, bootstrap, pips):
    fake(bootstrap.VENV / "bin", "uv", f'echo "uv $@" >> {tree}/calls')

    assert bootstrap.fetch(["one"])

    (call,) = pips()
    assert call.startswith("uv pip install")
    assert call.endswith("--default-index https://a.example/x --find-links w1 --find-links w2 one")


@pytest.mark.parametrize("is_there", [True, False])
def test_where_uv_fails_pip_installs(bootstrap, pips, capsys, is_there):
    if is_there:
        fake(bootstrap.VENV / "bin", "uv", "exit 2")

    assert bootstrap.fetch(["one"])

    assert pips()[-1].startswith("pip -m pip install --no-compile")
    assert ("pip tries it" in capsys.readouterr().err) == is_there


def test_an_unknown_folder_of_tests_is_refused(tree, bootstrap):
    stamp(bootstrap, list(bootstrap.EXTRAS))
    (tree / "tests" / "unit").mkdir(parents=True)

    done = run(tree, "test", T="untit")

    assert done.returncode == 1
    assert "unit" in done.stderr


def test_it_never_changes_the_system():
    text = SCRIPT.read_text()

    for word in ("sudo", "--break-system-packages", "--user"):
        assert word not in text


def test_it_needs_the_standard_library_only():
    imported = re.findall(r"^(?:import|from) (\w+)", SCRIPT.read_text(), re.MULTILINE)

    assert set(imported) <= sys.stdlib_module_names


def test_every_requirement_is_pinned_and_no_pin_names_a_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]

    names = {normal(re.split(r"[^\w.-]", requirement)[0]) for requirement in wanted}
    assert names <= {pin.partition("==")[0] for pin in pins}
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9a-z.]+", pin) for pin in pins)


def test_what_is_installed_here_fits_the_pins():
    """A venv that drifted from constraints.txt would test something that nobody installs."""
    from importlib.metadata import PackageNotFoundError, version

    for line in (ROOT / "constraints.txt").read_text().splitlines():
        name, _, pinned = line.partition("==")
        try:
            installed = version(name)
        except PackageNotFoundError:
            continue
        assert installed.partition("+")[0] == pinned, name


def test_the_makefile_offers_what_bootstrap_can_do(bootstrap):
    words = re.search(r"^COMMANDS := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]

    assert set(words.split()) == set(bootstrap.COMMANDS)


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()
