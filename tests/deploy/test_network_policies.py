"""The cluster lets through what the architecture says, and nothing else."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Mapping
from typing import Final

import pytest

from deploy.processes import REPOSITORY
from tests.deploy.architecture import PRODUCTION, TRIAL
from tests.support.kustomize import Resource, build
from tests.support.network_policies import Peer, allowed

_OVERLAYS: Final = REPOSITORY / "deploy" / "k8s" / "overlays"
_PORTS: Final = (22, 25, 53, 80, 443, 465, 587, 993, 4317, 4318, 5432, 8000, 8025, 9090, 9092, 9093, 9094)
_NAMESPACE: Final = "switchyard"

_OTHERS: Final = {
    "dns": Peer({"k8s-app": "kube-dns"}, "kube-system", {"kubernetes.io/metadata.name": "kube-system"}),
    "apiserver": Peer({"component": "kube-apiserver"}, "kube-system", {"kubernetes.io/metadata.name": "kube-system"}),
    "ingress": Peer({}, "ingress", {"switchyard/peer": "ingress"}),
    "mail": Peer({}, "mail", {"switchyard/peer": "mail"}),
    "monitoring": Peer({}, "monitoring", {"switchyard/peer": "monitoring"}),
    "tracing": Peer({}, "tracing", {"switchyard/peer": "tracing"}),
    # Somebody else's pod that calls itself one of ours, and one of nobody's in our namespace.
    "impostor": Peer({"app.kubernetes.io/name": "switchyard", "app.kubernetes.io/component": "desk"}, "default"),
    "stranger": Peer({"app": "stranger"}, _NAMESPACE),
    "internet": Peer(address="203.0.113.10"),
    "internet_v6": Peer(address="2001:db8::10"),
    "metadata_service": Peer(address="169.254.169.254"),
    "private_address": Peer(address="10.99.0.10"),
    "private_address_v6": Peer(address="fd00::10"),
    "kafka_address": Peer(address="10.20.0.10"),
    "postgres_address": Peer(address="10.20.1.10"),
    "mail_address": Peer(address="10.20.2.10"),
}


def _peers(resources: Iterable[Resource]) -> dict[str, Peer]:
    """The pods of an overlay by component, and everybody else."""
    found = dict(_OTHERS)
    for resource in resources:
        if resource["kind"] in ("Deployment", "StatefulSet", "Job"):
            template = resource["spec"]["template"]
            labels = template["metadata"]["labels"]
            ports = {
                port["name"]: port["containerPort"]
                for container in template["spec"]["containers"]
                for port in container.get("ports", ())
            }
            name = labels.get("app.kubernetes.io/component") or labels["app.kubernetes.io/name"]
            found[name] = Peer(labels, resource["metadata"]["namespace"], {}, ports)
    return found


def let_through(resources: Iterable[Resource]) -> dict[tuple[str, str], set[int]]:
    """Asking and asked, and the ports between them; of those pairs of which one is ours."""
    resources = list(resources)
    policies = [resource for resource in resources if resource["kind"] == "NetworkPolicy"]
    peers = _peers(resources)
    found: dict[tuple[str, str], set[int]] = {}
    for (asking, source), (asked, target) in itertools.product(peers.items(), repeat=2):
        if asking in _OTHERS and asked in _OTHERS and "stranger" not in (asking, asked):
            continue
        ports = {port for port in _PORTS if allowed(policies, source, target, port)}
        if ports:
            found[asking, asked] = ports
    return found


def with_strangers(resources: Iterable[Resource]) -> set[str]:
    return set(_peers(resources))


def _wanted(table: Mapping[tuple[str, str], set[int]]) -> dict[tuple[str, str], set[int]]:
    return {**table, ("stranger", "dns"): {53}}  # whatever runs beside us may ask for names, and for nothing else


@pytest.mark.parametrize(("overlay", "table"), [("production", PRODUCTION), ("small", TRIAL)])
def test_what_the_architecture_says_islet_through_and_nothing_else(
    overlay: str, table: Mapping[tuple[str, str], set[int]]
) -> None:
    assert let_through(build(_OVERLAYS / overlay)) == _wanted(table)


def test_names_are_asked_for_over_udp_too() -> None:
    resources = build(_OVERLAYS / "production")
    policies = [resource for resource in resources if resource["kind"] == "NetworkPolicy"]
    peers = _peers(resources)
    assert allowed(policies, peers["intake"], peers["dns"], 53, "UDP")
    assert not allowed(policies, peers["intake"], peers["dns"], 5353, "UDP")
    assert not allowed(policies, peers["intake"], peers["internet"], 443, "UDP")


@pytest.mark.parametrize(
    ("policy", "opened"),
    [
        ("default-deny", ("ingress", "operations")),
        ("intake", ("apiserver", "intake")),
        ("desk", ("desk", "internet")),
    ],
)
def test_the_table_is_no_more_than_the_policies(policy: str, opened: tuple[str, str]) -> None:
    """The evaluator sees a policy that is missing, and one that lets everybody in or out."""
    resources = [copy.deepcopy(resource) for resource in build(_OVERLAYS / "production")]
    (found,) = [item for item in resources if item["kind"] == "NetworkPolicy" and item["metadata"]["name"] == policy]
    if policy == "default-deny":
        resources.remove(found)
    for rules in ("ingress", "egress"):
        if found["spec"].get(rules):
            found["spec"][rules].append({})
    assert opened in let_through(resources)
