"""Who talks to whom: all connections that a cluster must let through. Every other is refused."""

from __future__ import annotations

from typing import Final

from shared.database import SERVICES

HTTP: Final = 8000
SMTP: Final = 8025
DNS: Final = 53

JOBS: Final = ("migrate", "operations")
"""What runs beside the services for a while: they ask Kafka and PostgreSQL, and nobody asks them."""

# Asking, asked, ports (TCP; DNS also UDP).
INSIDE: Final = {
    ("notifier", "intake"): {HTTP},
    ("desk", "sla_timer"): {HTTP},
    ("ingress", "intake"): {HTTP},
    ("ingress", "desk"): {HTTP},
    ("mail", "intake"): {SMTP},
    ("intake", "internet"): {443, 993},
    ("notifier", "internet"): {25, 443, 465, 587},
    ("intake", "internet_v6"): {443, 993},
    ("notifier", "internet_v6"): {25, 443, 465, 587},
    **{(name, "dns"): {DNS} for name in (*SERVICES, *JOBS)},
}
PRODUCTION: Final = {
    **INSIDE,
    **{(name, "kafka_address"): {9093} for name in (*SERVICES, *JOBS)},
    **{(name, "postgres_address"): {5432} for name in (*SERVICES, *JOBS)},
    **{("monitoring", name): {HTTP} for name in SERVICES},
    ("mail_address", "intake"): {SMTP},
}
TRIAL: Final = {
    **INSIDE,
    **{(name, "kafka"): {9092} for name in (*SERVICES, *JOBS)},
    **{(name, "postgres"): {5432} for name in (*SERVICES, *JOBS)},
    ("kafka", "kafka"): {9092, 9094},
    **{(name, "dns"): {DNS} for name in ("kafka", "postgres")},
}
TRACING: Final = {**PRODUCTION, **{(name, "tracing"): {4318} for name in SERVICES}}
