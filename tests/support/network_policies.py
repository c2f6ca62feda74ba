"""What NetworkPolicies allow, as Kubernetes reads them.

Only what policies here use: pods and namespaces by labels, blocks of addresses, ports by number or name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Policy = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Peer:
    """A pod in a namespace, or an address outside the cluster. `ports`: a pod's named ports."""

    labels: Mapping[str, str] = field(default_factory=dict)
    namespace: str = ""
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    address: str = ""


def allowed(policies: Iterable[Policy], source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
    """Whether `source` may open a connection to `target`. Both ends must agree; an address outside agrees to all."""
    policies = list(policies)
    leaves = _agrees(policies, "Egress", source, target, target, port, protocol)
    enters = _agrees(policies, "Ingress", target, source, target, port, protocol)
    return leaves and enters


def _agrees(
    policies: Sequence[Policy], direction: str, pod: Peer, other: Peer, target: Peer, port: int, protocol: str
) -> bool:
    isolating = [
        policy["spec"]
        for policy in policies
        if pod.namespace == policy["metadata"]["namespace"]
        and direction in policy["spec"]["policyTypes"]
        and selects(policy["spec"]["podSelector"], pod.labels)
    ]
    if not isolating:
        return True
    key, peers = ("egress", "to") if direction == "Egress" else ("ingress", "from")
    return any(
        _has_port(rule.get("ports", ()), target, port, protocol)
        and (not rule.get(peers) or any(_is(peer, other, pod.namespace) for peer in rule[peers]))
        for spec in isolating
        for rule in spec.get(key) or ()
    )


def _is(peer: Mapping[str, Any], other: Peer, namespace: str) -> bool:
    if "ipBlock" in peer:
        # A pod's address belongs to none of the blocks that the project names.
        return bool(other.address) and _in_block(peer["ipBlock"], other.address)
    if other.address:
        return False
    if "namespaceSelector" in peer:
        if not selects(peer["namespaceSelector"], other.namespace_labels):
            return False
    elif other.namespace != namespace:
        return False
    return selects(peer.get("podSelector", {}), other.labels)


def _in_block(block: Mapping[str, Any], address: str) -> bool:
    found = ipaddress.ip_address(address)
    inside = [found in ipaddress.ip_network(network) for network in (block["cidr"], *block.get("except", ()))]
    return inside[0] and not any(inside[1:])


def _has_port(ports: Sequence[Mapping[str, Any]], target: Peer, port: int, protocol: str) -> bool:
    if not ports:
        return True
    return any(
        entry.get("protocol", "TCP") == protocol
        and (target.ports.get(entry["port"]) if isinstance(entry["port"], str) else entry["port"]) == port
        for entry in ports
    )


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """An empty selector selects everything."""
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        _matches(expression, labels) for expression in selector.get("matchExpressions", ())
    )


def _matches(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(expression["key"])
    match expression["operator"]:
        case "In":
            return value in expression["values"]
        case "NotIn":
            return value not in expression["values"]
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    raise ValueError(f"no such operator: {expression['operator']}")
