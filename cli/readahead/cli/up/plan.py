"""Which processes make up the cluster, with their settings and addresses."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

from readahead.cli.up.options import UpOptions, free_ports
from readahead.cli.up.tiny_model import TinyModel
from readahead.core.cluster import Role
from readahead.router.config import DoorsConfig, ModelConfig, RouterConfig
from readahead.runtime import settings
from readahead.runtime.config import MembershipConfig, TelemetryConfig
from readahead.services.config import EngineConfig, KvConfig, WorkerConfig
from readahead.services.engine.vllm_scheduler_names import STOCK

T = TypeVar("T", RouterConfig, WorkerConfig)

CLUSTER_FILE: Final = "cluster.json"
"""Addresses of a run, for programs."""
TINY_PROFILE: Final = "tiny-cpu"
"""Iteration times of the tiny model on a processor; engines correct them as they run."""
GPU_MEMORY_SHARE: Final = 0.9
"""Of one GPU, for all workers on it together; vLLM's own default for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlan:
    """One worker process."""

    name: str
    config: WorkerConfig
    gpu: int | None

    @property
    def grpc_address(self) -> str:
        """host:port of its gRPC server."""
        return f"{self.config.host}:{self.config.port}"

    @property
    def metrics_port(self) -> int:
        """Where it serves /metrics and /health."""
        return self.config.telemetry.metrics_port


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The whole cluster."""

    redis_port: int | None
    """Of a redis-server of our own; None: somebody else's is used."""
    router: RouterConfig
    workers: tuple[WorkerPlan, ...]
    folder: Path

    def log(self, name: str) -> Path:
        """Log of a process."""
        return self.folder / f"{name}.log"

    def config_file(self, name: str) -> Path:
        """Settings of a process, as JSON, which is YAML."""
        return self.folder / f"{name}.json"

    def summary(self) -> dict[str, object]:
        """Addresses of everything."""
        doors = self.router.doors
        return {
            "supervisor_pid": os.getpid(),
            "http": f"{doors.host}:{doors.http_port}",
            "grpc": f"{doors.host}:{doors.grpc_port}",
            "redis": self.router.membership.redis_url,
            "model": self.router.model.name,
            "engine": self.workers[0].config.engine.kind,
            "workers": [
                {
                    "name": worker.name,
                    "role": str(worker.config.role),
                    "grpc": worker.grpc_address,
                    "metrics": f"127.0.0.1:{worker.metrics_port}",
                }
                for worker in self.workers
            ],
        }


def make_plan(
    options: UpOptions,
    *,
    model: ModelConfig,
    folder: Path,
    gpus: int,
    environ: Mapping[str, str],
) -> Plan:
    """Settles ports and settings of every process, and writes them into the folder.

    Raises:
        SettingsError: a READAHEAD_ROUTER__… or READAHEAD_WORKER__… variable is wrong.
    """
    redis_port, http_port, grpc_port, *worker_ports = free_ports(
        3 + 2 * (options.prefill + options.decode)
    )
    membership = MembershipConfig(redis_url=options.redis or f"redis://127.0.0.1:{redis_port}/0")
    router = RouterConfig(
        model=model,
        doors=DoorsConfig(
            http_port=options.http_port or http_port, grpc_port=options.grpc_port or grpc_port
        ),
        membership=membership,
        telemetry=TelemetryConfig(otlp_endpoint=options.otlp, log_format="console"),
        drain_s_max=options.drain_s_max,
    )
    configs = _worker_configs(
        options, model=model, membership=membership, ports=worker_ports, gpus=gpus
    )
    plan = Plan(
        redis_port=None if options.redis else redis_port,
        router=_settled(router, folder / "router.json", "READAHEAD_ROUTER", environ),
        workers=tuple(
            WorkerPlan(
                name=config.worker_id,
                config=_settled(
                    config, folder / f"{config.worker_id}.json", "READAHEAD_WORKER", environ
                ),
                gpu=index % gpus if gpus else None,
            )
            for index, config in enumerate(configs)
        ),
        folder=folder,
    )
    (folder / CLUSTER_FILE).write_text(json.dumps(plan.summary(), indent=2) + "\n")
    return plan


def _worker_configs(
    options: UpOptions,
    *,
    model: ModelConfig,
    membership: MembershipConfig,
    ports: Sequence[int],
    gpus: int,
) -> Iterator[WorkerConfig]:
    engine = EngineConfig(
        kind=options.engine,
        model_path=model.path,
        model_name=model.name,
        # vLLM's "auto" turns float32 weights into bfloat16, in which greedy output depends on the
        # batch; the tiny model is there to be compared.
        dtype=TinyModel().dtype if options.model is None else "auto",
        gpu_memory_share=_gpu_share(options.prefill + options.decode, gpus),
        policy=options.policy,
        latency_profile="" if gpus else _latency_profile(options),
    )
    names = [(Role.PREFILL, number) for number in range(options.prefill)]
    names += [(Role.DECODE, number) for number in range(options.decode)]
    for (role, number), port, metrics_port in zip(names, ports[::2], ports[1::2], strict=True):
        name = f"{role}-{number}"
        yield WorkerConfig(
            role=role,
            worker_id=name,
            port=port,
            engine=replace(engine, iteration_log=_iteration_log(options.iteration_logs, name)),
            kv=KvConfig(backend=options.kv),
            membership=membership,
            telemetry=TelemetryConfig(
                otlp_endpoint=options.otlp, metrics_port=metrics_port, log_format="console"
            ),
            drain_s_max=options.drain_s_max,
        )


def _latency_profile(options: UpOptions) -> str:
    """Policies of ours plan by iteration times. Those of the tiny model on a processor are known;
    those of a model that is given, the settings may say."""
    is_known = options.model is None and options.engine == "vllm" and options.policy != STOCK
    return TINY_PROFILE if is_known else ""


def _iteration_log(folder: Path | None, name: str) -> str:
    return "" if folder is None else str(folder.resolve() / f"{name}.iterations.jsonl")


def _settled(config: T, file: Path, prefix: str, environ: Mapping[str, str]) -> T:
    """The settings with the environment's over them; written down for the process and for people.

    What the zygote forks gets its settings from here and not from the environment.
    """
    _write(file, config)
    settled = settings.load(
        type(config), file=file, environ=environ, prefix=prefix, overrides=()
    ).config
    _write(file, settled)
    return settled


def process_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What every process of a cluster on one machine gets."""
    defaults = {
        # Several engines share the cores: a pool of threads in each makes all of them slower.
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
        # A crash in native code then leaves a traceback in the log.
        "PYTHONFAULTHANDLER": "1",
    }
    return defaults | dict(environ)


def _gpu_share(workers: int, gpus: int) -> float:
    """Each worker's part of a GPU's memory, for workers dealt out to the GPUs in turn."""
    if not gpus:
        return GPU_MEMORY_SHARE
    return GPU_MEMORY_SHARE / -(-workers // gpus)


def _write(path: Path, config: RouterConfig | WorkerConfig) -> None:
    path.write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")
