"""The log: what a line holds, what none holds, and how its level is changed for a while."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from asyncpg import exceptions as driver
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy.exc import IntegrityError

from shared import logs
from shared.broker import PublishFailed
from shared.http import install_problem_handlers
from shared.log_levels import LogLevels
from shared.operations import build_operations_router
from shared.settings import CommonSettings
from shared.trace_context import about
from shared.tracing_http import TraceRequests
from tests.support.waiting import eventually

WORDS = "我的钱不见了 my money is gone"
GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TOKEN = "an operator's long token"


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    names = ("", *logs.OURS, "services.notifier", "uvicorn.error", "websockets", "aiokafka")
    levels, handlers = {name: logging.getLogger(name).level for name in names}, list(root.handlers)
    yield
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def line(record: logging.LogRecord) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(logs.JsonFormatter("intake").format(record))
    return told


def record(message: str, error: BaseException | None = None) -> logging.LogRecord:
    about_error = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord("services.intake", logging.ERROR, __file__, 1, message, (), about_error)


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:  # noqa: BLE001 - given back
        return caught


def test_a_line_says_which_trace_and_which_ticket_it_is_about() -> None:
    ticket = uuid.uuid4()
    with about(GIVEN, ticket):
        told = line(record("x"))
    assert (told["trace_id"], told["span_id"], told["ticket_id"]) == (GIVEN[3:35], GIVEN[36:52], str(ticket))
    assert not {"trace_id", "span_id", "ticket_id"} & line(record("x")).keys()


def test_ids_of_digits_are_not_taken_for_cards() -> None:
    ticket = uuid.UUID("41111111-1111-1111-4111-111111111111")
    with about(f"00-{'4111111111111111' * 2}-4111111111111111-01", ticket):
        told = line(record("x"))
    assert (told["trace_id"], told["ticket_id"]) == ("4111111111111111" * 2, str(ticket))


@pytest.mark.parametrize(
    "error",
    [
        ValueError(WORDS),
        KeyError(WORDS),
        driver.NotNullViolationError(f"null value\nDETAIL: Failing row contains ({WORDS})"),
        driver.InvalidTextRepresentationError(f'invalid input syntax for type uuid: "{WORDS}"'),
        IntegrityError("INSERT ...", {"text": WORDS}, driver.UniqueViolationError(WORDS)),
        ExceptionGroup("several", [ValueError(WORDS), KeyError(WORDS)]),
    ],
)
@pytest.mark.parametrize("formatter", [logs.JsonFormatter("intake"), logs.TextFormatter("intake")])
def test_an_errors_words_may_be_a_customers(error: BaseException, formatter: logging.Formatter) -> None:
    chained = raised(RuntimeError(WORDS), raised(error))
    told = formatter.format(record("failed", chained))
    assert WORDS not in told
    assert "my money" not in told
    assert type(error).__name__ in told
    assert "test_logs.py" in told
    assert WORDS not in logs.summary(raised(error))


def test_what_is_ours_or_the_networks_is_said_in_its_words() -> None:
    assert logs.summary(PublishFailed("3 records were refused")) == "PublishFailed: 3 records were refused"
    assert "connection refused" in logs.summary(ConnectionRefusedError(111, "connection refused"))
    missing = driver.InvalidCatalogNameError('database "switchyard" does not exist')
    assert logs.summary(missing) == 'InvalidCatalogNameError 3D000: database "switchyard" does not exist'


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR"])
def test_libraries_say_nothing_below_warning_whatever_the_level(level: logs.Level) -> None:
    """websockets prints frames at DEBUG, aiosmtpd lines of mails, aiokafka records."""
    logs.configure("intake", level, "json")
    for library in ("websockets.server", "mail.log", "aiokafka.consumer", "httpcore", "sqlalchemy.engine", "asyncio"):
        assert not logging.getLogger(library).isEnabledFor(logging.INFO), library
    assert not logging.getLogger("uvicorn.error").isEnabledFor(logging.DEBUG)
    assert logging.getLogger("services.intake").getEffectiveLevel() == logging.getLevelNamesMapping()[level]


def enabled(name: str, level: int) -> bool:
    return logging.getLogger(name).isEnabledFor(level)


async def test_a_changed_level_goes_back_by_itself() -> None:
    logs.configure("intake", "INFO", "json")
    levels = LogLevels("INFO")
    levels.change("ERROR", timedelta(minutes=5), "services.notifier")
    levels.change("DEBUG", timedelta(milliseconds=50), "services.notifier")  # the earlier change is over with it
    assert enabled("services.notifier.mail", logging.DEBUG)
    assert not enabled("services.intake", logging.DEBUG)

    async def back() -> bool:
        return not enabled("services.notifier.mail", logging.DEBUG)

    await eventually(back, 30)
    assert levels.changes() == []
    assert enabled("services.notifier.mail", logging.INFO)
    levels.change("DEBUG", timedelta(minutes=5))
    assert enabled("shared.delivery", logging.DEBUG)
    assert not enabled("websockets", logging.INFO)
    assert enabled("services.notifier.mail", logging.DEBUG), "a module that was changed once no longer follows the rest"
    levels.restore()
    assert not enabled("shared.delivery", logging.DEBUG)


def application(token: str | None) -> FastAPI:
    app = FastAPI()
    install_problem_handlers(app)
    settings = CommonSettings(operations_token=None if token is None else SecretStr(token))
    app.include_router(build_operations_router(settings))

    @app.get("/v1/tickets/{ticket_id}")
    async def fails(ticket_id: str) -> None:
        raise ValueError(WORDS)

    app.add_middleware(TraceRequests)
    return app


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://service")


async def test_without_a_token_nobody_changes_anything() -> None:
    async with client_of(application(None)) as client:
        for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": "Bearer None"}):
            answer = await client.put("/operations/log-level", json={"level": "DEBUG"}, headers=headers)
            assert answer.status_code == 404


async def test_an_operator_is_told_what_is_wrong_with_his_wish() -> None:
    logs.configure("intake", "INFO", "json")
    async with client_of(application(TOKEN)) as client:
        assert (await client.get("/operations/log-level")).status_code == 401
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        for wrong in (
            {"level": "LOUD"},
            {"level": "DEBUG", "minutes": 0},
            {"level": "DEBUG", "minutes": 24 * 60 + 1},
            {"level": "DEBUG", "logger": "websockets"},
            {"level": "DEBUG", "logger": "servicesnot"},
            {"level": "DEBUG", "until": "tomorrow"},
        ):
            assert (await client.put("/operations/log-level", json=wrong)).status_code == 422, wrong
        assert not enabled("services.intake", logging.DEBUG)
        answer = await client.put("/operations/log-level", json={"level": "DEBUG", "logger": "services.intake"})
        assert [item["logger"] for item in answer.json()["changed"]] == ["services.intake"]
        assert enabled("services.intake.gateway", logging.DEBUG)
        assert (await client.delete("/operations/log-level")).json()["changed"] == []
        assert not enabled("services.intake.gateway", logging.DEBUG)


async def test_the_line_of_a_request_that_failed_says_which_one_it_was() -> None:
    """It is written by the server, outside of the application, in the request's own task."""
    ticket = uuid.uuid4()

    async def served() -> dict[str, Any]:
        async with client_of(application(None)) as client:
            assert (await client.get(f"/v1/tickets/{ticket}", headers={"traceparent": GIVEN})).status_code == 500
        return line(record("Exception in ASGI application"))

    told = await asyncio.create_task(served())
    assert (told["trace_id"], told["ticket_id"]) == (GIVEN[3:35], str(ticket))
    assert "trace_id" not in line(record("x"))
