"""Generated code imports on the oldest runtimes that the project admits."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from repo_tree import GENERATED, ROOT, files

STAMPS = {
    "protobuf": r"Domain\.PUBLIC,\s*(\d+),\s*(\d+),\s*(\d+)",
    "grpcio": r"GRPC_GENERATED_VERSION = '(\d+)\.(\d+)\.(\d+)'",
}


def _floor(package: str) -> Version:
    with (ROOT / "pyproject.toml").open("rb") as file:
        wanted = [Requirement(d) for d in tomllib.load(file)["project"]["dependencies"]]
    (requirement,) = (r for r in wanted if r.name == package)
    (lower,) = (s.version for s in requirement.specifier if s.operator == ">=")
    return Version(lower)


@pytest.mark.parametrize("package", STAMPS)
def test_stamp_is_not_above_the_floor(package: str) -> None:
    """Generated code refuses an older runtime than its own stamp, so that is the floor."""
    found = [
        Version(".".join(match))
        for path in files()
        if path.is_relative_to(GENERATED) and path.suffix == ".py"
        for match in re.findall(STAMPS[package], path.read_text(encoding="utf-8"))
    ]
    assert found
    assert max(found) <= _floor(package)


def test_every_proto_has_its_code() -> None:
    """Each .proto has its modules, and no module outlives its .proto."""
    protos = {
        p.relative_to(ROOT / "proto").with_suffix("") for p in files() if p.suffix == ".proto"
    }
    modules = {
        p.relative_to(GENERATED).with_name(p.name.removesuffix("_pb2.py"))
        for p in files()
        if p.is_relative_to(GENERATED) and p.name.endswith("_pb2.py")
    }
    assert protos == modules
