"""What goes by itself, and what stays."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth.models import User
from django.contrib.sessions.backends.cached_db import SessionStore as CachedSessionStore
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.db import OperationalError
from django.test import Client, override_settings
from django.utils import timezone

from chat import retention
from chat.history.history import History
from chat.history.values import Caller
from chat.models import Chore, Conversation, Generation, Message, Visitor
from chat.retention import BATCH, Purged, Retention, begin, purge
from chat.turns.registry import Turns
from llm.events import Finished
from tests.chat.conftest import Connect, a_visitor, again, question
from tests.chat.doubles import ScriptedController

pytestmark = pytest.mark.django_db(transaction=True)

DAY = timedelta(days=1)

HANDLER = Client().handler


def opened(written: timedelta, client: Client | None = None) -> Client:
    """A browser that opened the page, and whose session was last written so long ago."""
    if client is None:
        client = Client()
        client.handler = HANDLER  # it takes a while to make one
    again(client)
    client.get("/")
    age(client, written)
    return client


def age(client: Client, written: timedelta) -> None:
    row = Session.objects.get(pk=client.session.session_key)
    row.expire_date = timezone.now() + timedelta(days=365) - written
    row.save()


def caller(client: Client) -> Caller:
    return Caller(UUID(client.session["visitor"]), client.session["temporary"])


def said(visitor: Caller, *, temporary: bool = False) -> UUID:
    accepted = async_to_sync(History().accept)(question(visitor, temporary=temporary))
    async_to_sync(accepted.store.finish)(accepted.generation, "x", Finished(reason="stop"))
    return accepted.conversation


def lives(client: Client) -> bool:
    return Session.objects.filter(pk=client.cookies["sessionid"].value).exists()


def test_a_deleted_conversation_goes_after_a_minute_with_all_it_has() -> None:
    visitor = a_visitor()
    kept, fresh, old = (said(visitor) for _ in range(3))
    Conversation.objects.filter(pk=fresh).update(deleted=timezone.now() - timedelta(seconds=50))
    Conversation.objects.filter(pk=old).update(deleted=timezone.now() - timedelta(seconds=61))
    assert purge().conversations == 1
    assert set(Conversation.objects.values_list("pk", flat=True)) == {kept, fresh}
    assert Message.objects.count() == 4
    assert Generation.objects.count() == 2


def test_more_than_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 3)
    visitor = a_visitor()
    for _ in range(7):
        said(visitor)
        opened(2 * DAY)
    Conversation.objects.update(deleted=timezone.now() - DAY)
    Session.objects.update(expire_date=timezone.now() + 363 * DAY)  # all at the same moment
    purged = purge()
    assert (purged.conversations, purged.unused_sessions) == (7, 7)


async def test_an_answer_in_a_deleted_conversation_ends_with_it(
    turns: Turns, connect: Connect, controller: ScriptedController, visitor: Caller
) -> None:
    async with connect(visitor) as socket:
        accepted = await socket.ask("message.send", text="Hello")
        await turns.history.delete(visitor, UUID(accepted["conversation"]))
        await Conversation.objects.aupdate(deleted=timezone.now() - DAY)
        await sync_to_async(purge)()
        await controller.tickets[0].say("To nobody")
        await socket.until("generation.finished", reason="interrupted")
    assert controller.tickets[0].cancelled
    assert not await Message.objects.aexists()


def test_a_session_goes_when_it_ends_and_a_temporary_chat_with_its_own() -> None:
    ended, lasting = opened(366 * DAY), opened(364 * DAY)
    said(caller(lasting))
    visitor = a_visitor()
    said(visitor, temporary=True)
    assert purge().expired_sessions == 1
    assert lives(lasting)
    assert not lives(ended)
    assert Session.objects.filter(pk=visitor.temporary).exists()
    Session.objects.filter(pk=visitor.temporary).update(expire_date=timezone.now() - timedelta(seconds=1))
    assert purge().expired_sessions == 1
    assert Generation.objects.count() == 2  # the figures stay


def test_a_session_without_a_message_goes_after_a_day() -> None:
    fresh, unused = opened(DAY - timedelta(minutes=1)), opened(DAY + timedelta(minutes=1))
    wrote, wrote_temporarily = opened(2 * DAY), opened(2 * DAY)
    said(caller(wrote))
    said(caller(wrote_temporarily), temporary=True)
    account = Client()
    account.force_login(User.objects.create_user("ada", password="x"))
    opened(2 * DAY, account)
    operator = Client()  # never saw the chat's page
    operator.force_login(User.objects.create_superuser("root", password="x"))
    age(operator, 2 * DAY)
    Visitor.objects.filter(user__username="root").delete()
    assert purge().unused_sessions == 1
    assert not lives(unused)
    assert all(lives(client) for client in (fresh, wrote, wrote_temporarily, account, operator))
    assert unused.get("/").status_code == 200  # begins anew


def test_each_session_is_looked_at_once_unless_it_is_written_again() -> None:
    begin()
    wrote = opened(2 * DAY)
    said(caller(wrote))
    purge()
    Visitor.objects.all().delete()
    assert purge().unused_sessions == 0  # it is not looked at any more
    assert lives(wrote)
    age(wrote, DAY + timedelta(hours=1))
    assert purge().unused_sessions == 1
    again = opened(3 * DAY)
    assert purge().unused_sessions == 0
    call_command("purge")  # looks at all
    assert not lives(again)


@override_settings(SESSION_ENGINE="django.contrib.sessions.backends.cached_db")
def test_a_session_goes_from_the_cache_too() -> None:
    unused = opened(2 * DAY, Client())
    key = unused.cookies["sessionid"].value
    assert CachedSessionStore(key).load()
    assert purge().unused_sessions == 1
    assert not CachedSessionStore(key).load()


def test_a_visitor_without_anything_goes_an_account_does_not() -> None:
    User.objects.create_user("ada", password="x")
    long_ago = timezone.now() - 2 * DAY
    conversation = said(a_visitor())
    said(a_visitor(), temporary=True)
    account = Visitor.objects.create(user=User.objects.get())
    for _ in range(2):
        Visitor.objects.create()
    Visitor.objects.update(created=long_ago)
    fresh = Visitor.objects.create()
    assert purge().visitors == 2
    assert Visitor.objects.filter(pk__in=[account.pk, fresh.pk]).count() == 2
    assert Visitor.objects.count() == 4
    Conversation.objects.get(pk=conversation).delete()
    assert purge().visitors == 1


def test_once_a_minute() -> None:
    assert begin()
    assert not begin()
    Chore.objects.update(begun=timezone.now() - timedelta(seconds=61))
    assert begin()
    assert not begin()


def test_what_cannot_be_deleted_keeps_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    strange = SessionStore()
    strange["visitor"] = "nobody"
    strange.save()
    Session.objects.update(expire_date=timezone.now() + 363 * DAY)

    def fails(stop: object) -> int:
        raise OperationalError("locked")

    monkeypatch.setattr(retention, "_conversations", fails)
    with pytest.raises(ExceptionGroup) as raised:
        purge()
    assert [str(error) for error in raised.value.exceptions] == ["locked"]
    assert not Session.objects.exists()


async def test_one_of_several_processes_does_it() -> None:
    processes = [Retention() for _ in range(4)]
    done = await asyncio.gather(*(each.once() for each in processes))
    assert sum(each is not None for each in done) == 1
    await Chore.objects.aupdate(begun=datetime(2026, 1, 1, tzinfo=timezone.get_default_timezone()))
    done = await asyncio.gather(*(each.once() for each in processes))
    assert sum(each is not None for each in done) == 1
    for each in processes:
        await each.aclose()


async def test_it_begins_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def observed(**options: Any) -> Purged:
        purged = purge(**options)
        loop.call_soon_threadsafe(done.set)
        return purged

    monkeypatch.setattr(retention, "purge", observed)
    conversation = await sync_to_async(said)(a_visitor())
    await Conversation.objects.aupdate(deleted=timezone.now() - DAY)
    upkeep = Retention()
    upkeep.start()
    await done.wait()
    await upkeep.aclose()
    assert not await Conversation.objects.filter(pk=conversation).aexists()


def test_the_command_says_what_is_gone(capsys: pytest.CaptureFixture[str]) -> None:
    said(a_visitor())
    Conversation.objects.update(deleted=timezone.now() - DAY)
    opened(2 * DAY)
    call_command("purge")
    assert capsys.readouterr().out.startswith("Gone: 1 deleted conversations, 0 sessions that ended, 1 sessions")


def test_sessions_of_those_who_do_not_keep_theirs_are_bounded() -> None:
    for _ in range(BATCH + 50):
        opened(timedelta())
    assert Session.objects.count() == BATCH + 50
    Session.objects.update(expire_date=timezone.now() + 363 * DAY)
    assert purge().unused_sessions == BATCH + 50
    assert not Session.objects.exists()
