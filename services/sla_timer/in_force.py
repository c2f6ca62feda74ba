"""The policies in force: read at the start, read again when their files change, without a restart.

A file that cannot be used changes nothing: the old policies stay in force, the log says what is wrong with the new
ones, and `switchyard_policies_rejected` is 1 until it is mended. What comes into force is kept with its version
(`policies`, `calendars`), and told as an event, once, by whichever replica is first.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

from services.sla_timer import storage
from services.sla_timer.config import PolicyFiles, load_policies
from services.sla_timer.domain.policies import Policies
from services.sla_timer.storage import OUTBOX, InForce
from shared import metrics, topics
from shared.cloudevents import Outgoing, trace_of
from shared.database import Database
from shared.events import PolicyChanged
from shared.yaml_files import ConfigError

logger = logging.getLogger(__name__)

_SERVICE: Final = "sla_timer"


class PoliciesInForce:
    """`policies`: those of now. Raises ConfigError when the files cannot be used at the start."""

    def __init__(self, files: PolicyFiles, database: Database) -> None:
        self._files = files
        self._database = database
        self._read = self._fingerprint()
        self.policies = self._load()
        metrics.POLICIES_REJECTED.labels(_SERVICE).set(0)

    async def announce(self) -> PolicyChanged | None:
        """Put the policies of now on record, and tell of the change if they differ from those before them."""
        policies = self.policies
        now = datetime.now(UTC)
        calendars = {name: calendar.version for name, calendar in policies.calendars.items()}
        change = None
        async with self._database.transaction() as connection:
            await storage.lock_history(connection)
            before = await storage.latest_policies(connection)
            await storage.add_calendars(connection, tuple(policies.calendars.values()))
            policies.learn(await storage.archived_calendars(connection))
            if before is not None and before.version == policies.version:
                policies.since = before.at
                return None
            policies.since = now
            await storage.add_policies(connection, InForce(policies.version, now, policies.dump(), calendars))
            if before is not None:
                difference = policies.difference(before.rules, before.calendars)
                change = PolicyChanged(
                    policy_version=policies.version,
                    previous_version=before.version,
                    at=now,
                    added=difference.added,
                    removed=difference.removed,
                    changed=difference.changed,
                    calendars=difference.calendars,
                )
                await OUTBOX.add(connection, [Outgoing(topics.SLA_EVENTS.name, change, trace_of(change))])
        if change is not None:
            logger.info("policies %s are in force, before them %s", change.policy_version, change.previous_version)
        return change

    def reload(self) -> bool:
        """Read the files again if they have changed; whether other policies are in force now."""
        found = self._fingerprint()
        if found == self._read:
            return False
        self._read = found
        try:
            policies = self._load()
        except ConfigError as error:
            metrics.POLICIES_REJECTED.labels(_SERVICE).set(1)
            logger.error("the changed policies cannot be used, the old ones stay in force:\n%s", error)
            return False
        metrics.POLICIES_REJECTED.labels(_SERVICE).set(0)
        changed = policies.version != self.policies.version
        if not changed:  # the promises are as old as they were
            policies.since = self.policies.since
        self.policies = policies  # peaks and staffing may have changed though no promise did
        return changed

    async def watch(self, every_seconds: float, changed: Callable[[], Awaitable[None]]) -> None:
        """Look at the files every so often; `changed` re-plans what is open. Until cancelled."""
        while True:
            await asyncio.sleep(every_seconds)
            if self.reload():
                await self.announce()
                await changed()

    def _load(self) -> Policies:
        """In force from now on, until `announce` finds that they have been for longer."""
        policies = load_policies(self._files)
        policies.since = datetime.now(UTC)
        return policies

    def _fingerprint(self) -> bytes:
        """Of what the files say, not of their times: a mounted configuration may keep them. One that is not there (it
        is being replaced) counts as another.
        """
        content = hashlib.sha256()
        for path in self._files.all:
            content.update(path.name.encode() + b"\0")
            try:
                content.update(path.read_bytes())
            except OSError as error:
                content.update(repr(error.errno).encode())
            content.update(b"\0")
        return content.digest()
