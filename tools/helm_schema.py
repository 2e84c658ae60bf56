"""Writes the chart's values.schema.json: its own values around the processes' settings.

python tools/helm_schema.py            write it
python tools/helm_schema.py --check    exit 1 iff it is out of date
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from readahead.router.config import RouterConfig
from readahead.runtime.config import TelemetryConfig
from readahead.runtime.settings import json_schema
from readahead.services.config import WorkerConfig

CHART = Path(__file__).resolve().parent.parent / "deploy" / "helm" / "readahead"
SOURCE = CHART / "values.schema.in.yaml"
TARGET = CHART / "values.schema.json"

CONFIGS: Mapping[str, type[Any]] = {
    config.__name__: config for config in (RouterConfig, WorkerConfig, TelemetryConfig)
}


def rendered() -> str:
    """The schema as it should be on disk."""
    definitions: dict[str, Any] = {}
    schema = _expanded(yaml.safe_load(SOURCE.read_text(encoding="utf-8")), definitions)
    schema["definitions"] |= definitions
    return json.dumps(schema, indent=2) + "\n"


def _expanded(node: Any, definitions: dict[str, Any]) -> Any:
    """The node with `$config` replaced, and every object closed that does not say it is open."""
    if isinstance(node, list):
        return [_expanded(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$config" in node:
        return _embedded(node["$config"], node.get("without", ()), definitions)
    expanded = {name: _expanded(value, definitions) for name, value in node.items()}
    if expanded.get("type") == "object":
        expanded.setdefault("additionalProperties", False)
    return expanded


def _embedded(name: str, without: list[str], definitions: dict[str, Any]) -> dict[str, Any]:
    """One dataclass's schema; those it refers to go to the shared definitions."""
    schema: dict[str, Any] = _plain(json_schema(CONFIGS[name]))
    for inner, definition in schema.pop("$defs", {}).items():
        assert definitions.setdefault(inner, definition) == definition, f"two different {inner}"
    schema["properties"] = {
        key: value for key, value in schema["properties"].items() if key not in without
    }
    required = [key for key in schema.pop("required", []) if key not in without]
    return schema | ({"required": required} if required else {})


def _plain(node: Any) -> Any:
    """Without titles, which repeat the names, and with draft 7's references."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    plain = {
        name: _plain(value)
        for name, value in node.items()
        if not (name == "title" and isinstance(value, str))
    }
    if "$ref" in plain:
        # Draft 7 ignores whatever stands beside a reference.
        return {"$ref": plain["$ref"].replace("#/$defs/", "#/definitions/")}
    return plain


def main(arguments: list[str]) -> int:
    """Writes the schema, or checks it."""
    text = rendered()
    if "--check" in arguments:
        return int(TARGET.read_text(encoding="utf-8") != text)
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
