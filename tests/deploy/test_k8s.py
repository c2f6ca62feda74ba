"""deploy/k8s: what Kubernetes would say of it, what an operator relies on, and that it agrees with the code."""

from __future__ import annotations

import base64
import copy
import importlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
import yaml

from deploy.k8s.__main__ import differences, wanted
from deploy.kafka.acls import KEDA, OPERATIONS, PRINCIPALS
from deploy.postgres.roles import OWNER, Roles
from deploy.processes import REPOSITORY
from shared.database import SERVICES
from shared.service import Service
from shared.settings import CommonSettings
from shared.topics import BY_NAME
from tests.contract.asyncapi import PLACEHOLDERS
from tests.deploy.architecture import TRACING
from tests.deploy.test_network_policies import let_through, with_strangers
from tests.support.kubernetes_schema import validate
from tests.support.kustomize import Resource, build
from tests.support.network_policies import selects

_K8S: Final = REPOSITORY / "deploy" / "k8s"
_OVERLAYS: Final = ("production", "small")
_OLDEST, _NEWEST = "1.30", "1.37"  # docs/deploy.md says from which on
_WORKLOADS: Final = ("Deployment", "StatefulSet", "Job")
_CLOSING_SECONDS: Final = 25  # beyond the drain, as shared/settings.py says of drain_timeout_seconds
_NOT_READ_ONLY: Final = {"kafka"}  # the image of the trial's broker writes into itself
_OF_UVICORN: Final = {"FORWARDED_ALLOW_IPS"}  # no setting of ours: uvicorn reads it
_NAMES: Final = {name: name.replace("_", "-") for name in SERVICES}


