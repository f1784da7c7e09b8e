"""The sidecar's gRPC service in the test's own process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from extproc.aim.client import AimClient
from extproc.config.settings import Settings
from extproc.processor.servicer import ExternalProcessor
from extproc.processor.stream import PATIENT, Patience
from extproc.serve.listener import grpc_server
from extproc.telemetry.metrics import Telemetry


class Sidecar:
    """A running service and its port."""

    def __init__(self, service: ExternalProcessor, server: grpc.aio.Server, port: int) -> None:
        self.service = service
        self.server = server
        self.port = port

    def metric(self, name: str, **labels: str) -> float:
        """Return a sample's value; 0 if there is none."""
        return self.service.telemetry.registry.get_sample_value(name, labels) or 0.0


def settings_for(aim_base: str, **changes: Any) -> Settings:
    """Return settings that point at a scripted Aim."""
    aim = {"base_url": aim_base, "api_key": "test-key", **changes.pop("aim", {})}
    return Settings.model_validate({"aim": aim, **changes})


@asynccontextmanager
async def sidecar(
    settings: Settings, patience: Patience = PATIENT, *, ping_seconds: float = 20.0
) -> AsyncIterator[Sidecar]:
    """Serve on a free port within the context; ping Aim's idle sessions every `ping_seconds`."""
    telemetry = Telemetry()
    telemetry.keep_audit_log(settings)
    async with (
        AimClient(settings, ping_seconds=ping_seconds) as client,
        ExternalProcessor(settings, client, telemetry, patience) as service,
    ):
        server = grpc_server(settings)
        server.add_generic_rpc_handlers((service.handler(),))
        status = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(status, server)
        await status.set("", health_pb2.HealthCheckResponse.SERVING)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield Sidecar(service, server, port)
        finally:
            await server.stop(0)
            telemetry.use_audit_log(None)
