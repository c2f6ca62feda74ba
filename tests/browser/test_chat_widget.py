"""The chat's widget in a real browser, on a page of a foreign site: nothing is lost, nothing is doubled.

Needs Playwright and a Chromium of the system; skipped with the reason where there is none.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import FastAPI, Response
from sqlalchemy import text

from deploy.processes import HOST
from shared.http import unavailable
from tests.browser.test_desk_page import CHROMIUM, pytestmark
from tests.support.chat import BRAND, Replica, reply_to, running_replica, session_token
from tests.support.server import serving
from tests.support.waiting import eventually

__all__ = ["pytestmark"]

SHOP_PAGE = """<!doctype html><html lang="{lang}"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Shop</title>
<style>button {{ background: red !important }} iframe {{ width: 10px }}</style>
<h1>A shop</h1><p>Goods.</p>
{settings}<script src="{widget}/widget.js" async></script></html>"""


@dataclass
class Shop:
    """A site with the widget in its page, whose browser's complaints fail the test."""

    replica: Replica
    page: Any
    customer: str

    @property
    def frame(self) -> Any:
        return self.page.frame_locator("#switchyard-chat iframe")

    async def open_chat(self) -> None:
        from playwright.async_api import expect

        await self.page.locator("#switchyard-chat button").click()
        await expect(self.frame.locator("#status")).to_have_class("status live")

    async def say(self, words: str) -> None:
        await self.frame.locator("#text").fill(words)
        await self.frame.locator("#text").press("Enter")


@asynccontextmanager
async def shop(
    database_url: str, *, lang: str = "en", logged_in: bool = True, is_allowed: bool = True, **options: Any
) -> AsyncIterator[Shop]:
    from playwright.async_api import async_playwright, expect

    expect.set_options(timeout=20_000)  # a busy machine is slow, not wrong
    customer = f"c-{uuid.uuid4().hex[:8]}"
    site = FastAPI()

    @site.get("/")
    async def page() -> Response:
        settings = "<script>window.switchyardChat = { token: async () => (await fetch('/token')).text() }</script>"
        return Response(
            SHOP_PAGE.format(lang=lang, settings=settings if logged_in else "", widget=chat.url), media_type="text/html"
        )

    @site.get("/token")
    async def token() -> Response:
        return Response(session_token(customer, name="Mei"), media_type="text/plain")

    async with serving(site) as origin:
        # Another host, so that it is another origin and another site.
        foreign = origin.replace(HOST, "localhost")
        async with (
            running_replica(
                database_url,
                visitors=True,
                allowed_origins=[foreign] if is_allowed else [],
                title={"zh": "优付客服", "en": "UPay care"},
            ) as chat,
            async_playwright() as playwright,
        ):
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            try:
                context = await browser.new_context(locale="en-GB", **options)
                tab = await context.new_page()
                complaints: list[str] = []
                tab.on("pageerror", lambda error: complaints.append(str(error)))
                tab.on(
                    "console",
                    lambda said: complaints.append(said.text) if "Content Security" in said.text else None,
                )
                await tab.goto(f"{foreign}/")
                yield Shop(chat, tab, customer)
                assert bool(complaints) is not is_allowed
            finally:
                await browser.close()


@pytest.fixture
async def database_url(new_database: Callable[[], Awaitable[str]]) -> str:
    return await new_database()


async def test_a_message_is_accepted_a_reply_comes_and_an_outage_loses_nothing(database_url: str) -> None:
    from playwright.async_api import expect

    async with shop(database_url) as site:
        await site.open_chat()
        await expect(site.frame.locator("h1")).to_have_text("UPay care")
        mine, theirs = site.frame.locator("li.customer"), site.frame.locator("li.brand")
        await site.say("<b>My top-up</b> has not arrived")
        await expect(mine.locator(".state")).to_have_text("sent")
        await expect(mine.locator(".bubble")).to_have_text("<b>My top-up</b> has not arrived")  # as text

        reply = reply_to(site.customer, "We are looking into it.")
        await site.replica.hub.deliver(BRAND, reply)
        await expect(theirs.locator(".bubble")).to_have_text("We are looking into it.")
        await site.replica.hub.deliver(BRAND, reply)

        await site.replica.stop()
        await expect(site.frame.locator("#banner")).to_contain_text("is kept")
        for words in ("order 4711", "50 yuan"):
            await site.say(words)
        await expect(mine.nth(2).locator(".state")).to_have_text("not sent yet, will try again")
        while_away = reply_to(site.customer, "It has arrived.")
        await site.replica.hub.deliver(BRAND, while_away)
        await site.page.reload()  # the tab keeps what was not sent
        await site.page.locator("#switchyard-chat button").click()  # and there is nobody to open the chat
        await site.replica.start()
        await expect(site.frame.locator("#status")).to_have_text("online")
        await expect(theirs).to_have_count(2)
        await expect(mine).to_have_count(3)
        for place, words in enumerate(("<b>My top-up</b> has not arrived", "order 4711", "50 yuan")):
            await expect(mine.nth(place).locator(".bubble")).to_have_text(words)
            await expect(mine.nth(place).locator(".state")).to_have_text("sent")
    said = [message.text for message in site.replica.accepted]
    assert said == ["<b>My top-up</b> has not arrived", "order 4711", "50 yuan"]


