"""Settings come from a file, the environment and overrides, and say where they are wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import pytest

from readahead.core.config import Checked, require
from readahead.runtime.settings import Loaded, SettingsError, json_schema, leaves, load


class Colour(StrEnum):
    RED = "red"
    NO = "no"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner(Checked):
    wait_s_max: float = 1.5
    names: tuple[str, ...] = ()
    sizes: tuple[int, ...] = (1,)
    is_on: bool = False

    def __post_init__(self) -> None:
        require("inner.wait_s_max", self.wait_s_max, least=0.1, most=60)
        if self.is_on and not self.names:
            raise ValueError("inner.names must not be empty where is_on is set")


@dataclass(frozen=True, slots=True, kw_only=True)
class Middle(Checked):
    inner: Inner = field(default_factory=Inner)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer(Checked):
    colour: Colour
    title: str = ""
    count: int = 3
    middle: Middle = field(default_factory=Middle)


def read(
    tmp_path: Path,
    text: str | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Sequence[str] = (),
) -> Loaded[Outer]:
    file = None
    if text is not None:
        file = tmp_path / "settings.yaml"
        file.write_text(text, encoding="utf-8")
    return load(
        Outer, file=file, environ=environ or {}, prefix="READAHEAD_TEST", overrides=overrides
    )


def problem(tmp_path: Path, *arguments: object) -> tuple[str, str, str]:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, *arguments)  # type: ignore[arg-type]  # passed on as they are
    assert len(caught.value.problems) == 1, caught.value
    only = caught.value.problems[0]
    assert str(caught.value) == f"{only.key or 'settings'} ({only.origin}): {only.message}"
    return only.key, only.origin.replace(str(tmp_path), "…"), only.message


def test_each_origin_wins_over_the_one_before(tmp_path: Path) -> None:
    """File under environment under overrides, of which the last wins; the rest is default."""
    loaded = read(
        tmp_path,
        "colour: red\ntitle: file\ncount: 1\nmiddle: {inner: {wait_s_max: 2, sizes: [4, 5]}}",
        {
            "READAHEAD_TEST__COUNT": "2",
            "READAHEAD_TEST__MIDDLE__INNER__WAIT_S_MAX": "3",
            "PATH": "x",
        },
        ["middle.inner.wait_s_max=4", "middle.inner.wait_s_max=5"],
    )
    assert loaded.config == Outer(
        colour=Colour.RED,
        title="file",
        count=2,
        middle=Middle(inner=Inner(wait_s_max=5.0, sizes=(4, 5))),
    )
    file = f"file {tmp_path / 'settings.yaml'}"
    assert dict(loaded.sources) == {
        "colour": file,
        "title": file,
        "count": "environment READAHEAD_TEST__COUNT",
        "middle.inner.wait_s_max": "--set",
        "middle.inner.names": "default",
        "middle.inner.sizes": file,
        "middle.inner.is_on": "default",
    }
    assert list(loaded.sources) == list(leaves(loaded.config))


def test_defaults_alone(tmp_path: Path) -> None:
    """No file, an empty file and empty sections all mean the defaults."""
    for text in (None, "", "# nothing", "middle:\n", "middle:\n  inner:\n"):
        loaded = read(tmp_path, text, {}, ["colour=red"])
        assert loaded.config == Outer(colour=Colour.RED)
        assert set(loaded.sources.values()) == {"default", "--set"}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("title", "70", "70"),
        ("title", "null", "null"),
        ("title", "a=b: [c", "a=b: [c"),
        ("title", "", ""),
        ("colour", "no", Colour.NO),
        ("count", "0x10", 16),
        ("count", "-2", -2),
        ("middle.inner.wait_s_max", "1e1", 10.0),
        ("middle.inner.wait_s_max", "7", 7.0),
        ("middle.inner.is_on", "false", False),
        ("middle.inner.is_on", "off", False),
        ("middle.inner.names", "a:1, b:2,", ("a:1", "b:2")),
        ("middle.inner.names", "70", ("70",)),
        ("middle.inner.names", "[a, 'b,c']", ("a", "b,c")),
        ("middle.inner.names", "", ()),
        ("middle.inner.sizes", "1,2", (1, 2)),
    ],
)
def test_a_text_is_read_as_its_field_is(tmp_path: Path, key: str, text: str, value: object) -> None:
    """Strings are taken as they are, whatever YAML would make of them; lists may have commas."""
    first = [] if key == "colour" else ["colour=red"]
    by_override = read(tmp_path, None, {}, [*first, f"{key}={text}"])
    assert leaves(by_override.config)[key] == value
    name = "READAHEAD_TEST__" + key.upper().replace(".", "__")
    by_environment = read(tmp_path, None, {name: text}, first)
    assert leaves(by_environment.config)[key] == value


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("colour: red\ncuont: 1", "cuont", "unknown key; did you mean count?"),
        (
            "colour: red\nmiddle: {inner: {wait_s: 1}}",
            "middle.inner.wait_s",
            "unknown key; did you mean middle.inner.wait_s_max?",
        ),
        ("colour: red\nmiddle: {zzz: 1}", "middle.zzz", "unknown key; middle has inner"),
        ("colour: red\ncount: {a: 1}", "count.a", "unknown key; count is a single value"),
        ("colour: red\nmiddle: 5", "middle", "is a section, with inner"),
        ("5", "", "must be a mapping, is a int"),
        (
            "colour: red\nmiddle: {inner: {wait_s_max: 0}}",
            "middle.inner.wait_s_max",
            "inner.wait_s_max must be in [0.1, 60], got 0.0",
        ),
        (
            "colour: red\nmiddle: {inner: {wait_s_max: .nan}}",
            "middle.inner.wait_s_max",
            "inner.wait_s_max must be in [0.1, 60], got nan",
        ),
        (
            "colour: red\nmiddle: {inner: {is_on: true}}",
            "middle.inner.names",
            "inner.names must not be empty where is_on is set",
        ),
        ("colour: red\ntitle: 70", "title", "Input should be a valid string, got 70"),
        ("colour: blue", "colour", "Input should be 'red' or 'no', got 'blue'"),
        (
            "colour: red\nmiddle: {inner: {names: [1]}}",
            "middle.inner.names",
            "Input should be a valid string, got 1",
        ),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, key: str, message: str) -> None:
    """Key, file and what is allowed; also where a check between two fields failed."""
    assert problem(tmp_path, text) == (key, "file …/settings.yaml", message)


def test_a_mistake_elsewhere_names_its_origin(tmp_path: Path) -> None:
    """The variable, or --set."""
    name = "READAHEAD_TEST__MIDDLE__INNER__WAIT_S_MAX"
    red = "colour: red"
    bound = "inner.wait_s_max must be in [0.1, 60], got 61.0"
    key = "middle.inner.wait_s_max"
    assert problem(tmp_path, red, {name: "61"}) == (key, f"environment {name}", bound)
    assert problem(tmp_path, red, {}, [f"{key}=61"]) == (key, "--set", bound)
    assert problem(tmp_path, red, {"READAHEAD_TEST__CUONT": "1"})[:2] == (
        "cuont",
        "environment READAHEAD_TEST__CUONT",
    )
    assert problem(tmp_path, red, {}, ["count"]) == (
        "count",
        "--set",
        "must be key=value, got 'count'",
    )
    assert problem(tmp_path, red, {}, ["count=[1"])[:2] == ("count", "--set")
    assert problem(tmp_path, red, {}, ["count=many"]) == (
        "count",
        "--set",
        "Input should be a valid integer, unable to parse string as an integer, got 'many'",
    )


def test_what_must_be_set_is_named(tmp_path: Path) -> None:
    """A field without a default."""
    assert problem(tmp_path) == ("colour", "nowhere set", "must be set")


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    """One run shows them all."""
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, "colour: blue\ncount: x\nmiddle: {inner: {wait_s_max: 0}}")
    assert [problem.key for problem in caught.value.problems] == [
        "colour",
        "count",
        "middle.inner.wait_s_max",
    ]


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    """YAML would forget the first one."""
    key, origin, message = problem(tmp_path, "colour: red\ncount: 1\ncount: 2")
    assert (key, origin) == ("", "file …/settings.yaml")
    assert "'count' is there twice" in message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Missing, or not YAML."""
    with pytest.raises(SettingsError, match=r"nowhere\.yaml\): cannot be read"):
        load(
            Outer,
            file=tmp_path / "nowhere.yaml",
            environ={},
            prefix="READAHEAD_TEST",
            overrides=(),
        )
    assert problem(tmp_path, "colour: [red")[2].startswith("is not YAML")


def test_anchors_and_merges_work(tmp_path: Path) -> None:
    """YAML's own means of not repeating oneself are not taken for a repeated key."""
    text = "colour: red\nmiddle:\n  inner: {<<: {wait_s_max: 2, is_on: false}, wait_s_max: 3}"
    assert read(tmp_path, text).config.middle.inner.wait_s_max == 3.0


def test_service_variables_of_kubernetes_are_not_settings(tmp_path: Path) -> None:
    """A Service named readahead-test puts READAHEAD_TEST_PORT and others into every pod."""
    environ = {
        "READAHEAD_TEST_PORT": "tcp://10.0.0.1:80",
        "READAHEAD_TEST_SERVICE_HOST": "10.0.0.1",
    }
    assert read(tmp_path, "colour: red", environ).config == Outer(colour=Colour.RED)


def test_the_schema_is_closed_at_every_level() -> None:
    """What the loader refuses, the schema refuses."""
    schema = json_schema(Outer)
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["colour"]
    sections = [part for part in schema["$defs"].values() if part["type"] == "object"]
    assert len(sections) == 2
    assert all(section["additionalProperties"] is False for section in sections)