@pytest.fixture(params=_OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> tuple[Resource, ...]:
    return build(_K8S / "overlays" / request.param)


def _of(resources: tuple[Resource, ...], *kinds: str) -> Iterator[Resource]:
    return (resource for resource in resources if resource["kind"] in kinds)


def _named(resources: tuple[Resource, ...], kind: str, name: str) -> Resource:
    (found,) = [resource for resource in _of(resources, kind) if resource["metadata"]["name"] == name]
    return found


def _pod(resource: Resource) -> dict[str, Any]:
    pod: dict[str, Any] = resource["spec"]["template"]["spec"]
    return pod


def _containers(resources: tuple[Resource, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    for resource in _of(resources, *_WORKLOADS):
        for container in (*_pod(resource).get("initContainers", ()), *_pod(resource)["containers"]):
            yield resource["metadata"]["name"], container


# --- what Kubernetes would say ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [_OLDEST, _NEWEST])
def test_kubernetes_knows_every_field(overlay: tuple[Resource, ...], version: str) -> None:
    for resource in overlay:
        validate(resource, version)


def _misspelt(resource: Resource, path: tuple[str | int, ...]) -> Resource:
    changed = copy.deepcopy(resource)
    inner: Any = changed
    for step in path:
        inner = inner[step]
    inner["misspelt"] = "x"
    return changed


@pytest.mark.parametrize(
    ("kind", "name", "path"),
    [
        ("Deployment", "intake", ("spec", "template", "spec", "containers", 0, "readinessProbe")),
        ("NetworkPolicy", "intake", ("spec", "ingress", 0)),
        ("PodDisruptionBudget", "desk", ("spec",)),
        ("ScaledObject", "desk", ("spec", "fallback")),
        ("TriggerAuthentication", "switchyard-kafka", ("spec", "secretTargetRef", 0)),
        ("PodMonitor", "switchyard", ("spec", "podMetricsEndpoints", 0)),
        ("PrometheusRule", "switchyard-slo", ("spec", "groups", 0, "rules", 0)),
    ],
)
def test_a_field_that_kubernetes_does_not_know_is_found(kind: str, name: str, path: tuple[str | int, ...]) -> None:
    resource = _named(build(_K8S / "overlays" / "production"), kind, name)
    with pytest.raises(jsonschema.ValidationError, match="misspelt"):
        validate(_misspelt(resource, path), _NEWEST)


@pytest.mark.parametrize(
    ("components", "without"), [(("hpa", "ingress"), ()), (("keda", "monitoring", "tracing", "ingress"), ())]
)
def test_each_component_can_be_chosen(components: tuple[str, ...], without: tuple[str, ...], tmp_path: Path) -> None:
    chosen = {
        "namespace": "switchyard",
        "resources": [os.path.relpath(_K8S / "base", tmp_path.resolve())],
        "components": [os.path.relpath(_K8S / "components" / name, tmp_path.resolve()) for name in components],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(chosen))
    built = build(tmp_path.resolve())
    for resource in built:
        validate(resource, _NEWEST)
    scaled = {item["spec"]["scaleTargetRef"]["name"] for item in _of(built, "ScaledObject", "HorizontalPodAutoscaler")}
    for deployment in _of(built, "Deployment"):
        assert ("replicas" not in deployment["spec"]) is (deployment["metadata"]["name"] in scaled)
    if "tracing" in components:
        settings = _environment(built, _named(built, "Deployment", "intake"))
        assert settings["TRACING_OTLP_ENDPOINT"].endswith(":4318")
        table = {pair: ports for pair, ports in TRACING.items() if not any("_address" in end for end in pair)}
        inside = {pair for pair in let_through(built) if "tracing" in pair}
        assert inside == {pair for pair in table if "tracing" in pair}


# --- what containers may and must ------------------------------------------------------------------------------------


def _faults(name: str, pod: dict[str, Any], container: dict[str, Any], *, probed: bool) -> list[str]:
    """What is wrong with one container."""
    may = {**pod.get("securityContext", {}), **container.get("securityContext", {})}
    resources = container.get("resources", {})
    checks = {
        "runs as root": may.get("runAsNonRoot") is True and may.get("runAsUser", 0) > 0,
        "may get more rights": may.get("allowPrivilegeEscalation") is False and not may.get("privileged"),
        "keeps capabilities": may.get("capabilities") == {"drop": ["ALL"]},
        "is not confined by seccomp": may.get("seccompProfile") == {"type": "RuntimeDefault"},
        "writes to its image": may.get("readOnlyRootFilesystem") is True or name in _NOT_READ_ONLY,
        "has no requests": {"cpu", "memory"} <= set(resources.get("requests", {})),
        "has no limits": {"cpu", "memory"} <= set(resources.get("limits", {})),
        "has no probes": not probed or {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container),
        "has a token of the cluster": pod.get("automountServiceAccountToken") is False,
        "takes Services for settings": pod.get("enableServiceLinks") is False,
        "is near the machine": not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        and not any("hostPath" in volume for volume in pod.get("volumes", ())),
        "may fill the node's disk": all(
            "sizeLimit" in volume["emptyDir"] for volume in pod.get("volumes", ()) if "emptyDir" in volume
        ),
        "has no fixed image": re.fullmatch(r"[\w./-]+:v?\d[\w.]*", container["image"]) is not None,
    }
    return [f"{name} {fault}" for fault, well in checks.items() if not well]


def _all_faults(resources: tuple[Resource, ...]) -> list[str]:
    found = []
    for resource in _of(resources, *_WORKLOADS):
        name = resource["metadata"]["name"]
        probed = resource["kind"] != "Job" and name != "operations"
        for container in _pod(resource)["containers"]:
            found += _faults(name, _pod(resource), container, probed=probed)
    return found


def test_containers_can_do_no_more_than_they_must(overlay: tuple[Resource, ...]) -> None:
    assert _all_faults(overlay) == []


def _changes() -> dict[str, Callable[[dict[str, Any], dict[str, Any]], object]]:
    return {
        "runs as root": lambda pod, _: pod["securityContext"].update(runAsUser=0),
        "may get more rights": lambda _, it: it["securityContext"].pop("allowPrivilegeEscalation"),
        "keeps capabilities": lambda _, it: it["securityContext"]["capabilities"].update(add=["NET_ADMIN"]),
        "is not confined by seccomp": lambda pod, _: pod["securityContext"].pop("seccompProfile"),
        "writes to its image": lambda _, it: it["securityContext"].update(readOnlyRootFilesystem=False),
        "has no requests": lambda _, it: it["resources"]["requests"].pop("cpu"),
        "has no limits": lambda _, it: it["resources"]["limits"].pop("memory"),
        "has no probes": lambda _, it: it.pop("readinessProbe"),
        "has a token of the cluster": lambda pod, _: pod.pop("automountServiceAccountToken"),
        "takes Services for settings": lambda pod, _: pod.pop("enableServiceLinks"),
        "is near the machine": lambda pod, _: pod["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
        "may fill the node's disk": lambda pod, _: pod["volumes"].append({"name": "x", "emptyDir": {}}),
        "has no fixed image": lambda _, it: it.update(image="switchyard:latest"),
    }


@pytest.mark.parametrize("fault", _changes())
def test_each_fault_of_a_container_is_found(fault: str) -> None:
    deployment = copy.deepcopy(_named(build(_K8S / "overlays" / "production"), "Deployment", "intake"))
    pod = _pod(deployment)
    _changes()[fault](pod, pod["containers"][0])
    assert _faults("intake", pod, pod["containers"][0], probed=True) == [f"intake {fault}"]


def test_the_namespace_takes_only_such_pods(overlay: tuple[Resource, ...]) -> None:
    (namespace,) = _of(overlay, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    cluster_wide = {"Namespace"}
    for resource in overlay:
        if resource["kind"] not in cluster_wide:
            assert resource["metadata"]["namespace"] == namespace["metadata"]["name"], resource["metadata"]["name"]


def test_there_are_exactly_the_services(overlay: tuple[Resource, ...]) -> None:
    deployments = {item["metadata"]["name"]: item for item in _of(overlay, "Deployment")}
    assert set(deployments) == {*_NAMES.values(), "operations"}
    for service, name in _NAMES.items():
        (container,) = _pod(deployments[name])["containers"]
        assert container["args"] == [f"services.{service}"]
        assert deployments[name]["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"] == service
    images = {item["image"] for name, item in _containers(overlay) if name not in ("kafka", "postgres")}
    assert len(images) == 1, "services, migrations and operators' commands are of one release"


def test_what_the_services_share_with_compose_is_of_the_same_version() -> None:
    compose = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]
    images = {name: item["image"] for name, item in _containers(build(_K8S / "overlays" / "small"))}
    assert [images[name] for name in ("kafka", "postgres")] == [
        compose[name]["image"] for name in ("kafka", "postgres")
    ]


# --- roll-outs, drains, disruptions ----------------------------------------------------------------------------------


def test_a_service_may_drain_before_it_is_killed(overlay: tuple[Resource, ...]) -> None:
    for name in _NAMES.values():
        deployment = _named(overlay, "Deployment", name)
        (container,) = _pod(deployment)["containers"]
        waits = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        drains = float(_environment(overlay, deployment)["DRAIN_TIMEOUT_SECONDS"])
        assert _pod(deployment)["terminationGracePeriodSeconds"] >= waits + drains + _CLOSING_SECONDS
        # Whoever is asked over HTTP goes on answering until the cluster has told everybody.
        assert bool(waits) is (name in {item["metadata"]["name"] for item in _of(overlay, "Service")})


def test_a_roll_out_takes_nothing_away_before_its_successor_is_ready(overlay: tuple[Resource, ...]) -> None:
    for name in _NAMES.values():
        strategy = _named(overlay, "Deployment", name)["spec"]["strategy"]
        assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}


def test_probes_ask_what_they_are_for(overlay: tuple[Resource, ...]) -> None:
    for name in _NAMES.values():
        (container,) = _pod(_named(overlay, "Deployment", name))["containers"]
        probes = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
        assert {probe["port"] for probe in probes.values()} == {"http"}
        assert {kind: probe["path"] for kind, probe in probes.items()} == {
            "startup": "/livez",
            "liveness": "/livez",  # a restart brings neither Kafka nor PostgreSQL back
            # Without Kafka these still answer requests: see docs/health.md.
            "readiness": "/readyz/http" if name in ("intake", "desk", "sla-timer") else "/readyz",
        }


def test_a_disruption_takes_one_pod_at_a_time(overlay: tuple[Resource, ...]) -> None:
    for name in _NAMES.values():
        budget = _named(overlay, "PodDisruptionBudget", name)["spec"]
        assert budget["maxUnavailable"] == 1
        selected = [
            deployment["metadata"]["name"]
            for deployment in _of(overlay, "Deployment")
            if selects(budget["selector"], deployment["spec"]["template"]["metadata"]["labels"])
        ]
        assert selected == [name]


def test_selectors_select_their_own_pods(overlay: tuple[Resource, ...]) -> None:
    pods = {item["metadata"]["name"]: item["spec"]["template"] for item in _of(overlay, *_WORKLOADS)}
    for workload in _of(overlay, "Deployment", "StatefulSet"):
        chosen = [
            name for name, pod in pods.items() if selects(workload["spec"]["selector"], pod["metadata"]["labels"])
        ]
        assert chosen == [workload["metadata"]["name"]]
    for service in _of(overlay, "Service"):
        name = service["metadata"]["name"]
        chosen = [
            pod_name
            for pod_name, pod in pods.items()
            if selects({"matchLabels": service["spec"]["selector"]}, pod["metadata"]["labels"])
        ]
        assert chosen == [name]
        listening = {
            port["name"]: port["containerPort"] for item in pods[name]["spec"]["containers"] for port in item["ports"]
        }
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= set(listening)
        settings = _environment(overlay, _named(overlay, "Deployment", name)) if name in _NAMES.values() else {}
        if settings:
            assert listening["http"] == int(settings["HTTP_PORT"])
        if "smtp" in listening:
            assert listening["smtp"] == int(settings["INTAKE_SMTP_PORT"])


def test_replicas_spread_over_zones_and_nodes(overlay: tuple[Resource, ...]) -> None:
    for name in _NAMES.values():
        deployment = _named(overlay, "Deployment", name)
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        spread = _pod(deployment)["topologySpreadConstraints"]
        assert [item["topologyKey"] for item in spread] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
        for constraint in spread:
            assert selects(constraint["labelSelector"], labels)
            assert constraint["matchLabelKeys"] == ["app.kubernetes.io/component", "pod-template-hash"]


def test_the_migration_job_is_of_the_release(overlay: tuple[Resource, ...]) -> None:
    (job,) = _of(overlay, "Job")
    (container,) = _pod(job)["containers"]
    assert job["metadata"]["name"] == f"migrate-{container['image'].rsplit(':', 1)[1]}"
    # A job cannot be changed: what it refers to keeps its name whatever the settings are.
    generated = re.compile(r"-[0-9a-z]{10}$")
    referred = [source["configMapRef"]["name"] for source in container["envFrom"]]
    assert referred
    assert not [name for name in referred if generated.search(name)]
    compose = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]["migrate"]
    assert (container["command"], container["args"]) == (compose["entrypoint"], compose["command"])


# --- settings and secrets --------------------------------------------------------------------------------------------


def _config_map(resources: tuple[Resource, ...], name: str) -> dict[str, str]:
    data: dict[str, str] = _named(resources, "ConfigMap", name)["data"]
    return data


def _environment(resources: tuple[Resource, ...], workload: Resource) -> dict[str, str]:
    """What a container is told in clear, as it is told; secrets as `secret:<name>/<key>`."""
    (container,) = _pod(workload)["containers"]
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        if "configMapRef" in source:
            found |= _config_map(resources, source["configMapRef"]["name"])
    for variable in container.get("env", ()):
        if "value" in variable:
            found[variable["name"]] = variable["value"]
        else:
            reference = variable["valueFrom"]["secretKeyRef"]
            found[variable["name"]] = f"secret:{reference['name']}/{reference['key']}"
    return found


def _settings_of(component: str) -> type[CommonSettings]:
    if component not in SERVICES:
        return CommonSettings
    settings: type[CommonSettings] = importlib.import_module(f"services.{component}.settings").Settings
    return settings


_ALL_SETTINGS: Final = {field.upper() for name in SERVICES for field in _settings_of(name).model_fields}


def test_a_variable_is_a_setting_or_stands_in_a_configuration_file(overlay: tuple[Resource, ...]) -> None:
    """A misspelt name would be ignored in silence, and the default taken."""
    configuration = "".join(path.read_text() for path in (REPOSITORY / "deploy" / "config").rglob("*.yaml"))
    for workload in _of(overlay, "Deployment", "Job"):
        for name in _environment(overlay, workload):
            known = name in _ALL_SETTINGS | _OF_UVICORN or re.search(rf"\b{name}\b", configuration)
            assert known, f"{workload['metadata']['name']}: {name}"


def test_the_settings_can_be_used(overlay: tuple[Resource, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every service's settings, from the very values of the ConfigMaps."""
    for service, name in _NAMES.items():
        given = _environment(overlay, _named(overlay, "Deployment", name))
        with monkeypatch.context() as patched:
            for variable, value in given.items():
                secret = base64.b64encode(b"a secret of thirty-two bytes ...").decode()
                patched.setenv(variable, secret if value.startswith("secret:") else value)
            settings = _settings_of(service)()
        assert settings.http_host == "0.0.0.0"
        for field, value in settings:
            if isinstance(value, Path) and field.upper() in given:
                assert _mounted(overlay, _named(overlay, "Deployment", name), value), f"{name}: {field}"


def _mounted(resources: tuple[Resource, ...], workload: Resource, path: Path) -> bool:
    """Whether a file or directory is there in the container, if the Secret is as the example has it."""
    (container,) = _pod(workload)["containers"]
    volumes = {volume["name"]: volume for volume in _pod(workload)["volumes"]}
    if path == Path("/etc/switchyard/kafka-ca/ca.crt") and "kafka-ca" not in volumes:
        return _environment(resources, workload)["KAFKA_SECURITY_PROTOCOL"] == "PLAINTEXT"  # not looked at then
    for mount in container["volumeMounts"]:
        directory = Path(mount["mountPath"])
        if path == directory:
            return True
        if path.parent == directory:
            volume = volumes[mount["name"]]
            if "configMap" in volume:
                return path.name in _config_map(resources, volume["configMap"]["name"])
            return path.name in _example()[volume["secret"]["secretName"]]
    return False


def test_configuration_is_that_of_the_repository(overlay: tuple[Resource, ...]) -> None:
    directory = REPOSITORY / "deploy" / "config"
    mounts = {volume["name"]: volume for volume in _pod(_named(overlay, "Deployment", "intake"))["volumes"]}
    for volume, files in (("config", directory.glob("*.yaml")), ("brands", (directory / "brands").glob("*.yaml"))):
        given = _config_map(overlay, mounts[volume]["configMap"]["name"])
        assert given == {path.name: path.read_text() for path in files if path.name != "kustomization.yaml"}


def test_every_service_of_the_example_signs_in_to_the_database_as_itself() -> None:
    found = {
        name: values["DATABASE_URL"].removeprefix("postgresql://").partition(":")[0]
        for name, values in _example().items()
        if "DATABASE_URL" in values
    }
    secrets = {who: f"switchyard-{'operations' if who == OWNER else who.replace('_', '-')}" for who in Roles().all}
    assert found == {secrets[who]: role for who, role in Roles().all.items()}


def _example() -> dict[str, dict[str, str]]:
    """Keys of the Secrets that the example has, the optional ones in comments among them."""
    found = {}
    for text in (_K8S / "secrets.example.yaml").read_text().split("\n---\n"):
        secret = yaml.safe_load(text)
        optional = re.findall(r"^  # ([A-Z][A-Z0-9_]+):", text, re.M)
        found[secret["metadata"]["name"]] = secret["stringData"] | dict.fromkeys(optional, "")
        assert secret["kind"] == "Secret"
    return found


def _referred_secrets(resources: tuple[Resource, ...]) -> set[tuple[str, str]]:
    """Names and keys; of a Secret taken whole, the key is empty."""
    found = set()
    for workload in _of(resources, *_WORKLOADS):
        (container,) = _pod(workload)["containers"]
        for variable in container.get("env", ()):
            if "valueFrom" in variable:
                reference = variable["valueFrom"]["secretKeyRef"]
                found.add((reference["name"], reference["key"]))
        found |= {(item["secretRef"]["name"], "") for item in container.get("envFrom", ()) if "secretRef" in item}
        found |= {
            (volume["secret"]["secretName"], "") for volume in _pod(workload).get("volumes", ()) if "secret" in volume
        }
    for trigger in _of(resources, "TriggerAuthentication"):
        found |= {(item["name"], item["key"]) for item in trigger["spec"]["secretTargetRef"]}
    for monitor in _of(resources, "PodMonitor"):
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            reference = endpoint["authorization"]["credentials"]
            found.add((reference["name"], reference["key"]))
    return found


def test_the_example_has_every_secret_that_is_referred_to_and_no_other() -> None:
    example = _example()
    referred = {item for name in _OVERLAYS for item in _referred_secrets(build(_K8S / "overlays" / name))}
    for name, key in referred:
        assert name in example, name
        assert not key or key in example[name], f"{name}: {key}"
    assert {name for name, _ in referred} == set(example)
    whole = {name for name, key in referred if not key}
    for name in set(example) - whole:
        assert set(example[name]) == {key for referred_name, key in referred if referred_name == name}


def test_nothing_secret_is_committed(overlay: tuple[Resource, ...]) -> None:
    assert not list(_of(overlay, "Secret"))
    for name, secret in _example().items():
        for key, value in secret.items():
            fine = not value or "CHANGE-ME" in value or (name, key) == ("switchyard-keda", "KAFKA_SASL_USERNAME")
            assert fine, f"{name}: {key}"
    for resource in _of(overlay, "ConfigMap"):
        if resource["metadata"]["name"].startswith(("switchyard-settings", "switchyard-kafka")):
            assert not [name for name in resource["data"] if re.search("PASSWORD|SECRET|TOKEN|DATABASE_URL", name)]


def test_a_service_sees_no_secret_of_another(overlay: tuple[Resource, ...]) -> None:
    shared = {"switchyard-metrics", "switchyard-operations-token", "switchyard-kafka-ca"}
    for name in _NAMES.values():
        seen = {secret for secret, _ in _referred_secrets((_named(overlay, "Deployment", name),))} - shared
        assert seen <= {f"switchyard-{name}", f"switchyard-{name}-channels"}, name


# --- Kafka -----------------------------------------------------------------------------------------------------------


def test_everybody_signs_in_to_kafka_by_his_own_name() -> None:
    production = build(_K8S / "overlays" / "production")
    for workload in _of(production, "Deployment", "Job"):
        given = _environment(production, workload)
        component = workload["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]
        assert given["KAFKA_SASL_USERNAME"] == (component if component in SERVICES else OPERATIONS)
        assert given["KAFKA_SASL_USERNAME"] in PRINCIPALS
        assert given["KAFKA_SECURITY_PROTOCOL"] == "SASL_SSL"
    assert _example()["switchyard-keda"]["KAFKA_SASL_USERNAME"] == KEDA


@pytest.fixture(scope="module")
def wired() -> dict[str, Service]:
    """The services as they are wired, not running."""
    for name, value in PLACEHOLDERS.items():
        os.environ.setdefault(name, value)
    return {name: importlib.import_module(f"services.{name}.app").build() for name in SERVICES}


def test_replicas_follow_the_lag_of_every_group_and_are_no_more_than_partitions(wired: dict[str, Service]) -> None:
    production = build(_K8S / "overlays" / "production")
    for service, name in _NAMES.items():
        scaled = _named(production, "ScaledObject", name)["spec"]
        triggers = [item["metadata"] for item in scaled["triggers"] if item["type"] == "kafka"]
        groups = {item.group: set(item.topics) for item in wired[service].subscriptions}
        assert {item["consumerGroup"] for item in triggers} == set(groups)
        for trigger in triggers:
            topics = groups[trigger["consumerGroup"]]
            # Without a topic KEDA counts all that the group has taken from.
            assert trigger.get("topic") == (next(iter(topics)) if len(topics) == 1 else None)
            assert scaled["maxReplicaCount"] <= min(BY_NAME[topic].partitions for topic in topics)
            assert trigger["offsetResetPolicy"] == "earliest"
            assert tuple(map(int, trigger["version"].split("."))) >= (2, 1, 0), "Kafka 4 answers none older"
            assert trigger["bootstrapServersFromEnv"] in _environment(
                production, _named(production, "Deployment", name)
            )
        assert 2 <= scaled["minReplicaCount"] < scaled["maxReplicaCount"]
        for item in scaled["triggers"]:
            if item["type"] == "kafka":
                reference = item["authenticationRef"]["name"]
                assert _named(production, "TriggerAuthentication", reference)
        (container,) = _pod(_named(production, "Deployment", name))["containers"]
        assert scaled["scaleTargetRef"] == {"name": name, "envSourceContainerName": container["name"]}


# --- monitoring ------------------------------------------------------------------------------------------------------


def test_rules_and_dashboards_are_those_of_the_repository() -> None:
    assert differences(wanted()) == [], "python -m deploy.k8s write"
    built = build(_K8S / "overlays" / "production")
    rules = {f"switchyard-{path.stem}" for path in (REPOSITORY / "deploy" / "prometheus" / "rules").glob("*.yml")}
    assert {item["metadata"]["name"] for item in _of(built, "PrometheusRule")} == rules
    dashboards = [
        file
        for item in _of(built, "ConfigMap")
        if "grafana_dashboard" in item["metadata"].get("labels", {})
        for file in item["data"]
    ]
    assert sorted(dashboards) == sorted(path.name for path in (REPOSITORY / "deploy" / "grafana").glob("*/*.json"))


def test_a_stale_rule_is_found(tmp_path: Path) -> None:
    path, text = next(iter(wanted().items()))
    assert differences({path: text.replace("alert:", "alarm:", 1)})


def test_prometheus_finds_every_service_by_its_name() -> None:
    built = build(_K8S / "overlays" / "production")
    (monitor,) = _of(built, "PodMonitor")
    label = monitor["spec"]["jobLabel"]
    jobs = {
        item["spec"]["template"]["metadata"]["labels"][label]
        for item in _of(built, *_WORKLOADS)
        if selects(monitor["spec"]["selector"], item["spec"]["template"]["metadata"]["labels"])
    }
    prometheus = yaml.safe_load((REPOSITORY / "deploy" / "prometheus" / "prometheus.yml").read_text())
    assert jobs == set(SERVICES)
    assert jobs <= {job["job_name"] for job in prometheus["scrape_configs"]}


def test_only_what_is_for_outsiders_is_reached_from_outside(wired: dict[str, Service]) -> None:
    built = build(_K8S / "overlays" / "production")
    for ingress in _of(built, "Ingress"):
        name = ingress["metadata"]["name"]
        hosts = {host for item in ingress["spec"]["tls"] for host in item["hosts"]}
        assert {rule["host"] for rule in ingress["spec"]["rules"]} <= hosts, "TLS for every host"
        paths = [path for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]
        for path in paths:
            assert path["backend"]["service"]["name"] == name
        for route in (getattr(route, "path", "") for router in wired[name].routers for route in router.routes):
            reached = any(_reaches(item, route) for item in paths)
            assert reached is not route.startswith("/v1/replies"), route
        for inside in ("/livez", "/readyz", "/metrics", "/operations/log-level", "/openapi.json"):
            assert not any(_reaches(item, inside) for item in paths), inside


def _reaches(path: dict[str, str], route: str) -> bool:
    if path["pathType"] == "Exact":
        return route == path["path"]
    return route == path["path"] or route.startswith(path["path"].rstrip("/") + "/")


def test_the_strangers_of_the_table_are_known() -> None:
    """A name in the table that nobody has would be let through without anybody noticing."""
    known = with_strangers(build(_K8S / "overlays" / "production")) | with_strangers(build(_K8S / "overlays" / "small"))
    assert {name for pair in TRACING for name in pair} <= known
