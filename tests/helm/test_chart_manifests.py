"""Laws that every rendered object obeys, in every example."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest
from helm_chart import MODEL, VALUE_SETS, containers, merged, named, of_kind, render, rendered

from readahead.runtime.rpc.health import SERVICE

VERSIONS = {"redis-external-values.yaml": ("1.31", "1.37")}
"""The oldest and the newest Kubernetes; an OCI image as a volume came with 1.31."""

CUSTOM = {"ServiceMonitor"}
"""Kinds of the Prometheus operator, which Kubernetes' own schemas lack."""

every_set = pytest.mark.parametrize("value_set", VALUE_SETS)


@every_set
def test_kubernetes_accepts_every_object(value_set: str) -> None:
    """Each object passes the API server's schema, without unknown fields."""
    for version in VERSIONS.get(value_set, ("1.30", "1.37")):
        for manifest in rendered(value_set):
            if manifest["kind"] not in CUSTOM:
                kubernetes_validate.validate(manifest, version, strict=True)


@every_set
def test_names_are_unique_and_short(value_set: str) -> None:
    """No two objects of a kind share a name, and each name is a DNS label."""
    seen = [(m["kind"], m["metadata"]["name"]) for m in rendered(value_set)]
    assert len(seen) == len(set(seen))
    assert all(len(name) <= 63 for _, name in seen)


def test_a_long_release_name_is_cut() -> None:
    """Names stay DNS labels whatever the release is called."""
    manifests = render(merged(MODEL, {"fullnameOverride": "x" * 80}))
    assert all(len(m["metadata"]["name"]) <= 63 for m in manifests)


@every_set
def test_selectors_find_their_pods_and_no_others(value_set: str) -> None:
    """Deployments, Services, PDBs, policies and monitors each select exactly one component."""
    manifests = rendered(value_set)
    pods = {
        d["metadata"]["name"]: d["spec"]["template"]["metadata"]["labels"]
        for d in of_kind(manifests, "Deployment")
    }
    for manifest in manifests:
        match manifest["kind"]:
            case "Deployment" | "PodDisruptionBudget":
                selector = manifest["spec"]["selector"]["matchLabels"]
            case "Service":
                selector = manifest["spec"]["selector"]
            case "NetworkPolicy":
                selector = manifest["spec"]["podSelector"]["matchLabels"]
            case _:
                continue
        found = [name for name, labels in pods.items() if selector.items() <= labels.items()]
        assert found == [manifest["metadata"]["name"]], (manifest["kind"], selector)


@every_set
def test_ports_by_name_exist(value_set: str) -> None:
    """A Service's or policy's named port is a port of the pods it selects."""
    manifests = rendered(value_set)
    for deployment in of_kind(manifests, "Deployment"):
        name = deployment["metadata"]["name"]
        ports = {port["name"] for c in containers(deployment) for port in c["ports"]}
        for service in of_kind(manifests, "Service"):
            if service["metadata"]["name"] == name:
                assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
        for policy in of_kind(manifests, "NetworkPolicy"):
            if policy["metadata"]["name"] == name:
                rules = [rule for i in policy["spec"]["ingress"] for rule in i.get("ports", ())]
                assert {rule["port"] for rule in rules} <= ports


@every_set
def test_each_component_may_be_disrupted_one_at_a_time(value_set: str) -> None:
    """Router and both pools have a disruption budget; none of them forbids a node's drain."""
    budgets = of_kind(rendered(value_set), "PodDisruptionBudget")
    components = {b["metadata"]["labels"]["app.kubernetes.io/component"] for b in budgets}
    assert components == {"router", "prefill", "decode"}
    assert all(budget["spec"]["maxUnavailable"] not in {0, "0%"} for budget in budgets)


