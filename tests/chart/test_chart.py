"""The chart says of each service what its configuration needs and its contracts allow, and Kubernetes would take it."""

import ast
import dataclasses
import importlib
import json
import os
import subprocess
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from gatefold.edge.v1 import policy_pb2
from google.api import annotations_pb2
from google.protobuf.descriptor import MethodDescriptor

from libs import config
from libs.config import ConfigError, Secret
from libs.process import ProcessConfig
from libs.telemetry import TelemetryConfig

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "gatefold"
HELM = os.environ.get("HELM", "helm")
EXAMPLE = ("-f", str(CHART / "example-values.yaml"))
OLDEST, NEWEST = "1.30", "1.37"
"""Versions of Kubernetes: what Chart.yaml asks for, and the last whose schemas are there."""
SERVICES = sorted(path.parent.name for path in (ROOT / "services").glob("*/__main__.py"))
SHARED_CONTRACTS = {"clock", "events", "privacy"}
"""Served by every service with tenants' rows: the gateway has none."""
CUSTOM_KINDS = {"Certificate", "PodMonitor", "PrometheusRule"}
"""Not of Kubernetes itself, so that its schemas do not know them."""
ALL_OPTIONS = (
    "metrics.podMonitor=true",
    "metrics.rules=true",
    "edge.otlp=true",
    "metrics.annotations=true",
    "defaults.settings.otlp_endpoint=http://traces:4318",
)

Manifest = dict[str, Any]
Arrow = tuple[str, str]


