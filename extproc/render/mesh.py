"""What the meshes share: the sidecar's place in Kubernetes, and the resources around its Service."""

from __future__ import annotations

import re
from dataclasses import dataclass

from extproc.config.address import Address
from extproc.config.settings import Settings
from extproc.render.commented import Tree, because, dump_all

NAME = "aim-extproc"
"""The name of every rendered resource."""

GATEWAY_API = "gateway.networking.k8s.io"

DEFAULT_CA = f"{NAME}-ca"
"""The name of the Secret or ConfigMap with the CA of the Service's certificate, unless another is given."""

CA_OF_SERVICE = "A ConfigMap in the Service's namespace. Its key ca.crt holds the CA of the Service's certificate."
"""The comment on a reference to the CA."""

_SOCKET = Address(path="/run/extproc/extproc.sock")
_PORT = 50051
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")

_CLEAR = "WARNING: without --ca prompts cross the network in the clear, unless the mesh itself encrypts them."


@dataclass(frozen=True, slots=True)
class Place:
    """Where the guarded gateway and the sidecar are.

    `namespace` holds the gateway and its policies. If `sidecar` is true, the sidecar is in the gateway's pods, on a
    unix socket. Otherwise it is behind the Service `service`, NAME or NAME.NAMESPACE, with TLS by the CA `ca` unless
    that is empty. Raises ValueError, with a sentence for the operator, for invalid names.
    """

    namespace: str = "default"
    gateway: str = "llm"
    service: str = NAME
    ca: str = DEFAULT_CA
    sidecar: bool = False

    def __post_init__(self) -> None:
        parts = self.service.split(".")
        if len(parts) > 2 or not all(_LABEL.fullmatch(part) for part in parts):
            raise ValueError(f"service: {self.service!r} is not NAME or NAME.NAMESPACE")
        for option, value in (("namespace", self.namespace), ("gateway", self.gateway), ("ca", self.ca)):
            # Only the CA may be left out.
            if not _LABEL.fullmatch(value) and (value or option != "ca"):
                raise ValueError(f"{option}: {value!r} is not a name of lower-case letters, digits and dashes")

    @property
    def service_name(self) -> str:
        """The name of the Service."""
        return self.service.partition(".")[0]

    @property
    def service_namespace(self) -> str:
        """The namespace of the Service."""
        return self.service.partition(".")[2] or self.namespace

    @property
    def hostname(self) -> str:
        """The host name that the Service's certificate has to be for."""
        return f"{self.service_name}.{self.service_namespace}.svc"

    @property
    def tls(self) -> bool:
        """Whether the gateway uses TLS to the sidecar."""
        return bool(self.ca) and not self.sidecar

    def sockets(self, settings: Settings) -> list[Address]:
        """Return the unix socket of each worker; raises ValueError if the settings have TLS."""
        if settings.tls.cert_file is not None:
            raise ValueError("tls.cert_file: a unix socket between two containers of a pod has no TLS; remove it")
        first = settings.listen if settings.listen.path else _SOCKET
        return [first.for_worker(worker) for worker in range(settings.workers)]

    def ports(self, settings: Settings) -> list[int]:
        """Return the port of each worker, the same on the Service."""
        first = settings.listen.port or _PORT
        return [first + worker for worker in range(settings.workers)]

    def only_port(self, settings: Settings) -> int:
        """Return the Service's only port; raises ValueError if the settings have several workers."""
        if settings.workers > 1:
            raise ValueError("workers: this gateway sends to one port of a Service; use replicas, each with one worker")
        return self.ports(settings)[0]

    def backend_ref(self, port: int) -> Tree:
        """Return a reference, from the gateway's namespace, to `port` of the Service."""
        elsewhere = self.service_namespace != self.namespace
        where = {"namespace": self.service_namespace} if elsewhere else {}
        return {"name": self.service_name, **where, "port": port}


def notes(settings: Settings, place: Place, *, given: bool) -> list[str]:
    """Return warnings about settings and options that contradict each other.

    `given` says whether the settings come from a file; the defaults say nothing about the sidecar's TLS.
    """
    if place.sidecar:
        return [f"--ca {place.ca} is ignored: a unix socket has no TLS"] if place.ca not in ("", DEFAULT_CA) else []
    found = []
    has_tls = settings.tls.cert_file is not None
    if given and place.tls and not has_tls:
        found.append('the settings have no tls.cert_file; use --ca "", or set it')
    if has_tls and not place.tls:
        found.append('the settings have tls.cert_file; with --ca "" every call to the sidecar would fail')
    if settings.workers > 1:
        first, *_, last = place.ports(settings)
        found.append(
            f"workers: {settings.workers} needs the ports {first} to {last} on the Service, but the chart's has one: "
            "use replicas, each with one worker"
        )
    return found


