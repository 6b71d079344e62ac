"""pyproject.toml and the locks agree, and what is installed is all that runs."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.meta.repository import ROOT

PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)")


def pins(name: str) -> dict[str, set[Version]]:
    """Canonical name -> the versions a lock holds (more than one where Python versions differ)."""
    found: dict[str, set[Version]] = {}
    for line in (ROOT / "locks" / name).read_text("utf-8").splitlines():
        if match := PIN.match(line):
            found.setdefault(canonicalize_name(match[1]), set()).add(Version(match[2]))
    return found


def requirements() -> list[tuple[str, str]]:
    """(lock, requirement) for everything that pyproject.toml asks for and that is locked."""
    project, groups = PYPROJECT["project"], PYPROJECT["dependency-groups"]
    extras = [text for extra in project["optional-dependencies"].values() for text in extra]
    wanted = [("dev.txt", text) for text in (*project["dependencies"], *extras, *groups["dev"])]
    wanted += [("build.txt", text) for text in groups["build"]]
    wanted += [("clients/python.txt", text) for text in groups["clients"]]
    wanted += [("clients/litellm-proxy.txt", text) for text in groups["litellm-proxy"]]
    return wanted + [("pip.txt", text) for text in groups["bootstrap"]]


@pytest.mark.parametrize(("lock", "text"), requirements())
def test_every_requirement_is_locked_at_a_version_that_fits(lock: str, text: str) -> None:
    requirement = Requirement(text)
    locked = pins(lock).get(canonicalize_name(requirement.name), set())
    assert locked, f"{requirement.name} is not in locks/{lock}; run make lock"
    assert all(version in requirement.specifier for version in locked)


@pytest.mark.parametrize("lock", ["dev.txt", "build.txt", "pip.txt", "clients/python.txt", "clients/litellm-proxy.txt"])
def test_every_pin_has_hashes(lock: str) -> None:
    blocks = re.split(r"^(?=[A-Za-z0-9])", (ROOT / "locks" / lock).read_text("utf-8"), flags=re.MULTILINE)
    bare = [block.split()[0] for block in blocks if PIN.match(block) and "--hash=sha256:" not in block]
    assert not bare


def test_npm_packages_are_locked_with_hashes_and_bound_to_no_registry() -> None:
    folder = ROOT / "locks" / "clients" / "node"
    wanted = json.loads((folder / "package.json").read_text("utf-8"))
    locked = json.loads((folder / "lock.json").read_text("utf-8"))["packages"]
    assert locked.pop("")["dependencies"] == wanted["dependencies"], "run make lock"
    for name, package in locked.items():
        assert package["integrity"].startswith("sha512-"), name
        assert "resolved" not in package, name


def test_both_packages_and_their_data_are_in_the_wheel() -> None:
    wheel = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    for folder in wheel["packages"]:
        assert (ROOT / folder / "__init__.py").exists()
        assert (ROOT / folder / "py.typed").exists(), f"{folder} has types, but nobody is told"
