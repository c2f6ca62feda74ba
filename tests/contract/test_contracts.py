"""The committed contracts, and the check that guards them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import jsonschema
import pytest

from shared import topics
from shared.events import EARLIER, REGISTRY, ChannelMessage, Event
from tests.contract import snapshots


def test_code_and_committed_contracts_agree() -> None:
    assert snapshots.check() == []


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_golden_record_is_read_as_it_was_written(name: str) -> None:
    golden = json.loads((snapshots.GOLDEN / f"{name}.json").read_text("utf-8"))
    event = REGISTRY[name].model_validate_json(json.dumps(golden["data"]))
    assert json.loads(event.model_dump_json()) == golden["data"]
    # Ids and keys are part of the contract: another id for the same cause would double its effects.
    assert str(event.event_id) == golden["event_id"]
    assert event.key == golden["key"]


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_golden_record_fits_the_committed_schema(name: str) -> None:
    golden = json.loads((snapshots.GOLDEN / f"{name}.json").read_text("utf-8"))
    schema = json.loads((snapshots.SCHEMAS / f"{name}.schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    validator.validate(golden["data"])
    # The schema is not a schema that accepts anything.
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({})


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_unknown_fields_are_ignored_so_that_producers_may_run_ahead(name: str) -> None:
    golden = json.loads((snapshots.GOLDEN / f"{name}.json").read_text("utf-8"))
    event = REGISTRY[name].model_validate_json(json.dumps({**golden["data"], "from_the_future": 1}))
    assert str(event.event_id) == golden["event_id"]


@pytest.mark.parametrize("name", sorted(model.TYPE for models in EARLIER.values() for model in models))
def test_an_earlier_version_is_read_as_its_successor(name: str) -> None:
    golden = json.loads((snapshots.GOLDEN / f"{name}.json").read_text("utf-8"))
    event = REGISTRY[name].model_validate_json(json.dumps(golden["data"])).upgraded()
    assert type(event) in EARLIER
    assert REGISTRY[name] in EARLIER[type(event)]
    # The same effect under the same id: a repetition in the newer version does not double it.
    assert (str(event.event_id), event.key) == (golden["event_id"], golden["key"])
    assert golden["data"].items() <= json.loads(event.model_dump_json()).items()


def test_events_are_frozen() -> None:
    golden = json.loads((snapshots.GOLDEN / f"{ChannelMessage.TYPE}.json").read_text("utf-8"))
    message = ChannelMessage.model_validate_json(json.dumps(golden["data"]))
    with pytest.raises(ValueError, match="frozen"):
        message.text = "changed"  # type: ignore[misc]


def test_every_event_is_carried_by_a_topic_and_types_end_in_a_version() -> None:
    carried = {model for topic in topics.ALL for model in topic.carries}
    assert carried | {model for models in EARLIER.values() for model in models} == set(REGISTRY.values())
    assert set(EARLIER) <= carried
    for name, model in REGISTRY.items():
        assert name == model.TYPE
        assert name.rsplit(".v", 1)[1].isdigit()


class _Changed(ChannelMessage):
    TYPE: ClassVar[str] = ChannelMessage.TYPE
    mood: str = "calm"


class TestTheCheckItself:
    """Each way in which the check must fail, seen to fail."""

    def registry(self, model: type[Event]) -> dict[str, type[Event]]:
        return {**REGISTRY, model.TYPE: model}

    def test_a_changed_schema_under_the_same_version_says_what_to_do(self) -> None:
        (problem,) = snapshots.check(self.registry(_Changed))
        assert "has changed under the same version" in problem
        assert "new version" in problem
        assert "make contracts" in problem

    def test_writing_never_overwrites_a_committed_schema(self, tmp_path: Path) -> None:
        committed = tmp_path / f"{ChannelMessage.TYPE}.schema.json"
        committed.write_text("{}", "utf-8")
        added = snapshots.write(REGISTRY, tmp_path)
        assert committed.read_text("utf-8") == "{}"
        assert len(added) == len(REGISTRY) - 1

    def test_an_event_without_schema_or_golden_record_is_found(self, tmp_path: Path) -> None:
        problems = snapshots.check(REGISTRY, tmp_path, tmp_path)
        assert len(problems) == 2 * len(REGISTRY)

    def test_a_schema_whose_event_is_gone_is_found(self) -> None:
        fewer = {name: model for name, model in REGISTRY.items() if model is not ChannelMessage}
        (problem,) = snapshots.check(fewer)
        assert "no event of this type any more" in problem

    def test_prose_may_change(self) -> None:
        schema = snapshots.schema_of(ChannelMessage)
        assert snapshots.essence({**schema, "description": "said better"}) == snapshots.essence(schema)
        assert snapshots.essence({"properties": {"title": {"type": "string"}}}) != snapshots.essence({"properties": {}})
