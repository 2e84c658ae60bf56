"""Makes proto/gen from the .proto files, or with --check compares it.

The generator is the oldest that the pinned vLLM's protobuf admits: generated code refuses to
import on a runtime older than its generator. It lives in an environment of its own.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "proto"
GENERATED = SOURCES / "gen"
ENVIRONMENT = ROOT / "build" / "proto-venv"
STAMP = ENVIRONMENT / ".stamp"
PINS = ("grpcio-tools==1.71.2", "protobuf==5.29.6", "mypy-protobuf==3.6.0", "setuptools<80")


def main() -> int:
    """Returns the exit code: 1 iff --check found a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail on drift")
    is_check = parser.parse_args().check
    _ensure_generator()
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "gen"
        made.mkdir()
        _generate(made)
        if not is_check:
            shutil.rmtree(GENERATED, ignore_errors=True)
            shutil.copytree(made, GENERATED)
            return 0
        drift = _drift(made)
    for path in drift:
        print(f"error: proto/gen/{path} is not what the .proto files say: make proto")
    return int(bool(drift))


def _ensure_generator() -> None:
    wanted = "\n".join(PINS)
    if STAMP.is_file() and STAMP.read_text() == wanted:
        return
    venv.EnvBuilder(clear=True, symlinks=True, with_pip=True).create(ENVIRONMENT)
    pip = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--disable-pip-version-check", *PINS], check=True)
    STAMP.write_text(wanted)


def _generate(target: Path) -> None:
    protos = sorted(SOURCES.glob("readahead/v1/*.proto"))
    binaries = ENVIRONMENT / "bin"
    command = [
        str(binaries / "python"), "-m", "grpc_tools.protoc", f"-I{SOURCES}",
        f"--python_out={target}", f"--grpc_python_out={target}",
        f"--mypy_out=quiet:{target}", f"--mypy_grpc_out=quiet:{target}",
        *(str(path) for path in protos),
    ]  # fmt: skip
    env = dict(os.environ, PATH=f"{binaries}{os.pathsep}{os.environ['PATH']}")
    # Elsewhere than in the repository: the generator's plug-ins read a pyproject.toml they find.
    subprocess.run(command, check=True, env=env, cwd=target.parent)
    for path in protos:
        if "\nservice " not in path.read_text():
            for suffix in ("py", "pyi"):
                stub = target / path.relative_to(SOURCES).with_name(
                    f"{path.stem}_pb2_grpc.{suffix}"
                )
                stub.unlink(missing_ok=True)


def _drift(made: Path) -> list[Path]:
    """Files that differ, or are on one side only."""
    sides = [
        {path.relative_to(root) for path in root.rglob("*.py*") if path.suffix in {".py", ".pyi"}}
        for root in (made, GENERATED)
    ]
    both = sides[0] & sides[1]
    changed = {
        path for path in both if not filecmp.cmp(made / path, GENERATED / path, shallow=False)
    }
    return sorted(changed | (sides[0] ^ sides[1]))


if __name__ == "__main__":
    sys.exit(main())
