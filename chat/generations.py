"""The rows of generations: whose they are, which of them live, how they end.

Runs inside transactions of its callers'. Knows nothing of texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from uuid import UUID

from django.db.models import QuerySet
from django.utils import timezone

from chat.models import Generation
from llm.events import Finished


def own(owner: UUID, generations: Iterable[UUID]) -> QuerySet[Generation]:
    """Those of them that the process `owner` runs, or ran."""
    return Generation.objects.filter(pk__in=list(generations), owner=owner)


def living(owner: UUID, generations: Iterable[UUID]) -> QuerySet[Generation]:
    """Those of them that have no end, and are its to end."""
    return own(owner, generations).filter(state__in=Generation.LIVE)


def begin(owner: UUID, generation: UUID) -> None:
    """It left the queue."""
    living(owner, [generation]).update(state=Generation.State.RUNNING)


def hold(owner: UUID, generations: Iterable[UUID]) -> Mapping[UUID, UUID | None]:
    """Those of them that live, each with its answer, if that is in a table; they run.

    The rows stay locked, so that nobody can end one between this look at it and the writing of its text.
    """
    live = living(owner, generations)
    held = dict(live.order_by("pk").select_for_update().values_list("pk", "answer"))
    live.filter(state=Generation.State.QUEUED).update(state=Generation.State.RUNNING)  # `begin` may have failed
    return held


def end(generations: QuerySet[Generation], end: Finished) -> int:
    """Write how they ended; how many there were. The caller has made sure that they live, and are its to end."""
    return generations.update(
        state=end.reason,
        code=end.code or "",
        error=end.message or "",
        ended=timezone.now(),
        model=end.model,
        prompt_tokens=end.usage.prompt_tokens,
        cached_tokens=end.usage.cached_tokens,
        completion_tokens=end.usage.completion_tokens,
        queue_time=end.timings.queue_time,
        ttft=end.timings.ttft,
        decode_time=end.timings.decode_time,
        tokens_per_second=end.timings.tokens_per_second,
    )


def ended_so(generations: QuerySet[Generation], end: Finished) -> bool:
    """This end was written, by an earlier attempt that did not learn of it."""
    return generations.filter(state=end.reason).exists()