def helm(*arguments: str, version: str = NEWEST) -> subprocess.CompletedProcess[str]:
    command = [HELM, "template", "gatefold", str(CHART), "--kube-version", version, *EXAMPLE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def manifests() -> list[Manifest]:
    done = helm()
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


def of_kind(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    """Manifests of a kind by their component."""
    return {
        found["metadata"]["labels"]["app.kubernetes.io/component"]: found
        for found in manifests
        if found["kind"] == kind
    }


def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    found = {**of_kind(manifests, "Deployment"), **of_kind(manifests, "Job")}
    return {name: manifest["spec"]["template"]["spec"] for name, manifest in found.items()}


def containers(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for name, pod in pods(manifests).items():
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            yield f"{name}/{container['name']}", container


def values() -> dict[str, Any]:
    return typing.cast("dict[str, Any]", yaml.safe_load((CHART / "values.yaml").read_text()))


# --- arrows -----------------------------------------------------------------------------------------------------------


def methods() -> Iterator[tuple[str, MethodDescriptor]]:
    """All RPCs with the folder of contracts they stand in."""
    for path in sorted((ROOT / "protos" / "gatefold").rglob("*.proto")):
        module = path.relative_to(ROOT / "protos").with_suffix("").as_posix().replace("/", ".")
        for service in importlib.import_module(f"{module}_pb2").DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                yield path.parents[1].name, method


def routed() -> set[Arrow]:
    """The gateway calls whoever has a route."""
    return {
        ("gateway", owner)
        for owner, method in methods()
        # Its own endpoints it serves within itself.
        if owner != "gateway" and method.GetOptions().Extensions[annotations_pb2.http].WhichOneof("pattern")
    }


def allowed() -> set[Arrow]:
    """Who may call whom by the policies."""
    with_schema = {path.parent.name for path in (ROOT / "services").glob("*/migrations")} - {"gateway"}
    arrows = routed()
    for owner, method in methods():
        for peer in method.GetOptions().Extensions[policy_pb2.policy].peers:
            arrows |= {(peer, to) for to in (with_schema if owner in SHARED_CONTRACTS else {owner})}
    return {(who, to) for who, to in arrows if who != to}


def texts(node: ast.expr) -> set[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return {node.value}
    return set().union(*map(texts, node.elts)) if isinstance(node, ast.Tuple) else set()


def peers_in(source: str) -> set[str]:
    """Peers whom code opens a channel to, consumes events of, follows the verdicts of, or lists as `…_PEERS`."""
    peers: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            if node.func.attr in {"channel", "consume"}:
                peers |= texts(node.args[0])
            elif node.func.attr == "follow_verdicts":
                peers.add("abuse")
        elif isinstance(node, ast.Assign) and any(getattr(name, "id", "").endswith("_PEERS") for name in node.targets):
            peers |= texts(node.value)
    return peers


def called() -> set[Arrow]:
    """Who calls whom in the code."""
    return routed() | {
        (name, peer)
        for name in SERVICES
        for path in (ROOT / "services" / name).rglob("*.py")
        for peer in peers_in(path.read_text())
    }


def charted() -> set[Arrow]:
    return {(name, peer) for name, service in values()["services"].items() for peer in service["calls"]}


def test_chart_and_skaffold_know_every_service() -> None:
    skaffold = yaml.safe_load((ROOT / "skaffold.yaml").read_text())
    artifacts = skaffold["build"]["artifacts"]
    (release,) = skaffold["deploy"]["helm"]["releases"]
    assert sorted(values()["services"]) == SERVICES
    assert {found["image"]: found["docker"]["buildArgs"]["SERVICE"] for found in artifacts} == {
        f"gatefold-{name}": name for name in SERVICES
    }
    assert release["setValueTemplates"] == {
        f"services.{name}.image": f"{{{{.IMAGE_FULLY_QUALIFIED_gatefold_{name}}}}}" for name in SERVICES
    }


def test_chart_carries_the_version_of_the_code() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == (ROOT / "VERSION").read_text().strip()


def test_services_migrate_their_own_schema_and_the_keys_once() -> None:
    migrated = [schema for service in values()["services"].values() for schema in service.get("migrates", ())]
    with_schema = [path.parent.name for path in (ROOT / "services").glob("*/migrations")]
    assert sorted(migrated) == sorted([*with_schema, "keys"])


def test_arrows_are_the_calls_in_the_code() -> None:
    assert charted() == called()


def test_every_arrow_is_allowed_by_a_policy() -> None:
    assert charted() - allowed() == set()
    assert ("billing", "notify") not in charted()  # allowed to pull events, which nothing does
    assert ("notify", "gateway") not in allowed()


@pytest.mark.parametrize(
    "line", ['channels.channel("notify")', 'service.consume(("notify", "auth"), take)', 'CLOCK_PEERS = ("notify",)']
)
def test_a_planted_call_is_seen(line: str) -> None:
    assert "notify" in peers_in(f"{line}\n")


def test_network_policies_draw_exactly_the_arrows(manifests: list[Manifest]) -> None:
    policies = of_kind(manifests, "NetworkPolicy")

    def names(rules: list[Manifest], direction: str) -> set[str]:
        return {
            peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
            for rule in rules
            for peer in rule.get(direction, ())
            if list(peer) == ["podSelector"]
        }

    out = {(name, peer) for name in SERVICES for peer in names(policies[name]["spec"]["egress"], "to")}
    into = {(peer, name) for name in SERVICES for peer in names(policies[name]["spec"]["ingress"], "from")}
    assert out == into == charted()


def test_the_port_of_logs_is_open_only_where_it_is_asked_for(manifests: list[Manifest]) -> None:
    def opened(found: list[Manifest]) -> tuple[list[Any], list[Any], list[Any], str | None]:
        pod = of_kind(found, "Deployment")["gateway"]["spec"]["template"]["spec"]["containers"][0]
        policy = of_kind(found, "NetworkPolicy")["gateway"]["spec"]["ingress"]
        return (
            [port["port"] for port in of_kind(found, "Service")["gateway"]["spec"]["ports"]],
            [port["containerPort"] for port in pod["ports"] if port["name"] == "otlp"],
            [port["port"] for rule in policy for port in rule["ports"] if port["port"] == 4317],
            of_kind(found, "ConfigMap")["gateway"]["data"].get("GATEFOLD_OTLP_LISTEN"),
        )

    assert opened(manifests) == ([80], [], [], None)
    done = helm("--set", "edge.otlp=true")
    assert done.returncode == 0, done.stderr
    asked = [found for found in yaml.safe_load_all(done.stdout) if found]
    assert opened(asked) == ([80, 4317], [4317], [4317], "0.0.0.0:4317")
    # Of the gateway alone.
    assert "4317" not in str(of_kind(asked, "Deployment")["abuse"])


def test_everything_else_is_denied(manifests: list[Manifest]) -> None:
    policies = of_kind(manifests, "NetworkPolicy")
    denial = policies["network"]["spec"]
    assert denial.keys() == {"podSelector", "policyTypes"}
    assert denial["policyTypes"] == ["Ingress", "Egress"]
    for name, found in {**of_kind(manifests, "Deployment"), **of_kind(manifests, "Job")}.items():
        labels = found["spec"]["template"]["metadata"]["labels"]
        assert denial["podSelector"]["matchLabels"].items() <= labels.items()
        assert policies[name]["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    for name in SERVICES:
        open_ports = [
            port["port"] for rule in policies[name]["spec"]["ingress"] if not rule.get("from") for port in rule["ports"]
        ]
        assert open_ports == ([8080] if name == "gateway" else [])
        assert all(rule["ports"] for rule in policies[name]["spec"]["egress"])


# --- configuration ----------------------------------------------------------------------------------------------------

SAMPLES = {
    "caller_keys": "{}",
    "redis_url": "rediss://user:password@valkey.example.org:6379/0",
    "object_store_options": "{}",
}


def classes_of(service: str) -> tuple[type, ...]:
    module = importlib.import_module(f"services.{service}.config")
    return ProcessConfig, TelemetryConfig, getattr(module, "GatewayConfig" if service == "gateway" else "Config")


def fields_of(cls: type) -> Iterator[tuple[str, Any]]:
    """Names and types of a configuration's settings, those of dataclasses inside it too."""
    for name, hint in typing.get_type_hints(cls).items():
        if dataclasses.is_dataclass(hint):
            yield from fields_of(typing.cast("type", hint))
        else:
            yield name, hint


def is_secret(hint: Any) -> bool:
    return hint is Secret or Secret in typing.get_args(hint)


def mounts(pod: Manifest, container: Manifest) -> set[str]:
    """Paths of the files that a pod's Secrets, its init container and its certificate put before a container."""
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    paths = set()
    for mount in container["volumeMounts"]:
        secret = volumes[mount["name"]].get("secret")
        keys = ["ca.crt", "tls.crt", "tls.key"] if mount["name"] == "tls" else []
        if secret and "items" in secret:
            keys = [item["path"] for item in secret["items"]]
        paths |= {f"{mount['mountPath']}/{key}" for key in keys}
    for init in pod.get("initContainers", ()):
        paths.add(init["command"][-1])
    return paths


@pytest.fixture(params=SERVICES)
def told(request: pytest.FixtureRequest, manifests: list[Manifest], tmp_path: Path) -> tuple[str, dict[str, str]]:
    """A service and its environment, the mounted files moved to where this test can write them."""
    service = request.param
    pod = of_kind(manifests, "Deployment")[service]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (source,) = container["envFrom"]
    settings = of_kind(manifests, "ConfigMap")[service]
    assert source["configMapRef"]["name"] == settings["metadata"]["name"]
    environ = dict(settings["data"])
    for path in mounts(pod, container):
        file = tmp_path / path.strip("/").replace("/", "-")
        file.write_text(SAMPLES.get(Path(path).name, "s" * 32))
        environ = {name: str(file) if value == path else value for name, value in environ.items()}
    return service, environ


def test_what_is_rendered_configures_the_service(told: tuple[str, dict[str, str]]) -> None:
    service, environ = told
    process, _, own = (config.load(cls, environ) for cls in classes_of(service))
    parts = own.service if hasattr(own, "service") else own
    assert parts.grpc.tls() is not None
    assert all(path.is_file() for path in dataclasses.astuple(parts.grpc.tls()))
    assert parts.grpc.addresses() == {peer: f"gatefold-{peer}:7000" for who, peer in charted() if who == service}
    # The gateway's rules are called by itself alone.
    assert process.listen == ("127.0.0.1:7000" if service == "gateway" else "0.0.0.0:7000")
    assert environ.get("GATEFOLD_HTTP_LISTEN") == ("0.0.0.0:8080" if service == "gateway" else None)
    assert hasattr(own, "service") is (environ.get("GATEFOLD_KEY_FILE") is not None)


def test_no_variable_is_one_the_service_does_not_know(told: tuple[str, dict[str, str]]) -> None:
    service, environ = told
    known = {f"GATEFOLD_{name.upper()}": hint for cls in classes_of(service) for name, hint in fields_of(cls)}
    unknown = {name for name in environ if name not in known and name.removesuffix("_FILE") not in known}
    assert unknown == set()
    assert [name for name in environ if is_secret(known.get(name))] == []


def test_a_required_secret_that_is_left_out_is_missed(told: tuple[str, dict[str, str]]) -> None:
    service, environ = told
    del environ["GATEFOLD_CALLER_KEYS_FILE"]
    with pytest.raises(ConfigError, match="GATEFOLD_CALLER_KEYS is missing"):
        config.load(classes_of(service)[-1], environ)


def test_the_way_out_of_a_migration_is_there_before_it_runs(manifests: list[Manifest]) -> None:
    """Also when the release that brings the service is not the first: the last one's denial holds until then."""
    policies = of_kind(manifests, "NetworkPolicy")
    jobs = of_kind(manifests, "Job")
    assert jobs
    for name, job in jobs.items():
        own, its = policies[name]["metadata"]["annotations"], job["metadata"]["annotations"]
        assert own["helm.sh/hook"] == its["helm.sh/hook"]
        assert int(own["helm.sh/hook-weight"]) < int(its.get("helm.sh/hook-weight", 0))


def test_migrations_run_with_the_owners_dsn_and_nothing_else(manifests: list[Manifest]) -> None:
    for name, job in of_kind(manifests, "Job").items():
        (container,) = job["spec"]["template"]["spec"]["containers"]
        assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
        assert container["command"] == ["python", "-m", "libs.migrate"]
        assert container["args"][0] == name.removesuffix("-migration")
        (variable,) = container["env"]
        assert {variable["value"]} == mounts(job["spec"]["template"]["spec"], container)


# --- what Kubernetes, and a careful operator, would refuse ------------------------------------------------------------


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("options", [(), ALL_OPTIONS], ids=["defaults", "all options"])
def test_every_manifest_holds_against_the_schemas_of_kubernetes(version: str, options: tuple[str, ...]) -> None:
    import kubernetes_validate

    done = helm(*(f"--set={option}" for option in options), version=version)
    assert done.returncode == 0, done.stderr
    wrong = []
    for manifest in yaml.safe_load_all(done.stdout):
        if manifest["kind"] in CUSTOM_KINDS:
            continue
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            wrong.append(f"{manifest['kind']} {manifest['metadata']['name']}: {list(error.path)} {error.message}")
    assert wrong == []


def test_the_schemas_see_a_planted_fault(manifests: list[Manifest]) -> None:
    import kubernetes_validate

    manifest = json.loads(json.dumps(of_kind(manifests, "Deployment")["auth"]))
    manifest["spec"]["template"]["spec"]["containers"][0]["readonlyRootFilesystem"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, NEWEST, strict=True)


def test_each_service_has_one_of_each_kind(manifests: list[Manifest]) -> None:
    for kind in (
        "Deployment",
        "Service",
        "ServiceAccount",
        "PodDisruptionBudget",
        "HorizontalPodAutoscaler",
        "Certificate",
        "ConfigMap",
    ):
        assert sorted(of_kind(manifests, kind)) == SERVICES
    assert {found["kind"] for found in manifests} & {"Secret", "Role", "RoleBinding", "ClusterRole"} == set()


def test_a_certificate_names_its_service_and_nothing_else(manifests: list[Manifest]) -> None:
    for name, certificate in of_kind(manifests, "Certificate").items():
        spec = certificate["spec"]
        volumes = {volume["name"]: volume for volume in pods(manifests)[name]["volumes"]}
        assert spec["dnsNames"] == [name]
        assert "commonName" not in spec
        assert {"server auth", "client auth"} <= set(spec["usages"])
        assert volumes["tls"]["secret"]["secretName"] == spec["secretName"]
        assert spec["issuerRef"]["name"] == "gatefold-services"


def test_every_pod_is_confined(manifests: list[Manifest]) -> None:
    for pod in pods(manifests).values():
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        assert not any("hostPath" in volume for volume in pod["volumes"])
    for _, container in containers(manifests):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]


def test_images_carry_the_version_as_their_tag(manifests: list[Manifest]) -> None:
    version = (ROOT / "VERSION").read_text().strip()
    for name, container in containers(manifests):
        service = name.partition("/")[0].removesuffix("-migration")
        assert container["image"] == f"registry.example.org/gatefold/gatefold-{service}:{version}"


def test_what_a_pod_drains_fits_into_its_grace(manifests: list[Manifest]) -> None:
    for name, pod in pods(manifests).items():
        if name in SERVICES:
            pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
            drain = int(of_kind(manifests, "ConfigMap")[name]["data"]["GATEFOLD_DRAIN_SECONDS"])
            assert pod["terminationGracePeriodSeconds"] > pause + drain


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("image.tag=latest", "image/tag"),
        ("services.auth.image=registry.example.org/auth:latest", "image"),
        ("services.auth.image=registry.example.org/auth", "image"),
        ("publicUrl=http://members.example.org", "publicUrl"),
        ("tls.issuer.name=", "issuer/name"),
        ("services.auth.settings.key_pepper=written-into-values", "settings/key_pepper"),
        ("services.notify.settings.smtp_password=written-into-values", "settings/smtp_password"),
        ("services.auth.secrets.key_pepper=written-into-values", "secrets/key_pepper"),
        ("services.auth.replicaCount=3", "replicaCount"),
        ("services.auth.calls={compliance}", "which is no service"),
        ("services.auth.outside={printer}", "which outside does not hold"),
        ("postgres.connectionBudget=100", "connectionBudget is 100"),
        ("services.notify.settings.smtp_host=null", "smtp_host"),
    ],
)
def test_values_that_must_not_be_are_refused(option: str, why: str) -> None:
    done = helm(f"--set={option}")
    assert done.returncode != 0
    assert why in done.stderr


def test_numbers_reach_the_service_as_they_were_written() -> None:
    given: Mapping[str, str] = {"body_bytes": "10485760", "rate_store_seconds": "0.05"}
    done = helm(*(f"--set-json=services.gateway.settings.{name}={value}" for name, value in given.items()))
    gateway = of_kind([found for found in yaml.safe_load_all(done.stdout) if found], "ConfigMap")["gateway"]
    assert gateway["data"]["GATEFOLD_BODY_BYTES"] == "10485760"
    assert gateway["data"]["GATEFOLD_RATE_STORE_SECONDS"] == "0.05"
