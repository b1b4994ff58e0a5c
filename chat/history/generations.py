"""The rows of generations: which process runs them, which are under way, how they end.

Every generation has a row, also those of temporary chats. Runs inside transactions of its callers. Knows no texts.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from uuid import UUID

from django.db.models import QuerySet
from django.utils import timezone

from chat.history.values import INTERRUPTED, StoredGeneration
from chat.models import Generation
from llm.events import Finished, Timings, Usage

PROCESS = uuid.uuid4()
"""Names this process in the rows of the turns it runs."""


def live(process: UUID, generations: Iterable[UUID]) -> QuerySet[Generation]:
    """Return those of `generations` that have no end, and are for `process` to end."""
    return Generation.objects.filter(pk__in=list(generations), process=process, state__in=Generation.LIVE)


def start(process: UUID, generations: Iterable[UUID]) -> None:
    """Record that they left the queue."""
    live(process, generations).filter(state=Generation.State.QUEUED).update(state=Generation.State.RUNNING)


def hold(process: UUID, generations: Iterable[UUID]) -> Mapping[UUID, UUID | None]:
    """Lock those that `process` has under way, and return each with its answer, None if that is in no table.

    Nobody can end one of them between this look at it and the writing of its text.
    """
    return dict(live(process, generations).order_by("pk").select_for_update().values_list("pk", "answer"))


def end(generations: QuerySet[Generation], end: Finished) -> int:
    """Write how they ended and return how many there were. The caller has made sure that they are under way."""
    return generations.update(
        state=end.reason,
        code=end.code or "",
        error=end.message or "",
        ended=timezone.now(),
        model=end.model,
        prompt_tokens=end.usage.prompt_tokens,
        cached_tokens=end.usage.cached_tokens,
        completion_tokens=end.usage.completion_tokens,
        left_out_turns=end.usage.left_out_turns,
        queue_time=end.timings.queue_time,
        ttft=end.timings.ttft,
        decode_time=end.timings.decode_time,
        tokens_per_second=end.timings.tokens_per_second,
    )


def ended_so(process: UUID, generation: UUID, end: Finished) -> bool:
    """Tell whether `process` wrote this end, in an earlier attempt that did not learn of it."""
    return Generation.objects.filter(pk=generation, process=process, state=end.reason).exists()


def visitor_of(generation: UUID) -> UUID | None:
    """Return whose generation it is by now; None if it was deleted."""
    visitor: UUID | None = Generation.objects.filter(pk=generation).values_list("visitor", flat=True).first()
    return visitor


def interrupt_others(process: UUID) -> int:
    """End what other processes have under way, as interrupted; return how many there were."""
    return end(Generation.objects.filter(state__in=Generation.LIVE).exclude(process=process), INTERRUPTED)


def stored(row: Generation) -> StoredGeneration:
    """Return state and figures of a row."""
    return StoredGeneration(
        id=row.pk,
        state=row.state,
        usage=Usage(
            prompt_tokens=row.prompt_tokens or 0,
            cached_tokens=row.cached_tokens or 0,
            completion_tokens=row.completion_tokens or 0,
            left_out_turns=row.left_out_turns or 0,
        ),
        timings=Timings(
            queue_time=row.queue_time,
            ttft=row.ttft,
            decode_time=row.decode_time,
            tokens_per_second=row.tokens_per_second,
        ),
        code=row.code or None,
        message=row.error or None,
        model=row.model,
    )
