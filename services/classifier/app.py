"""Wiring of the classifier: which handler consumes what, where decisions go."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from services.classifier.domain.decide import Classifier
from services.classifier.domain.rulebook import load_rulebook
from services.classifier.handlers import Handlers
from services.classifier.learning.shipped import shipped_model
from services.classifier.settings import Settings
from shared import topics
from shared.service import Service

_PRUNE_EVERY_SECONDS: Final = 3600.0


def build(settings: Settings | None = None) -> Service:
    """The service, not yet running. Raises ConfigError when priorities, a brand's file or the model cannot be used."""
    settings = settings or Settings()
    service = Service("classifier", settings)
    rulebook = load_rulebook(settings.classifier_priorities_file, settings.brands_directory)
    handlers = Handlers(
        service.database,
        service.publisher,
        Classifier(rulebook, shipped_model(rulebook, settings.classifier_model_directory)),
        timedelta(days=settings.classifier_decisions_kept_days),
    )
    service.subscribe(
        [topics.TICKETS_MESSAGES],
        handlers.on_messages,
        description="Decide what the message is about and how urgent, and put its ticket into a queue.",
    )
    service.subscribe(
        [topics.TICKETS_ACTIVITY],
        handlers.on_activities,
        description="An agent's correction routes the ticket and stays; corrections are kept to learn from.",
    )
    for queue in topics.QUEUES:
        service.announce(queue)
    service.announce(topics.DEAD_LETTERS)
    service.every(_PRUNE_EVERY_SECONDS, "prune", handlers.prune)
    return service
