"""Makes .venv and runs the farm's everyday commands; needs nothing but a Python and its pip.

Written for old Pythons too: the first thing it does may be to find a newer one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from ast import literal_eval
from pathlib import Path
from secrets import token_hex

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BOOT = ROOT / ".boot"
REFEREES = ROOT / "tests" / "referees"
STAMP = VENV / "wanfarm-setup.json"
CONSTRAINTS = ROOT / "constraints.txt"
RARE = "/(tests?|moto|pip|transformers/models|diffusers/pipelines)/"  # compiled at first use
OLDEST = (3, 11)
NAMES = ("python3.11", "python3.12", "python3.13", "python3.14", "python3")
EXTRAS = ("api", "cli", "embedded", "otel", "s3", "worker", "dev")
MOST_BESIDE = 4  # test processes at once, each with a Postgres and a Redis of its own
SOURCES = {  # pip's configuration in uv's words
    "index-url": "--default-index",
    "extra-index-url": "--index",
    "find-links": "--find-links",
    "constraint": "--constraints",
}
LINTERS = (
    ("ruff", "check"),
    ("ruff", "format", "--check"),
    ("basedpyright", "--pythonpath", str(VENV / "bin" / "python")),
    ("lint-imports",),
)


class Refusal(Exception):
    """Something is in the way; the text says what, why, and the next command."""


def main(arguments: list[str]) -> int:
    """Run one command and give its exit code."""
    parser = argparse.ArgumentParser(prog="bootstrap.py", description=__doc__)
    parser.add_argument("command", choices=sorted(COMMANDS))
    parser.add_argument("--extras", default=os.environ.get("EXTRAS") or ",".join(EXTRAS))
    parser.add_argument("rest", nargs="*", help="what follows -- goes to the program itself")
    at = arguments.index("--") if "--" in arguments else len(arguments)
    options, unknown = parser.parse_known_args(arguments[:at])
    rest = [*options.rest, *unknown, *arguments[at + 1 :]]
    os.chdir(ROOT)
    try:
        return COMMANDS[options.command](options.extras, rest)
    except Refusal as err:
        print(f"error: {err}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def setup(extras: str, _rest: list[str]) -> int:
    """Make .venv with the pinned packages, unless it is as it should be."""
    wanted = sorted({name.strip() for name in extras.split(",") if name.strip()})
    unknown = sorted(set(wanted) - set(EXTRAS))
    if unknown:
        raise Refusal(
            f"There is no extra {unknown[0]!r}. The extras are {', '.join(EXTRAS)}. "
            "Run `make setup EXTRAS=cli`, or `make setup` for all."
        )
    print_hash = fingerprint()
    if is_set_up(print_hash, wanted):
        return 0
    began = time.monotonic()
    make_venv(choose_python())
    install(wanted)
    STAMP.write_text(json.dumps({"fingerprint": print_hash, "extras": wanted}))
    say(f".venv is ready after {time.monotonic() - began:.0f} s")
    return 0


def fingerprint() -> str:
    """Hash all that decides what .venv holds."""
    parts = [(ROOT / "pyproject.toml").read_bytes(), CONSTRAINTS.read_bytes(), str(ROOT).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def is_set_up(wanted_hash: str, extras: list[str]) -> bool:
    """Tell whether .venv was made from these files, with these extras, and still runs."""
    try:
        stamp = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return False
    same = stamp.get("fingerprint") == wanted_hash and set(extras) <= set(stamp.get("extras", []))
    return same and runs(str(VENV / "bin" / "python"))


def runs(python: str) -> bool:
    """Tell whether an interpreter starts and is new enough."""
    test = f"import sys; sys.exit(sys.version_info < {OLDEST})"
    try:
        return (
            subprocess.run([python, "-c", test], capture_output=True, check=False).returncode == 0
        )
    except OSError:
        return False


def choose_python() -> str:
    """Find a Python that is new enough, this one if it is."""
    for candidate in (sys.executable, *(shutil.which(name) for name in NAMES)):
        if candidate and runs(candidate):
            return candidate
    raise Refusal(
        f"python3 is {sys.version.split()[0]}. wanfarm needs Python 3.11 or newer, and none is on "
        "PATH. Install python3.11 by your system's packages, then run this again."
    )


def make_venv(python: str) -> None:
    """Make .venv, with the virtualenv package where the venv module is not complete."""
    if (VENV / "bin" / "pip").exists() and runs(str(VENV / "bin" / "python")):
        return
    shutil.rmtree(VENV, ignore_errors=True)
    say(f"making .venv with {python}")
    made = subprocess.run([python, "-m", "venv", str(VENV)], capture_output=True, check=False)
    if made.returncode == 0:
        return
    shutil.rmtree(VENV, ignore_errors=True)
    say("this Python has no complete venv module; taking virtualenv into .boot")
    pip = [python, "-m", "pip", "install", "--quiet", "--target", str(BOOT), "--upgrade"]
    fetched = subprocess.run([*pip, "-c", str(CONSTRAINTS), "virtualenv"], check=False)
    environment = {**os.environ, "PYTHONPATH": str(BOOT)}
    if fetched.returncode == 0:
        fetched = subprocess.run(
            [python, "-m", "virtualenv", "--quiet", str(VENV)], check=False, env=environment
        )
    if fetched.returncode:
        raise Refusal(
            f"{python} can make no virtual environment. It has neither a complete venv module nor "
            "a working pip. Install your system's package python3-venv, then run this again."
        )


def install(extras: list[str]) -> None:
    """Install the packages that constraints.txt names, and this project as a link."""
    free = shutil.disk_usage(ROOT).free / 1e9
    torch = os.environ.get("TORCH_WHEELS", "")
    say(f"installing [{','.join(extras)}]; {free:.0f} GB of disk are free")
    where: list[str] = []
    if "worker" in extras and torch:
        where = ["--find-links" if Path(torch).is_dir() else "--extra-index-url", torch]
    elif "worker" in extras:
        say("torch may come with CUDA: about 3 GB to download and 8 GB of disk, first run only.")
        say("TORCH_WHEELS=<folder or index> gives a CPU build instead.")
    # build with the pinned setuptools, not with the newest one in a folder of its own
    project = ["--no-build-isolation", "-e", f".[{','.join(extras)}]", *where]
    for words in (["setuptools"], project):
        if not fetch(["-c", str(CONSTRAINTS), *words]):
            raise Refusal(
                f"The packages could not be installed; pip's own words are above. {free:.0f} GB of "
                "disk are free. Mend the cause, then run `make setup` again: it goes on from here."
            )
    python = str(VENV / "bin" / "python")
    # pip would compile on one core; its status tells of files that are no Python, in some packages
    compileall = [python, "-m", "compileall", "-q", "-q", "-j", "0", "-x", RARE, str(VENV / "lib")]
    subprocess.run(compileall, check=False)


def fetch(words: list[str]) -> bool:
    """Install what `words` name by uv, a minute faster than by pip, or by pip where uv fails."""
    pip = [str(VENV / "bin" / "python"), "-m", "pip"]
    uv = VENV / "bin" / "uv"
    quiet = [] if sys.stdout.isatty() else ["--quiet"]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    def done(*argv: str) -> bool:
        return subprocess.run(argv, check=False, env=environment).returncode == 0

    if not uv.exists():
        done(*pip, "install", "--quiet", "-c", str(CONSTRAINTS), "uv")
    if uv.exists():
        # as pip does, the best version of all indexes and not of the first that has one
        alike = ["--python", str(VENV), "--index-strategy", "unsafe-best-match", *sources(pip)]
        if done(str(uv), "pip", "install", *quiet, *alike, *words):
            return True
        say("uv could not install the packages; pip tries it")
    return done(*pip, "install", "--no-compile", *quiet, *words)


def sources(pip: list[str]) -> list[str]:
    """Tell uv, in its own words, where pip was configured to look for packages."""
    told = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, check=False)
    found = []
    for line in told.stdout.splitlines():
        key, _, value = line.partition("=")
        option = SOURCES.get(key.rpartition(".")[2])
        for place in literal_eval(value).split() if option else ():
            found += [option, place]
    return found


def wanfarm(verb: str, extras: str, rest: list[str]) -> int:
    """Set up, then become a verb of the command line."""
    setup(extras, [])
    program = str(VENV / "bin" / "wanfarm")
    os.execv(program, [program, verb, *rest])  # noqa: S606 - no shell is meant


def demo(extras: str, rest: list[str]) -> int:
    """Render a first video with the miniature model."""
    return wanfarm("demo", extras, rest)


def up(extras: str, rest: list[str]) -> int:
    """Run the farm of this machine."""
    return wanfarm("up", extras, rest)


def down(extras: str, rest: list[str]) -> int:
    """Stop it."""
    return wanfarm("down", extras, rest)


def install_referees(pinned: Path) -> None:
    """Put the pinned packages that judge the farm from outside each into a folder of its own."""
    for pins in sorted(pinned.glob("*.txt")):
        folder = VENV / "referees" / pins.stem
        stamp = folder / "pins.txt"
        if stamp.exists() and stamp.read_bytes() == pins.read_bytes():
            continue
        shutil.rmtree(folder, ignore_errors=True)
        say(f"installing the referee {pins.stem}")
        alone = ["--no-deps"] if pins.read_text().startswith("# --no-deps") else []
        if not fetch(["--target", str(folder), *alone, "-r", str(pins)]):
            say(f"{pins.stem} could not be installed; its tests will be skipped")
            shutil.rmtree(folder, ignore_errors=True)
            continue
        shutil.copyfile(pins, stamp)


def test(extras: str, rest: list[str]) -> int:
    """Run all tests that need no GPU, or the folder T of them."""
    setup(extras, [])
    install_referees(REFEREES)
    folder = os.environ.get("T", "")
    if folder and not (ROOT / "tests" / folder).exists():
        names = sorted(path.name for path in (ROOT / "tests").iterdir() if path.is_dir())
        raise Refusal(f"T is {folder!r}. It names a folder of tests/: {', '.join(names)}.")
    command = [str(VENV / "bin" / "python"), "-m", "pytest", *([f"tests/{folder}"] * bool(folder))]
    # one more than there are cores: with two more nothing ends sooner, as no core is idle then
    beside = ["-n", str(min(MOST_BESIDE, 1 + (os.cpu_count() or 1))), "--dist", "loadfile"]
    beside.append("--no-loadscope-reorder")  # in the order of testpaths
    # tests and their ranks share the cores: threads that spin would keep each other waiting
    patient = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.run([*command, *beside, *rest], check=False, env=patient).returncode


def referees(extras: str, rest: list[str]) -> int:
    """Let programs from outside judge a farm that renders: all of them, or those named."""
    setup(extras, [])
    install_referees(REFEREES / "outside")
    program = [str(VENV / "bin" / "python"), "-m", "tests.referees"]
    return subprocess.run([*program, *rest], check=False).returncode


def chaos(extras: str, rest: list[str]) -> int:
    """Break a farm of four groups at random, then check what it promised."""
    setup(extras, [])
    program = [str(VENV / "bin" / "python"), "-m", "tests.chaos"]
    return subprocess.run([*program, *rest], check=False).returncode


def check(extras: str, _rest: list[str]) -> int:
    """Run every linter, to the end, and fail if one found something."""
    setup(extras, [])
    failed = []
    for name, *words in LINTERS:
        say(f"{name} {words[0]}" if words and not words[0].startswith("-") else name)
        program = str(VENV / "bin" / name)
        if subprocess.run([program, *words], check=False).returncode:
            failed.append(name)
    if failed:
        raise Refusal(f"{', '.join(failed)} found faults; they are listed above.")
    return 0


def screenshots(extras: str, _rest: list[str]) -> int:
    """Take the pictures of the docs again, from a farm that renders."""
    setup(extras, [])
    pytest = [str(VENV / "bin" / "python"), "-m", "pytest", "tests/browser/pictures.py"]
    return subprocess.run(pytest, check=False).returncode


def vendor(extras: str, _rest: list[str]) -> int:
    """Copy the pinned front-end releases in again; needs npm."""
    setup(extras, [])
    program = [str(VENV / "bin" / "python"), "deploy/vendor/vendor.py"]
    return subprocess.run(program, check=False).returncode


def secrets(_extras: str, _rest: list[str]) -> int:
    """Write the secrets of docker-compose.yml, once; what is there stays."""
    folder = ROOT / "secrets"
    folder.mkdir(mode=0o700, exist_ok=True)
    password = keep(folder / "postgres-password", token_hex(24))
    keep(folder / "database-url", f"postgresql://wanfarm:{password}@postgres/wanfarm")
    keep(folder / "secret-key", token_hex(32))
    keep(folder / "grafana-password", token_hex(12))
    return 0


def keep(path: Path, text: str) -> str:
    """Write a secret unless it is there; gives what the file holds."""
    if not path.exists():
        path.write_text(text)
        path.chmod(0o444)  # mounted as it is: the container's user must read it
    return path.read_text()


def clean(_extras: str, _rest: list[str]) -> int:
    """Delete .venv and everything that the farm of this folder keeps."""
    python = VENV / "bin" / "python"
    if runs(str(python)):
        subprocess.run([str(python), "-m", "cli.main", "down"], check=False)
        words = (
            "from pathlib import Path; from cli.embedded import discard; discard(Path('.wanfarm'))"
        )
        subprocess.run([str(python), "-c", words], check=False)
    for folder in (VENV, BOOT, ROOT / ".wanfarm"):
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def say(text: str) -> None:
    """Tell what is going on, apart from what programs print."""
    print(f"[setup] {text}", file=sys.stderr, flush=True)


COMMANDS = {
    "setup": setup,
    "demo": demo,
    "up": up,
    "down": down,
    "test": test,
    "chaos": chaos,
    "referees": referees,
    "check": check,
    "screenshots": screenshots,
    "secrets": secrets,
    "vendor": vendor,
    "clean": clean,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