def known_profile(settings: Settings, profile: str) -> str:
    """Return `profile`; raises ValueError if the settings have no profile of that name."""
    if profile and profile not in settings.profiles:
        known = ", ".join(settings.profiles)
        raise ValueError(
            f"profile: the settings have no profile {profile!r}, only {known}; pass your settings with --config"
        )
    return profile


def profiles_of_routes(settings: Settings, routes: list[str]) -> dict[str, str]:
    """Read `ROUTE=PROFILE` of each of `routes`; raises ValueError for anything else and for unknown profiles."""
    found: dict[str, str] = {}
    for text in routes:
        route, equals, profile = text.rpartition("=")
        if not equals or not route or not profile:
            raise ValueError(f"route: {text!r} is not ROUTE=PROFILE")
        if found.setdefault(route, known_profile(settings, profile)) != profile:
            raise ValueError(f"route: {route!r} is given more than one profile")
    return found


def labels(selector: list[str]) -> dict[str, str]:
    """Read `LABEL=VALUE` of each of `selector`; raises ValueError for anything else."""
    found: dict[str, str] = {}
    for text in selector:
        label, equals, value = text.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z0-9][-A-Za-z0-9_./]*", label) or not _VALUE.fullmatch(value):
            raise ValueError(f"selector: {text!r} is not LABEL=VALUE")
        found[label] = value
    return found


def gateway_ref(place: Place) -> Tree:
    """Return the reference by which a policy targets the gateway."""
    return {"group": GATEWAY_API, "kind": "Gateway", "name": place.gateway}


def resource(api: str, kind: str, spec: Tree, *, namespace: str, name: str = NAME, why: str = "") -> Tree:
    """Return the Kubernetes resource of `kind` with `spec`; `why` is its comment."""
    head = because(why, apiVersion=api) if why else {"apiVersion": api}
    return {**head, "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def backend_tls_policy(place: Place, target: Tree) -> Tree:
    """Return the Gateway API's policy for TLS to `target`, a reference within the Service's namespace."""
    spec = {
        "targetRefs": [target],
        "validation": {
            **because(
                CA_OF_SERVICE,
                caCertificateRefs=[{"group": "", "kind": "ConfigMap", "name": place.ca}],
            ),
            **because("The sidecar's certificate (tls.cert_file) has to be for this name.", hostname=place.hostname),
        },
    }
    return resource(f"{GATEWAY_API}/v1", "BackendTLSPolicy", spec, namespace=place.service_namespace)


def reference_grants(place: Place, group: str, kind: str, target: Tree | None = None) -> list[Tree]:
    """Return the permission for `kind` to reference `target`, if the Service is in another namespace.

    `target` is the Service itself unless it is given.
    """
    if place.sidecar or place.service_namespace == place.namespace:
        return []
    spec = {
        "from": [{"group": group, "kind": kind, "namespace": place.namespace}],
        "to": [target or {"group": "", "kind": "Service", "name": place.service_name}],
    }
    why = "The Service is in another namespace than the gateway, which has to allow the reference."
    return [resource(f"{GATEWAY_API}/v1beta1", "ReferenceGrant", spec, namespace=place.service_namespace, why=why)]


def print_resources(resources: list[Tree], *, mesh: str, place: Place, settings: Settings, notes: str = "") -> str:
    """Return `resources` as YAML; the header says which settings the sidecar needs."""
    listen = place.sockets(settings)[0] if place.sidecar else f"0.0.0.0:{place.ports(settings)[0]}"
    needs = f"The sidecar has to listen on {listen}" + (", with tls.cert_file and tls.key_file." if place.tls else ".")
    mtls = settings.tls.client_ca_file is not None and place.tls
    lines = [
        f"The Aim sidecar in {mesh}, for the gateway {place.gateway} in the namespace {place.namespace}.",
        f"Printed by `extproc render {mesh}`; print it again when the sidecar's settings change.",
        needs,
        *([] if place.tls or place.sidecar else [_CLEAR]),
        *(
            ["tls.client_ca_file: the gateway also needs a client certificate, which is not part of these resources."]
            if mtls
            else []
        ),
        *([notes] if notes else []),
    ]
    return dump_all(resources, header="\n".join(lines))
