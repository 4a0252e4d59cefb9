"""What the layout promises and no linter checks: sizes, one reader, one writer, one place."""

import ast
import functools
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("api", "bench", "cli", "migrations", "mini", "shared", "worker")
MOST_LINES = 400
READ = {".py", ".html", ".css", ".js", ".mako"}


def sources(*folders: str, kinds: set[str] = frozenset({".py"})) -> list[Path]:
    """Our own files below some folders."""
    found = (path for folder in folders for path in (ROOT / folder).rglob("*"))
    ours = (path for path in found if not {"vendor", "__pycache__"} & set(path.parts))
    return sorted(path for path in ours if path.suffix in kinds and path.is_file())


@functools.cache
def nodes(path: Path) -> list[tuple[ast.AST, str]]:
    """Every node of a module, with the name of the function around it."""
    found, stack = [], [(ast.parse(path.read_text()), "")]
    while stack:
        node, inside = stack.pop()
        found.append((node, inside))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = node.name
        stack.extend((child, inside) for child in ast.iter_child_nodes(node))
    return found


def dotted(node: ast.AST) -> str:
    return ast.unparse(node) if isinstance(node, ast.Attribute | ast.Name) else ""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_no_file_is_longer_than_a_reader_can_hold():
    lines = {
        name_of(path): len(path.read_text().splitlines())
        for path in sources(*ROOMS, "deploy", "tests", kinds=READ)
    }

    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def test_the_environment_is_read_in_one_place():
    allowed = {"shared/machinery/settings.py", "worker/ranks/group.py", "cli/processes.py"}

    readers = {
        name_of(path)
        for path in sources(*ROOMS)
        for node, _ in nodes(path)
        if dotted(node) in {"os.environ", "os.environb", "os.getenv"} or imports_environment(node)
    }

    assert readers <= allowed


def imports_environment(node: ast.AST) -> bool:
    is_of_os = isinstance(node, ast.ImportFrom) and node.module == "os"
    return is_of_os and any(alias.name in {"environ", "getenv"} for alias in node.names)


def test_the_state_of_a_video_is_written_by_move_and_by_the_first_insert_only():
    writers = {
        (name_of(path), inside)
        for path in sources(*ROOMS)
        for node, inside in nodes(path)
        if writes_state(node)
    }

    assert writers == {("shared/jobs/ledger.py", "move"), ("shared/jobs/arrivals.py", "_video")}


def writes_state(node: ast.AST) -> bool:
    """A keyword of `values()`, a key of a dict of columns, an assignment, or SQL that does it."""
    match node:
        case ast.Call(func=ast.Attribute(attr="values"), keywords=keywords):
            return any(keyword.arg == "state" for keyword in keywords)
        case ast.Dict(keys=keys):
            named = {key.value for key in keys if isinstance(key, ast.Constant)}
            return {"state", "attempts_left"} <= named or {"state", "lease_until"} <= named
        case ast.Assign(targets=[ast.Attribute(attr="state", value=ast.Name(id=owner))]):
            return owner in {"video", "row"}
        case ast.Constant(value=str(text)):
            return "UPDATE videos" in text and "SET" in text
    return False


def test_the_api_names_who_does_a_deed_to_whatever_writes_it_down():
    """What takes an `actor` leaves an audit row for it; without one it would leave none."""
    deeds = {
        (path.stem, node.name)
        for path in sources("shared/jobs")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
        and not node.name.startswith("_")
        and "actor" in {arg.arg for arg in [*node.args.args, *node.args.kwonlyargs]}
        and node.name != "carry_out"
    }

    calls = [
        (name_of(path), node)
        for path in sources("api")
        for node, _ in nodes(path)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and (dotted(node.func.value), node.func.attr) in deeds
    ]

    called = {(dotted(node.func.value), node.func.attr) for _, node in calls}
    assert {"make", "revoke", "drain", "resume", "close", "delete"} <= {name for _, name in deeds}
    assert called == deeds
    assert [
        (where, ast.unparse(node))
        for where, node in calls
        if "actor" not in {word.arg for word in node.keywords}
    ] == []


def test_collectives_are_called_in_one_room():
    collectives = {"all_reduce", "all_gather", "all_to_all", "broadcast", "broadcast_object_list"}
    collectives |= {"barrier", "all_gather_into_tensor", "all_to_all_single", "reduce_scatter"}
    collectives |= {"gather", "scatter", "send", "recv", "isend", "irecv", "all_gather_object"}

    users = {
        name_of(path)
        for path in sources(*ROOMS)
        for node, _ in nodes(path)
        if isinstance(node, ast.Attribute)
        and node.attr in collectives
        and dotted(node.value) in {"dist", "distributed", "torch.distributed"}
    }

    assert users
    assert all(user.startswith("worker/engine/parallel/") for user in users)


@pytest.mark.parametrize("module", ["worker.app", "worker.upkeep", "api.app", "cli.main"])
def test_a_program_that_renders_nothing_never_loads_torch(module):
    heavy = "{'torch', 'diffusers', 'transformers'}"
    code = f"import {module}, sys; sys.exit(', '.join({heavy} & set(sys.modules)) or None)"

    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_rank_loads_torch_only_when_it_builds_its_engine():
    code = "import worker.ranks.child, sys; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_importing_a_module_does_nothing():
    """No handle, thread or file is made by an import: programs are built at their edge."""
    code = "import threading, worker.app, worker.upkeep, api.app; print(threading.active_count())"

    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert ran.stdout.split() == ["1"]


def test_every_package_is_shipped_checked_and_ruled():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    packages = {p.parent.name for p in ROOT.glob("*/__init__.py")} | {"cli"}

    assert packages == set(ROOMS)
    assert set(config["setuptools"]["packages"]["find"]["include"]) == {f"{r}*" for r in ROOMS}
    assert set(config["importlinter"]["root_packages"]) == packages
    assert set(config["basedpyright"]["include"]) == packages - {"migrations"}


def test_every_folder_of_tests_is_run_by_the_test_command():
    paths = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    holding = {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("tests/*/test_*.py")}

    assert holding == {*paths["testpaths"]}


def test_every_folder_of_modules_is_a_package():
    """One without `__init__.py` is not installed with the others."""
    folders = {path.parent for path in sources(*ROOMS)}

    assert [name_of(f) for f in folders if not (f / "__init__.py").exists()] == []


@pytest.mark.parametrize("path", sources(*ROOMS), ids=name_of)
def test_a_module_opens_with_a_sentence_of_its_trade(path):
    if path.parent.name == "versions" and path.name == "__init__.py":
        return
    sentence = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\n")[0]

    assert sentence.endswith((".", "?"))


def test_the_import_contracts_hold():
    lint_imports = Path(sys.executable).with_name("lint-imports")

    ran = subprocess.run(
        [lint_imports, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert ran.returncode == 0, ran.stdout
