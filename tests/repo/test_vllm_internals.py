"""vLLM has what we rely on, and we rely on nothing that is not declared."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import repo_tools
from repo_tree import PACKAGE_ROOTS, ROOT, shown, sources
from vllm_uses import Use, key_of, touches, uses_in, uses_of

from readahead.services.engine.vllm_internal import Feature, Internal
from readahead.services.engine.vllm_internals import (
    INTERNALS,
    PINNED_VERSION,
    check_internals,
    problems,
    short,
    split,
)
from readahead.services.engine.vllm_sources import VllmSources, installed_folder

VERSIONS = ROOT / "docs" / "reference" / "vllm-versions.md"
OURS = (*PACKAGE_ROOTS[:-1], "tests", "benchmarks", "experiments", "tools")


@pytest.fixture(scope="module")
def vllm() -> VllmSources:
    folder = installed_folder()
    assert folder is not None
    return VllmSources(folder)


def _declared(path: Path) -> list[Internal]:
    key = key_of(path)
    return [each for each in INTERNALS if key in each.where or key.split("/")[0] in each.where]


def _our_files() -> list[Path]:
    return [path for path in sources() if path.relative_to(ROOT).parts[0] in OURS]


def test_the_installed_vllm_has_it_all(vllm: VllmSources) -> None:
    """Each name, with its parameters, and each wording."""
    assert vllm.version == PINNED_VERSION
    assert [problem.what for problem in problems(vllm)] == []


@pytest.mark.parametrize("path", [p for p in _our_files() if touches(p)], ids=shown)
def test_nothing_undeclared_is_used(path: Path, vllm: VllmSources) -> None:
    """Each use that the source shows is declared for that file.

    If this fails: add the name, or the file, to the declaration in vllm_internals_*.py that it
    belongs to, with what it is used for and what is to be re-checked when vLLM changes.
    """
    declared = _declared(path)
    names = {(short(each.owner), split(name)[0]) for each in declared for name in each.names}
    modules = {(each.owner, split(name)[0]) for each in declared for name in each.names}
    wordings = " ".join(wording for each in declared for wording in each.wording)
    parameters = {n: p or [] for e in declared for n, p in map(split, e.names)}

    def is_declared(use: Use) -> bool:
        if use.is_override:
            if not any(vllm.has(owner, use.name) for owner in use.owner.split(" ")):
                return True  # a method of our own
            return use.name in parameters
        if use.owner:
            return (use.owner, use.name) in names | modules
        if use.keywords:
            return set(use.keywords) <= set(parameters.get(use.name, ()))
        return use.name in parameters or use.name in wordings

    undeclared = {
        f"{shown(path)}:{use.line} {f'{use.owner}.' if use.owner else ''}{use.name}"
        for use in uses_of(path)
        if not is_declared(use)
    }
    assert sorted(undeclared) == []


def test_strings_name_what_is_declared() -> None:
    """Modules, variables and metrics of vLLM's in files that import nothing of it."""
    undeclared = []
    for path in _our_files():
        declared = _declared(path)
        names = {split(name)[0] for each in declared for name in each.names}
        wordings = " ".join(wording for each in declared for wording in each.wording)
        if not touches(path) and not path.name.startswith(("vllm_", "test_vllm_internals")):
            undeclared += [
                f"{shown(path)}:{use.line} {use.name}"
                for use in uses_of(path)
                if use.name not in names and use.name not in wordings
            ]
    assert undeclared == []


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("from vllm.v1.request import Invented", "Invented"),
        ("import vllm.invented", "invented"),
        ("class S(AsyncScheduler):\n    def f(self):\n        return self.invented", "invented"),
        ("class S(AsyncScheduler):\n    def f(self):\n        self.invented = 1", "invented"),
        ("class S(AsyncScheduler):\n    def reset_prefix_cache(self): ...", "reset_prefix_cache"),
        ("class S(_Scheduler):\n    def f(self):\n        super().invented()", "invented"),
        ("def f(request: Any):\n    return request.prompt_token_ids", "prompt_token_ids"),
        ("def f(core):\n    return core.scheduler.connector.invented", "invented"),
        ("def f():\n    AsyncScheduler(invented=1)", "invented"),
        ("def f(more):\n    a = {}\n    a['invented'] = 1\n    AsyncScheduler(**a)", "invented"),
        ("AsyncScheduler.invented", "invented"),
        ("os.environ['VLLM_INVENTED'] = '1'", "VLLM_INVENTED"),
        ("import_module('vllm.invented.module')", "invented.module"),
        ("values['vllm:invented_total']", "vllm:invented"),
    ],
)
def test_each_kind_of_use_is_seen(code: str, name: str) -> None:
    """Whatever the code does with something of vLLM's, it is among the uses found."""
    head = "import os\nfrom vllm.v1.core.sched.async_scheduler import AsyncScheduler\n"
    assert name in {use.name for use in uses_in(ast.parse(head + code), holds_objects=True)}
    known = {use.name for use in uses_in(ast.parse(head), holds_objects=True)}
    assert known == {"AsyncScheduler"}


