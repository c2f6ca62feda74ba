"""What to do when Kafka refuses a right: its own errors name the topic or the group, not the user, not the remedy."""

from __future__ import annotations

from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
)

from shared.settings import CommonSettings


def remedy(error: BaseException, settings: CommonSettings) -> str:
    """To be put behind `error` in a log; empty when it is about something else."""
    if not isinstance(
        error, TopicAuthorizationFailedError | GroupAuthorizationFailedError | ClusterAuthorizationFailedError
    ):
        return ""
    user = settings.kafka_sasl_username or "ANONYMOUS"
    return f"; User:{user} lacks the right, `python -m deploy.ops acls verify` names what is missing"