async def test_it_comes_back_by_itself_and_waits_when_it_is_asked_to(database_url: str) -> None:
    from playwright.async_api import expect

    async with shop(database_url) as site:
        await site.open_chat()
        mine = site.frame.locator("li.customer")
        await site.replica.stop()
        await expect(site.frame.locator("#status")).to_have_text("offline")
        await site.say("kept in the page")
        site.replica.refusing = unavailable("Kafka does not answer; nothing was stored, send it again")
        await site.replica.start()
        await expect(site.frame.locator("#status")).to_have_text("online")
        await expect(mine.locator(".state")).to_have_text("not sent yet, will try again")
        assert site.replica.accepted == []
        site.replica.refusing = None
        await expect(mine.locator(".state")).to_have_text("sent")
        assert [message.text for message in site.replica.accepted] == ["kept in the page"]


async def test_own_messages_can_be_changed_and_taken_back(database_url: str) -> None:
    from playwright.async_api import expect

    async with shop(database_url, lang="zh-CN") as site:
        await site.open_chat()
        await expect(site.frame.locator("h1")).to_have_text("优付客服")
        mine = site.frame.locator("li.customer")
        await site.say("金额 50")
        await expect(mine.locator(".state")).to_have_text("已发送")
        await mine.hover()
        await site.frame.get_by_role("button", name="修改").click()
        await expect(site.frame.locator("#text")).to_have_value("金额 50")
        await site.say("金额 500")
        await expect(mine.locator(".bubble")).to_have_text("金额 500")
        await expect(mine.locator(".state")).to_have_text("已修改 · 已发送")
        await mine.hover()
        await site.frame.get_by_role("button", name="删除").click()
        await site.frame.get_by_role("button", name="确定删除？").click()
        await expect(mine.locator(".bubble")).to_have_text("消息已删除")

        async def told() -> bool:
            return len(site.replica.accepted) == 3

        await eventually(told)
        first, change, removal = site.replica.accepted
        assert (change.edits, change.text) == (first.message_id, "金额 500")
        assert removal.deletes == first.message_id


async def test_unread_replies_are_counted_while_the_chat_is_closed(database_url: str) -> None:
    from playwright.async_api import expect

    async with shop(database_url) as site:
        await site.open_chat()
        await site.frame.locator("#close").click()
        button = site.page.locator("#switchyard-chat button")
        await expect(button).to_have_attribute("aria-expanded", "false")
        for words in ("one", "two"):
            await site.replica.hub.deliver(BRAND, reply_to(site.customer, words))
        await expect(button.locator(".unread")).to_have_text("2")
        await expect(button).to_have_attribute("aria-label", "Open chat (2 new)")
        await button.click()
        await expect(button.locator(".unread")).to_have_text("")


async def test_a_visitor_finds_his_chat_again(database_url: str) -> None:
    from playwright.async_api import expect

    async with shop(database_url, logged_in=False) as site:
        await site.open_chat()
        await site.say("How do I open an account?")
        await expect(site.frame.locator("li.customer .state")).to_have_text("sent")
        await site.page.reload()
        await site.open_chat()
        await expect(site.frame.locator("li.customer .bubble")).to_have_text("How do I open an account?")
        (message,) = site.replica.accepted
        assert message.customer.id.startswith("visitor-")


async def test_a_site_that_is_not_named_cannot_show_the_chat(database_url: str) -> None:
    async with (
        shop(database_url, is_allowed=False) as site,
        site.page.expect_console_message(lambda said: "frame-ancestors" in said.text),
    ):
        await site.page.locator("#switchyard-chat button").click()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_fits_a_phone(database_url: str, scheme: str) -> None:
    from playwright.async_api import expect

    async with shop(database_url, viewport={"width": 360, "height": 640}, color_scheme=scheme) as site:
        await site.open_chat()
        await site.say("a" * 200)
        await expect(site.frame.locator("li.customer .state")).to_have_text("sent")
        box = await site.page.locator("#switchyard-chat iframe").bounding_box()
        assert (box["x"], box["width"], box["height"]) == (0, 360, 640)
        body = site.frame.locator("body")
        assert await body.evaluate("document.documentElement.scrollWidth") <= 360
        background = await body.evaluate("getComputedStyle(document.body).backgroundColor")
        darkness = sum(int(part) for part in background[4:-1].split(","))
        assert (darkness < 200) == (scheme == "dark")


async def test_the_form_is_filled_in_on_a_foreign_page(database_url: str) -> None:
    from playwright.async_api import expect

    async with shop(database_url) as site:
        await site.page.evaluate(
            """(address) => {
                const frame = document.createElement("iframe");
                frame.id = "form";
                frame.src = address;
                frame.style.cssText = "width: 100%; height: 900px";
                document.body.append(frame);
            }""",
            f"{site.replica.form_url}?lang=en",
        )
        form = site.page.frame_locator("#form")
        await form.get_by_label("Message").fill("My refund <b>is late</b>")
        await form.get_by_label("What it is about").select_option("refunds")
        await asyncio.sleep(2)  # a person takes that long, and the form wants a person
        await form.get_by_role("button", name="Send").click()
        await expect(form.locator(".notice")).to_contain_text("is kept")
        await expect(form.get_by_label("Message")).to_have_value("My refund <b>is late</b>")
        await form.get_by_label("E-mail").fill("mei@example.com")
        await form.get_by_role("button", name="Send").click()
        await expect(form.locator("h1")).to_have_text("We have your message")
        await expect(form.locator("main")).to_contain_text("A confirmation comes")
        rows = await stored_messages(site.replica)
        assert rows == [("web_form", "mei@example.com")]


async def stored_messages(replica: Replica) -> list[tuple[str, str]]:
    async with replica.database.transaction() as connection:
        rows = await connection.execute(
            text("SELECT channel, event::jsonb -> 'customer' ->> 'id' FROM intake.messages")
        )
        return [(row[0], row[1]) for row in rows]
