"""Copies the pinned front-end releases into the repository and writes down what they are."""

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent.parent
SHIPPED: Final = ROOT / "api" / "static" / "vendor"
FOR_TESTS: Final = ROOT / "tests" / "browser" / "vendor"
# What may reach a user's browser; the copyleft of axe-core stays with the tests.
ALLOWED: Final = frozenset({"0BSD", "MIT", "ISC", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0"})


@dataclass(frozen=True, slots=True)
class Package:
    """One release: which of its files go where."""

    name: str
    folder: Path
    files: tuple[str, ...]


PACKAGES: Final = (
    Package("htmx.org", SHIPPED / "htmx", ("dist/htmx.min.js", "LICENSE")),
    Package("axe-core", FOR_TESTS / "axe-core", ("axe.min.js", "LICENSE", "LICENSE-3RD-PARTY.txt")),
)


def main() -> int:
    """Install from the lock, copy, and write both manifests."""
    npm = shutil.which("npm")
    if npm is None:
        sys.stderr.write("npm is missing. Only whoever updates a release needs it.\n")
        return 1
    subprocess.run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=HERE, check=True)
    for target in (SHIPPED, FOR_TESTS):
        packages = [_copy(one) for one in PACKAGES if one.folder.parent == target]
        text = json.dumps({"packages": packages}, indent=2) + "\n"
        (target / "VENDOR.json").write_text(text)
    return 0


def _copy(package: Package) -> dict[str, Any]:
    source = HERE / "node_modules" / package.name
    card = json.loads((source / "package.json").read_text())
    if package.folder.parent == SHIPPED and card["license"] not in ALLOWED:
        raise SystemExit(f"{package.name} is {card['license']}, which is not on the list.")
    package.folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, str] = {}
    for name in package.files:
        target = package.folder / Path(name).name
        shutil.copyfile(source / name, target)
        digest = hashlib.sha256(target.read_bytes()).hexdigest()
        files[f"{package.folder.name}/{target.name}"] = digest
    return {
        "name": package.name,
        "version": card["version"],
        "licence": card["license"],
        "sha256": files,
    }


if __name__ == "__main__":
    raise SystemExit(main())