def test_declarations_are_used_where_they_say() -> None:
    """Each file named exists, and has the name in it; of a folder, one of its files."""
    stale = []
    texts: dict[str, str] = {}
    for path in _our_files():
        if not path.name.startswith(("vllm_internal", "test_vllm_internals")):
            text = path.read_text(encoding="utf-8")
            texts[key_of(path)] = text
            folder = key_of(path).split("/")[0]
            texts[folder] = texts.get(folder, "") + text
    for internal in INTERNALS:
        for where in internal.where:
            names = [split(name)[0] for name in internal.names]
            stale += [
                f"{where}: {short(internal.owner)}.{name}"
                for name in names
                if not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", texts[where])
            ]
    assert stale == []


def test_a_purpose_names_a_thing_once() -> None:
    """No two declarations of a feature have the same name of the same owner."""
    seen: set[tuple[str, str, str]] = set()
    for internal in INTERNALS:
        for name in (*internal.names, *internal.wording):
            key = (internal.feature, internal.owner, name)
            assert key not in seen, key
            seen.add(key)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("def _preempt_request(", "def _preempt(", "Scheduler._preempt_request"),
        ("drop_stale_output: bool = False", "drop: bool = False", "Scheduler._preempt_request("),
        ("timestamp: float, drop", "timestamp: float, why: str, drop", "Scheduler._preempt_req"),
        ("self.kv_holding_waiting = ", "self.holding = ", "Scheduler.kv_holding_waiting"),
        ("token_budget = self.max_num_sch", "token_budget = self._sch", "Scheduler: token_budget"),
        ("class Scheduler(", "class BatchScheduler(", "sched.scheduler.Scheduler"),
    ],
)
def test_a_change_inside_vllm_is_found(
    before: str, after: str, expected: str, vllm: VllmSources, tmp_path: Path
) -> None:
    """A name that is gone, other parameters, one more that is needed, another meaning."""
    file = tmp_path / "v1" / "core" / "sched" / "scheduler.py"
    file.parent.mkdir(parents=True)
    text = (vllm.folder / "v1" / "core" / "sched" / "scheduler.py").read_text(encoding="utf-8")
    assert before in text
    file.write_text(text.replace(before, after), encoding="utf-8")
    owner = "vllm.v1.core.sched.scheduler:Scheduler"
    internals = [each for each in INTERNALS if each.owner == owner]
    found = [each.what for each in problems(VllmSources(tmp_path), internals=internals)]
    assert any(expected in what for what in found), found


def test_a_start_on_another_vllm_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The error names it, and the version to install."""
    (tmp_path / "__init__.py").touch()
    (tmp_path / "_version.py").write_text("__version__ = version = '9.9.9'\n")
    name = "readahead.services.engine.vllm_internals.installed_folder"
    monkeypatch.setattr(name, lambda: tmp_path)
    expected = rf"vLLM 9\.9\.9 lacks .*Install vLLM {re.escape(PINNED_VERSION)}\."
    with pytest.raises(RuntimeError, match=expected):
        check_internals([Feature.SCHEDULER])


def test_the_page_is_current() -> None:
    """The table of internals is made from the declarations; the other has a row per feature."""
    assert repo_tools.is_current("render_vllm"), "run: python tools/render_vllm.py"
    text = VERSIONS.read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\w -]+) \|", text, re.MULTILINE)
    wanted = [str(feature) for feature in Feature if feature is not Feature.TESTS]
    assert [row for row in rows if row in wanted] == wanted
    assert PINNED_VERSION in text
