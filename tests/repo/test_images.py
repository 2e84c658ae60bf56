"""The Dockerfile fits the tree, and each image holds what its process imports."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field

import pytest
import repo_tools
import yaml
from repo_tree import ROOT

DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"
TARGETS = ("router", "worker-cpu", "worker-gpu")


@dataclass(slots=True)
class Stage:
    """One FROM and what follows it."""

    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all_of(self, keyword: str) -> list[str]:
        """Arguments of every instruction of a kind."""
        return [arguments for word, arguments in self.instructions if word == keyword]


def _instructions() -> list[tuple[str, str]]:
    """Keyword and arguments, continued lines joined, comments dropped."""
    lines = [
        line
        for line in DOCKERFILE.read_text(encoding="utf-8").splitlines()
        if not line.lstrip().startswith("#")
    ]
    found = []
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        if line.strip():
            keyword, _, arguments = line.strip().partition(" ")
            found.append((keyword, " ".join(arguments.split())))
    return found


def _stages() -> dict[str, Stage]:
    stages: dict[str, Stage] = {}
    current: Stage | None = None
    for keyword, arguments in _instructions():
        if keyword == "FROM":
            base, _, name = arguments.partition(" AS ")
            current = stages[name] = Stage(base=base, name=name)
        elif current is not None:
            current.instructions.append((keyword, arguments))
    return stages


def test_every_instruction_is_one_that_docker_knows() -> None:
    """The file parses: known keywords, named stages, bases that exist above them."""
    known = {"ARG", "FROM", "RUN", "COPY", "ENV", "USER", "WORKDIR", "EXPOSE", "ENTRYPOINT", "CMD"}
    assert {keyword for keyword, _ in _instructions()} <= known
    arguments = {
        text.partition("=")[0]: text.partition("=")[2]
        for keyword, text in _instructions()
        if keyword == "ARG"
    }
    seen: set[str] = set()
    for stage in _stages().values():
        assert stage.name
        variable = re.fullmatch(r"\$\{(\w+)\}", stage.base)
        assert (variable and variable[1] in arguments) or stage.base in seen, stage.base
        seen.add(stage.name)
    for image in arguments.values():
        tag = image.rpartition(":")[2]
        assert re.search(r"\d+\.\d+\.\d+", tag), f"{image} is not pinned"


def test_every_target_is_there() -> None:
    """The three images of a cluster can be built."""
    assert set(TARGETS) <= _stages().keys()


def _admitted(source: str) -> bool:
    """Whether .dockerignore lets a path into the build."""
    ignore = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text(encoding="utf-8")
    exceptions = [line[1:] for line in ignore.splitlines() if line.startswith("!")]
    return any(source.rstrip("/") == e or source.startswith(f"{e}/") for e in exceptions)


def test_every_copied_path_exists() -> None:
    """Each COPY takes a file that is in the tree and in the build, or from a stage above."""
    seen: set[str] = set()
    for stage in _stages().values():
        for arguments in stage.all_of("COPY"):
            *sources, target = shlex.split(arguments)
            assert target
            if sources[0].startswith("--from="):
                assert sources[0].removeprefix("--from=") in seen
                continue
            for source in sources:
                assert (ROOT / source).exists(), source
                assert _admitted(source), f"{source} is ignored"
        seen.add(stage.name)


def test_the_wheel_has_every_root() -> None:
    """What pyproject.toml packs is what the build stage copies."""
    copied = {
        source.rstrip("/")
        for arguments in _stages()["wheel"].all_of("COPY")
        for source in shlex.split(arguments)[:-1]
    }
    import tomllib

    with (ROOT / "pyproject.toml").open("rb") as file:
        build = tomllib.load(file)["tool"]["hatch"]["build"]
    assert set(build["dev-mode-dirs"]) <= copied


@pytest.mark.parametrize("target", TARGETS)
def test_images_do_not_run_as_root(target: str) -> None:
    """Each image's user is the chart's, and its entry point the command the chart calls."""
    stage = _stages()[target]
    values = yaml.safe_load((ROOT / "deploy/helm/readahead/values.yaml").read_text("utf-8"))
    context = values["podSecurityContext"]
    assert stage.all_of("USER") == [f"{context['runAsUser']}:{context['runAsGroup']}"]
    assert stage.all_of("ENTRYPOINT") == ['["readahead"]']
    keywords = [keyword for keyword, _ in stage.instructions]
    assert "RUN" not in keywords[keywords.index("USER") :]


def test_no_image_names_a_package_index() -> None:
    """Where packages come from is the builder's business."""
    assert not re.search(r"https?://", DOCKERFILE.read_text(encoding="utf-8"))


def test_the_gpu_image_has_the_pinned_vllm() -> None:
    """Base tag, check in the build and pyproject name one version."""
    text = DOCKERFILE.read_text(encoding="utf-8")
    pinned = re.search(r'"vllm==([\d.]+)"', (ROOT / "pyproject.toml").read_text("utf-8"))
    assert pinned
    assert f"vllm-openai:v{pinned[1]}\n" in text
    assert f"== '{pinned[1]}'" in text


def test_requirements_of_the_images_are_current() -> None:
    """They are the subset of cpu.txt that the extras need."""
    assert repo_tools.is_current("image_requirements"), "run: python tools/image_requirements.py"


IMPORTS = """
import sys
from importlib import metadata
from pathlib import Path
from packaging.utils import canonicalize_name

pins = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
held = {canonicalize_name(pin.partition("==")[0]) for pin in pins if "==" in pin} | {"readahead"}
owners = metadata.packages_distributions()

class Absent:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        names = {canonicalize_name(owner) for owner in owners.get(top, ())}
        if names and not names & held:
            raise ModuleNotFoundError(f"{top} is not in the image", name=top)

sys.meta_path.insert(0, Absent())
for module in sys.argv[2:]:
    __import__(module)
"""


@pytest.mark.parametrize(
    ("file", "modules"),
    [
        (
            "router.txt",
            ["readahead.cli.main", "readahead.cli.serve", "readahead.router.app", "uvicorn"],
        ),
        ("worker-gpu.txt", ["readahead.cli.serve", "readahead.services.worker.app"]),
    ],
)
def test_an_image_holds_what_its_process_imports(file: str, modules: list[str]) -> None:
    """With every package outside the image hidden, the process's modules still import."""
    modules = [*modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter"]
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, str(ROOT / "requirements" / file), *modules],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
