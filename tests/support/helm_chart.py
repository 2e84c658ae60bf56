"""Renders the chart as `helm template` does, without a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import helm_python
import yaml

CHART = Path(__file__).resolve().parents[2] / "deploy" / "helm" / "readahead"
VALUE_SETS = tuple(sorted(path.name for path in (CHART / "ci").glob("*-values.yaml")))
RELEASE = "demo"

MODEL = {"model": {"volume": {"persistentVolumeClaim": {"claimName": "models"}}}}
"""The least a user must say."""

Manifest = dict[str, Any]


def values_of(value_set: str) -> dict[str, Any]:
    """One of the chart's own examples."""
    loaded: dict[str, Any] = yaml.safe_load((CHART / "ci" / value_set).read_text(encoding="utf-8"))
    return loaded


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Later values over earlier ones, as `helm -f a.yaml -f b.yaml`."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            under = result.get(key)
            if isinstance(value, Mapping) and isinstance(under, Mapping):
                result[key] = merged(under, value)
            else:
                result[key] = value
    return result


def render(values: Mapping[str, Any]) -> list[Manifest]:
    """Every object of a release.

    Raises:
        helm_python.HelmError: the schema or a template refuses the values.
    """
    with helm_python.Chart.load(CHART) as chart:
        files = chart.render(dict(values), name=RELEASE, namespace="inference")
    return [
        manifest
        for name, text in sorted(files.items())
        if name.endswith(".yaml")
        for manifest in yaml.safe_load_all(text)
        if manifest
    ]


@lru_cache
def rendered(value_set: str) -> tuple[Manifest, ...]:
    """Every object of one of the chart's examples; not to be changed by the caller."""
    return tuple(render(values_of(value_set)))


def of_kind(manifests: list[Manifest] | tuple[Manifest, ...], kind: str) -> list[Manifest]:
    """The objects of one kind."""
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def named(manifests: list[Manifest] | tuple[Manifest, ...], kind: str, component: str) -> Manifest:
    """The one object of a kind and component."""
    (manifest,) = (
        manifest
        for manifest in of_kind(manifests, kind)
        if manifest["metadata"]["name"] == f"{RELEASE}-readahead-{component}"
    )
    return manifest


def containers(manifest: Manifest) -> list[dict[str, Any]]:
    """All containers of a Deployment's pods."""
    pod = manifest["spec"]["template"]["spec"]
    return [*pod["containers"], *pod.get("initContainers", ())]


def environment(container: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, str]:
    """A container's environment as the kubelet would make it; `fields` by fieldPath or secret."""
    made: dict[str, str] = {}
    for entry in container["env"]:
        match entry.get("valueFrom"):
            case None:
                value = entry["value"]
                for name, known in made.items():
                    value = value.replace(f"$({name})", known)
            case {"fieldRef": {"fieldPath": path}}:
                value = fields[path]
            case {"secretKeyRef": {"name": name}}:
                value = fields[name]
            case other:
                raise AssertionError(f"unknown source {other}")
        made[entry["name"]] = value
    return made
