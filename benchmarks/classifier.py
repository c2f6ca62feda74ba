"""What a decision costs: language, points, category, facts and priority of a message, 500 at a time, on one core.

The messages are a thousand of the corpus; the words that decide here were trained without them. Baseline, in the same
run: characters' TF-IDF and a linear support vector machine of scikit-learn, trained on the same messages, which give a
category and nothing else.
"""

from __future__ import annotations

import asyncio
import gc
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from benchmarks.figures import Figure, report
from services.classifier.domain.decide import Classifier, Message
from services.classifier.domain.rulebook import load_rulebook
from services.classifier.handlers import decide
from services.classifier.learning.corpus import read_corpus
from services.classifier.learning.model import load
from services.classifier.learning.shipped import SHIPPED, ShippedModel, read_decision
from services.classifier.learning.training import train
from shared.events.channel import MAX_TEXT_CHARACTERS

_BATCH: Final = 500
_HELD_OUT: Final = 1_000
_ROUNDS: Final = 15
_TICK_SECONDS: Final = 0.001
_RESIDENT: Final = """\
import sys, psutil
from services.classifier.domain.decide import Classifier, Message
Classifier().classify_all([Message(line) for line in sys.stdin])
print(psutil.Process().memory_info().rss)
"""


def main() -> None:
    examples = read_corpus()
    random.Random(4).shuffle(examples)
    unseen, learnt = examples[:_HELD_OUT], examples[_HELD_OUT:]
    words = train(learnt, load(SHIPPED).settings, lambda _: None).model
    classifier = Classifier(model=ShippedModel(load_rulebook(), words, read_decision(SHIPPED)))
    plain = make_pipeline(TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 5)), LinearSVC(C=0.5, tol=0.1))
    plain.fit([example.text for example in learnt], [example.label for example in learnt])

    gc.collect()
    gc.freeze()  # as the service does

    texts = [example.text for example in unseen]
    messages = [Message(text) for text in texts]
    whole, baseline = _microseconds(
        lambda some: classifier.classify_all([messages[place] for place in some]),
        lambda some: plain.predict([texts[place] for place in some]),
    )
    right = sum(
        one.category == example.label for one, example in zip(classifier.classify_all(messages), unseen, strict=True)
    )
    right_plain = sum(one == example.label for one, example in zip(plain.predict(texts), unseen, strict=True))
    report(Figure("classifier", "whole decision", whole, "µs of CPU per message", baseline))
    report(Figure("classifier", "messages per core", 1e6 / whole, "messages/s", 1e6 / baseline))
    report(Figure("classifier", "accuracy on unseen corpus", right / _HELD_OUT, "share", right_plain / _HELD_OUT))
    report(
        Figure(
            "classifier", "longest block of the event loop, batch of 500", _block(classifier, messages[:_BATCH]), "ms"
        )
    )
    longest = [Message((text * MAX_TEXT_CHARACTERS)[:MAX_TEXT_CHARACTERS]) for text in texts[:20]]
    report(Figure("classifier", "the same, longest messages allowed", _block(classifier, longest), "ms"))
    lines = "\n".join(texts[:_BATCH])
    resident = subprocess.run(
        [sys.executable, "-c", _RESIDENT], input=lines, capture_output=True, encoding="utf-8", check=True
    )
    report(Figure("classifier", "resident after 500 decisions", int(resident.stdout) / 1e6, "MB"))
    size = sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file())
    report(Figure("classifier", "size of the model", size / 1e6, "MB"))


def _microseconds(*works: Callable[[Sequence[int]], object]) -> list[float]:
    """Of CPU per message, for each work; the fastest of several rounds: what else the machine does only makes slower.

    The works take turns, so that a slow minute is one for all of them.
    """
    fastest = [float("inf")] * len(works)
    for _ in range(_ROUNDS):
        for start in range(0, _HELD_OUT, _BATCH):
            for place, work in enumerate(works):
                begun = time.process_time()
                work(range(start, start + _BATCH))
                fastest[place] = min(fastest[place], time.process_time() - begun)
    return [seconds / _BATCH * 1e6 for seconds in fastest]


def _block(classifier: Classifier, messages: Sequence[Message]) -> float:
    """The longest time, in ms, that something else had to wait for its turn while the messages were decided."""

    async def measured() -> float:
        longest = 0.0
        done = asyncio.Event()

        async def wait_for_turns() -> None:
            nonlocal longest
            while not done.is_set():
                begun = time.perf_counter()
                await asyncio.sleep(_TICK_SECONDS)
                longest = max(longest, time.perf_counter() - begun)

        waiting = asyncio.create_task(wait_for_turns())
        await asyncio.sleep(0)
        await decide(classifier, messages)
        done.set()
        await waiting
        return longest * 1e3

    return asyncio.run(measured())
