"""What several processes do to the same rows at once: PostgreSQL locks rows, and not the database (test_postgresql)."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test import Client

from chat.db import write
from chat.errors import HistoryUnavailable, NotFound
from chat.history import database
from chat.history import history as history_module
from chat.history.database import edits
from chat.history.values import Accepted, Asked, Caller, Continue, Redo
from chat.models import Conversation, Visitor
from llm.events import Finished
from tests.chat.conftest import question

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one writer at a time"),
]

Elsewhere = Callable[[Callable[[], Any]], "Future[Any]"]


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    """Begin something as another process would, and return once it waits for what is locked here."""
    thread = ThreadPoolExecutor(1)

    def begin(doing: Callable[[], Any]) -> Future[Any]:
        future = thread.submit(doing)
        with connection.cursor() as cursor:
            while not future.done():
                cursor.execute("SELECT 1 FROM pg_locks WHERE NOT granted")
                if cursor.fetchone():
                    break
        return future

    yield begin
    thread.submit(lambda: connection.close()).result()  # that thread's
    thread.shutdown()


def accept(asked: Asked) -> Accepted:
    return history_module._accept(database, asked, uuid4())


@pytest.mark.parametrize("kind", [Redo, Continue])
def test_who_deletes_an_answer_and_who_has_it_go_on_wait_in_one_order(
    kind: type[Redo | Continue], visitor: Caller, elsewhere: Elsewhere
) -> None:
    accepted = accept(question(visitor))
    accepted.store._finish(accepted.generation, "An ans", Finished(reason="length"))  # type: ignore[union-attr]
    with transaction.atomic():
        Conversation.objects.select_for_update().get()
        again = kind(caller=visitor, request_id="f", answer=accepted.answer)
        accepting = elsewhere(lambda: accept(again))
        edits.delete_message(visitor, accepted.answer)
    with pytest.raises(NotFound):
        accepting.result()


def test_the_first_browsers_of_an_account_may_sign_in_at_once(elsewhere: Elsewhere) -> None:
    user, browsers = User.objects.create_user("ada", password="x"), [Client(), Client()]
    with transaction.atomic():
        browsers[0].force_login(user)
        signing_in = elsewhere(lambda: browsers[1].force_login(user))
    signing_in.result()
    found = {UUID(browser.session["visitor"]) for browser in browsers}
    assert found == {Visitor.objects.get(user=user).pk}


async def test_what_slept_within_a_transaction_can_be_tried_again() -> None:
    def sleep() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL idle_in_transaction_session_timeout = '10ms'")
            select.select([connection.connection], [], [])  # it hears of its end
            cursor.execute("SELECT 1")

    with pytest.raises(HistoryUnavailable):
        await write(sleep)
    assert await write(Visitor.objects.count) == 0
