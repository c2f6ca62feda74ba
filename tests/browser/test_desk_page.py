"""The page in a real browser: it signs in, shows the queues, follows changes, and says when it cannot.

Needs Playwright and a Chromium of the system; skipped with the reason where there is none.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from deploy.processes import free_port
from shared.events import PeakEvent, PeakKind, SlaKind
from shared.taxonomy import Channel, Priority, Queue
from tests.support.desk import BOSS, MEI, PAY, Site, running_desk
from tests.support.surroundings import Kafka
from tests.unit.desk.samples import clock_event

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
_missing = [
    reason
    for reason, absent in (
        ("no chromium, chromium-browser or google-chrome on PATH", CHROMIUM is None),
        ("playwright is not installed", importlib.util.find_spec("playwright") is None),
    )
    if absent
]
pytestmark = pytest.mark.skipif(bool(_missing), reason="; ".join(_missing) or "nothing is missing")


@pytest.fixture
async def site(kafka: Kafka, new_database: Callable[[], Awaitable[str]], tmp_path: Path) -> AsyncIterator[Site]:
    async with running_desk(kafka, await new_database(), tmp_path) as world:
        site = Site(world, free_port())
        await site.start()
        yield site
        await site.stop()


@asynccontextmanager
async def opened(site: Site, **options: Any) -> AsyncIterator[Any]:
    """A page at the desk; what the browser complains of, policy violations too, fails the test."""
    from playwright.async_api import async_playwright, expect

    expect.set_options(timeout=20_000)  # a busy machine is slow, not wrong
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            context = await browser.new_context(locale="en-GB", **options)
            page = await context.new_page()
            complaints: list[str] = []
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", lambda said: complaints.append(said.text) if "Content Security" in said.text else None)
            await page.goto(site.url)
            yield page
            assert complaints == []
        finally:
            await browser.close()


async def sign_in(page: Any, token: str) -> None:
    await page.get_by_label("Token").fill(token)
    await page.get_by_role("button", name="Sign in").click()


async def test_the_page_shows_the_queues_and_changes_live(site: Site) -> None:
    from playwright.async_api import expect

    now = datetime.now(UTC)
    first = site.world.ticket(priority=Priority.P1, decided_at=now - timedelta(minutes=3))
    await site.world.waiting(first)
    async with opened(site) as page:
        await sign_in(page, MEI)
        await expect(page.locator("#who")).to_have_text("<b>Mei</b>")  # as text: nothing is parsed as HTML
        await expect(page.locator("#status")).to_have_text("live")
        rows = page.locator("tbody tr")
        await expect(rows).to_have_count(len(Queue))
        payments = page.locator("tr[data-queue=payments]")
        await expect(payments.locator("td.waiting")).to_have_text("1")
        await expect(payments.locator(".chip.p1 b")).to_have_text("1")
        await expect(payments).to_contain_text(re.compile(r"03:\d\d"))

        due_at = now + timedelta(minutes=10)
        await site.world.publish(
            clock_event(first.ticket_id, SlaKind.STARTED, 1, brand=site.world.brand, due_at=due_at),
            PeakEvent(
                brand=site.world.brand,
                queue=Queue.PAYMENTS,
                kind=PeakKind.BEGAN,
                began_at=now,
                at=now,
                window_seconds=900,
                expected_arrivals=1,
                seen_arrivals=9,
                staff_needed=4,
            ),
            PeakEvent(
                brand=site.world.brand,
                queue=Queue.PAYMENTS,
                channel=Channel.EMAIL,
                kind=PeakKind.BEGAN,
                began_at=now,
                at=now,
                window_seconds=900,
                expected_arrivals=1,
                seen_arrivals=8,
            ),
        )
        due = payments.locator("td.due")
        await expect(due).to_have_text(re.compile(r"^0?9:\d\d$|^10:00$"))
        await expect(payments.locator(".peak")).to_be_visible()
        brand = site.world.brand
        await expect(payments.locator(".peak")).to_have_attribute(
            "title",
            f"{brand}: more arrivals than expected; staff needed: 4\n{brand} (email): more arrivals than expected",
        )
        shown = await due.text_content()
        await expect(due).not_to_have_text(shown)  # it counts down by itself

        await site.world.waiting(site.world.ticket(decided_at=now))
        await expect(payments.locator("td.waiting")).to_have_text("2")
        await site.world.claim()
        await expect(payments.locator("td.claimed")).to_have_text("1")
        await expect(payments.locator("td.waiting")).to_have_text("1")
        await site.world.publish(
            clock_event(first.ticket_id, SlaKind.BREACHED, 2, brand=site.world.brand, breached=True, due_at=due_at)
        )
        await expect(payments.locator("td.breached")).to_have_text("1")

        await page.get_by_role("button", name="中文").click()
        await expect(payments.locator(".name")).to_have_text("支付与资金")
        await expect(page.locator("h1")).to_contain_text("队列实况")


async def test_a_wrong_token_is_told_and_a_right_one_is_kept_for_the_tab(site: Site) -> None:
    from playwright.async_api import expect

    async with opened(site) as page:
        for wrong in ("no-such-token", "令牌"):
            await sign_in(page, wrong)
            await expect(page.locator("#sign-in-error")).to_contain_text("not known here")
        await expect(page.locator("table")).to_be_hidden()
        await sign_in(page, PAY)
        await expect(page.locator("tbody tr")).to_have_count(1)
        await expect(page.locator("#calm")).to_be_visible()
        await page.reload()
        await expect(page.locator("tbody tr")).to_have_count(1)
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_label("Token")).to_be_visible()
        await page.reload()
        await expect(page.get_by_label("Token")).to_be_visible()


async def test_a_lost_connection_is_told_since_when_and_comes_back(site: Site) -> None:
    from playwright.async_api import expect

    async with opened(site) as page:
        await sign_in(page, BOSS)
        await expect(page.locator("#status")).to_have_text("live")
        await site.stop()
        await expect(page.locator("#status")).to_have_text("connection lost")
        await expect(page.locator("#banner")).to_contain_text(re.compile(r"lost at \d\d:\d\d:\d\d, 00:\d\d ago"))
        await expect(page.locator("tbody tr")).to_have_count(len(Queue))  # the last figures stay to be seen
        await site.start()
        await expect(page.locator("#status")).to_have_text("live", timeout=20_000)
        await expect(page.locator("#banner")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_fits_a_phone(site: Site, scheme: str) -> None:
    from playwright.async_api import expect

    async with opened(site, viewport={"width": 360, "height": 740}, color_scheme=scheme) as page:
        await sign_in(page, BOSS)
        await expect(page.locator("tbody tr")).to_have_count(len(Queue))
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        darkness = sum(int(part) for part in re.findall(r"\d+", background)[:3])
        assert (darkness < 200) == (scheme == "dark")