@every_set
def test_nobody_has_rights(value_set: str) -> None:
    """No role of any kind is made or bound, and no pod carries a token."""
    manifests = rendered(value_set)
    kinds = {manifest["kind"] for manifest in manifests}
    assert not {kind for kind in kinds if "Role" in kind}
    for account in of_kind(manifests, "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False
    for deployment in of_kind(manifests, "Deployment"):
        assert deployment["spec"]["template"]["spec"]["automountServiceAccountToken"] is False


@every_set
def test_containers_are_confined(value_set: str) -> None:
    """No container runs as root, gains rights, or writes outside its volumes."""
    for deployment in of_kind(rendered(value_set), "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        for container in containers(deployment):
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"]["drop"] == ["ALL"]
            assert set(context["capabilities"].get("add", ())) <= {"IPC_LOCK"}
            writable = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
            assert "/tmp" in writable
            assert writable <= {"/tmp", "/dev/shm"}


@every_set
def test_containers_are_sized_and_probed(value_set: str) -> None:
    """Each container asks for CPU and memory, has a memory limit, and all three probes."""
    for deployment in of_kind(rendered(value_set), "Deployment"):
        for container in containers(deployment):
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()


@every_set
def test_liveness_depends_on_nobody(value_set: str) -> None:
    """Liveness asks for the open port alone: not for health, which Redis and peers can change."""
    for deployment in of_kind(rendered(value_set), "Deployment"):
        for container in containers(deployment):
            probe = container["livenessProbe"]
            assert "tcpSocket" in probe
            assert probe["failureThreshold"] * probe.get("periodSeconds", 10) >= 30


@every_set
def test_readiness_means_admitting(value_set: str) -> None:
    """A router is ready when /health says so, a worker when its gRPC health does."""
    manifests = rendered(value_set)
    (router,) = containers(named(manifests, "Deployment", "router"))
    assert router["readinessProbe"]["httpGet"]["path"] == "/health"
    for role in ("prefill", "decode"):
        (worker,) = containers(named(manifests, "Deployment", role))
        ports = {port["name"]: port["containerPort"] for port in worker["ports"]}
        assert worker["readinessProbe"]["grpc"]["port"] == ports["grpc"]
        assert worker["readinessProbe"]["grpc"].get("service", "") in {"", SERVICE}


@every_set
def test_a_model_has_time_to_load(value_set: str) -> None:
    """Workers may take half an hour to start before the kubelet gives up on them."""
    for role in ("prefill", "decode"):
        deployment = named(rendered(value_set), "Deployment", role)
        (worker,) = containers(deployment)
        probe = worker["startupProbe"]
        startup_s = probe["failureThreshold"] * probe["periodSeconds"]
        assert startup_s >= 1800
        assert deployment["spec"]["progressDeadlineSeconds"] > startup_s


def test_pools_are_placed_apart() -> None:
    """In the production example prompts run on A100 nodes and output on H100 nodes."""
    manifests = rendered("production-values.yaml")
    prefill = named(manifests, "Deployment", "prefill")["spec"]["template"]["spec"]
    decode = named(manifests, "Deployment", "decode")["spec"]["template"]["spec"]
    assert "A100" in prefill["nodeSelector"]["nvidia.com/gpu.product"]
    (term,) = decode["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert all("H100" in product for product in term["matchExpressions"][0]["values"])


@pytest.mark.parametrize("role", ["prefill", "decode"])
@pytest.mark.parametrize(
    ("count", "resource", "expected"),
    [
        (0, "nvidia.com/gpu", {}),
        (2, "nvidia.com/gpu", {"nvidia.com/gpu": 2}),
        (1, "nvidia.com/mig-3g.40gb", {"nvidia.com/mig-3g.40gb": 1}),
    ],
)
def test_gpus_are_asked_for(role: str, count: int, resource: str, expected: dict[str, Any]) -> None:
    """Extended resources appear under requests and limits alike, or not at all."""
    values = {role: {"gpu": {"count": count, "resource": resource}}}
    (worker,) = containers(named(render(merged(MODEL, values)), "Deployment", role))
    for part in ("requests", "limits"):
        asked = {k: v for k, v in worker["resources"][part].items() if "nvidia" in k}
        assert asked == expected


def test_workers_have_shared_memory() -> None:
    """/dev/shm is a memory volume of the stated size."""
    values = {"decode": {"sharedMemorySize": "12Gi"}}
    pod = named(render(merged(MODEL, values)), "Deployment", "decode")["spec"]["template"]["spec"]
    (volume,) = (v for v in pod["volumes"] if v["name"] == "shared-memory")
    assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": "12Gi"}
    (mount,) = (m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "shared-memory")
    assert mount["mountPath"] == "/dev/shm"


def test_autoscaled_routers_have_no_fixed_count() -> None:
    """With an autoscaler the Deployment leaves `replicas` to it."""
    manifests = rendered("production-values.yaml")
    assert "replicas" not in named(manifests, "Deployment", "router")["spec"]
    scaler = named(manifests, "HorizontalPodAutoscaler", "router")
    target = scaler["spec"]["scaleTargetRef"]["name"]
    assert target == named(manifests, "Deployment", "router")["metadata"]["name"]


def test_tls_is_mounted_and_probed() -> None:
    """With a Secret the doors get its files, and the probe speaks TLS."""
    (router,) = containers(named(rendered("production-values.yaml"), "Deployment", "router"))
    assert "/etc/readahead/tls" in {mount["mountPath"] for mount in router["volumeMounts"]}
    assert router["readinessProbe"]["httpGet"]["scheme"] == "HTTPS"
    (plain,) = containers(named(rendered("minimal-values.yaml"), "Deployment", "router"))
    assert plain["readinessProbe"]["httpGet"]["scheme"] == "HTTP"


def test_doors_that_ask_for_certificates_are_probed_without_one() -> None:
    """The kubelet cannot show a certificate, so readiness falls back to the open port."""
    values = {"router": {"config": {"doors": {"tls": {"client_authority_file": "/ca.crt"}}}}}
    manifests = render(merged(MODEL, values))
    (router,) = containers(named(manifests, "Deployment", "router"))
    assert router["readinessProbe"]["tcpSocket"] == {"port": "http"}


def test_scrapes_find_named_ports() -> None:
    """Each ServiceMonitor names a port of the Service it selects."""
    manifests = rendered("production-values.yaml")
    monitors = of_kind(manifests, "ServiceMonitor")
    assert len(monitors) == 3
    for monitor in monitors:
        selector = monitor["spec"]["selector"]["matchLabels"]
        (service,) = (
            s
            for s in of_kind(manifests, "Service")
            if selector.items() <= s["metadata"]["labels"].items()
        )
        (endpoint,) = monitor["spec"]["endpoints"]
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
