"""Makes .venv from the pinned requirement files; does nothing where it is up to date.

Standard library only: this runs before anything is installed. An install that was interrupted is
begun anew, and two that start together take turns.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / "bin" / "python"
PACKAGES_STAMP = ENVIRONMENT / ".packages-stamp"
PROJECT_STAMP = ENVIRONMENT / ".project-stamp"
INSTALLING = ENVIRONMENT / ".installing"
LOCK = ROOT / "build" / "environment.lock"

PYTHON_OLDEST = (3, 11)
PYTHON_NEWEST = (3, 13)
FAILURE_LINES = 30


class UnmakeableError(Exception):
    """The environment cannot be made; the message says why."""


def main() -> int:
    """Brings the environment up to date; returns the exit code."""
    try:
        _check_python()
        with _lock():
            _bring_up_to_date()
    except UnmakeableError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; the next start begins anew", file=sys.stderr)
        return 130
    return 0


def _check_python() -> None:
    found = sys.version_info[:2]
    if not PYTHON_OLDEST <= found <= PYTHON_NEWEST:
        raise UnmakeableError(
            f"Python 3.11, 3.12 or 3.13 is needed, this is {platform.python_version()} "
            f"({sys.executable}); name another one: make env PYTHON=python3.11"
        )


@contextmanager
def _lock() -> Iterator[None]:
    """One install at a time; the kernel drops the lock with the process."""
    LOCK.parent.mkdir(exist_ok=True)
    with LOCK.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another process makes the environment; waiting for it …", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _bring_up_to_date() -> None:
    first, rest = _requirement_files()
    packages = _digest([*first, *rest], extra=platform.python_version())
    project = _digest([ROOT / "pyproject.toml"], extra=packages)
    if _read(PACKAGES_STAMP) != packages:
        started = time.perf_counter()
        _make_venv()
        INSTALLING.touch()
        PROJECT_STAMP.unlink(missing_ok=True)
        PACKAGES_STAMP.unlink(missing_ok=True)
        if first:
            _pip(_arguments(first), "torch")
        _pip(["--no-deps", *_arguments(rest)], "packages")
        _compile()
        PACKAGES_STAMP.write_text(packages)
        INSTALLING.unlink()
        print(f"packages installed in {time.perf_counter() - started:.0f} s", flush=True)
    if _read(PROJECT_STAMP) != project:
        editable = ["--no-deps", "--no-build-isolation", "--editable", str(ROOT)]
        _pip(editable, "readahead itself")
        PROJECT_STAMP.write_text(project)


def _requirement_files() -> tuple[list[Path], list[Path]]:
    """Files installed with their dependencies, and files that name every dependency themselves."""
    folder = ROOT / "requirements"
    device = os.environ.get("READAHEAD_DEVICE") or ("gpu" if _has_gpu() else "cpu")
    if device == "gpu":
        return [], [folder / "gpu.txt", folder / "dev.txt"]
    if device == "cpu":
        return [folder / "torch-cpu.txt"], [folder / "cpu.txt", folder / "dev.txt"]
    raise UnmakeableError(f"READAHEAD_DEVICE must be cpu or gpu, got {device!r}")


def _has_gpu() -> bool:
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    return subprocess.run([program, "-L"], capture_output=True, check=False).returncode == 0


def _make_venv() -> None:
    """Keeps a sound environment, so that a changed pin does not cost the rest."""
    if INSTALLING.exists():
        print("an earlier install was interrupted; starting over", flush=True)
        shutil.rmtree(ENVIRONMENT)
    if _venv_version() != platform.python_version():
        print(f"making .venv with Python {platform.python_version()}", flush=True)
        try:
            venv.EnvBuilder(clear=True, symlinks=True, with_pip=True).create(ENVIRONMENT)
        except (OSError, subprocess.CalledProcessError) as error:
            raise UnmakeableError(
                f"{sys.executable} cannot make a virtual environment ({error}); "
                "on Debian and Ubuntu: apt install python3-venv"
            ) from error


def _venv_version() -> str:
    """Python of the environment that is there; empty iff there is none that runs."""
    if not PYTHON.exists():
        return ""
    ask = [str(PYTHON), "-c", "import pip, platform; print(platform.python_version())"]
    return subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip()


def _arguments(files: Sequence[Path]) -> list[str]:
    return [part for file in files for part in ("--requirement", str(file))]


def _pip(arguments: Sequence[str], what: str) -> None:
    """Installs, with one line of progress per package on a terminal and a few elsewhere."""
    command = [
        str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--no-input",
        "--no-compile", "--progress-bar", "off", *arguments,
    ]  # fmt: skip
    print(f"installing {what} …", flush=True)
    lines: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        seen = 0
        for line in process.stdout:
            lines.append(line.rstrip())
            if line.startswith(("Collecting ", "Requirement already satisfied: ")):
                seen += 1
            _show(line, seen)
    if process.returncode:
        tail = "\n".join(lines[-FAILURE_LINES:])
        raise UnmakeableError(f"pip could not install {what}:\n{tail}")


def _compile() -> None:
    """With all processors, where pip would use one; some packages hold files of other languages."""
    print("compiling …", flush=True)
    command = [str(PYTHON), "-m", "compileall", "-qq", "-j", "0", str(ENVIRONMENT / "lib")]
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _show(line: str, seen: int) -> None:
    name = line.split()[1] if line.startswith("Collecting ") else ""
    if line.startswith("Installing collected packages"):
        _print_over("  unpacking; this takes the longest …\n")
    elif name and sys.stdout.isatty():
        _print_over(f"  {seen:3} {name}")
    elif name and seen % 40 == 1:
        _print_over(f"  {seen:3} {name} …\n")


def _print_over(text: str) -> None:
    """Replaces the line on a terminal."""
    start = "\r\x1b[K" if sys.stdout.isatty() else ""
    print(f"{start}{text}", end="", flush=True)


def _digest(files: Sequence[Path], *, extra: str) -> str:
    digest = hashlib.sha256(extra.encode())
    for file in files:
        digest.update(file.name.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _read(file: Path) -> str:
    return file.read_text() if file.is_file() else ""


if __name__ == "__main__":
    sys.exit(main())
