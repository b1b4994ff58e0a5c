"""The tables of the chat: who, which conversation, what was said, and how each answer came about.

Rows are written by `chat.history`, `chat.visitors`, `chat.cluster.heartbeat` and `chat.retention` alone, and most are
deleted by the last. Keys that leave the server are random, and whoever knows one still has to own the row.
"""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

TITLE_LENGTH = 60


class Visitor(models.Model):
    """The owner of conversations: a browser, or an account with all its browsers."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.OneToOneField(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="visitor",
        verbose_name=_("account"),
    )
    became = models.ForeignKey(
        "self",
        null=True,
        blank=True,
        editable=False,
        on_delete=models.CASCADE,
        related_name="+",
        help_text="The account's visitor, if this browser's was another one when it signed in; its rows went there.",
    )
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = _("visitor")
        verbose_name_plural = _("visitors")

    def __str__(self) -> str:
        if self.user is not None:
            return str(self.user)
        return gettext("visitor %(id)s") % {"id": str(self.id)[:8]}


class Conversation(models.Model):
    """A tree of messages, of which one branch is shown."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    visitor = models.ForeignKey(
        Visitor, on_delete=models.CASCADE, related_name="conversations", verbose_name=_("visitor")
    )
    title = models.CharField(_("title"), max_length=TITLE_LENGTH)
    head = models.ForeignKey(
        "Message",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        verbose_name="last message of the shown branch",
    )
    pinned = models.BooleanField(default=False)
    settings = models.JSONField(default=dict, blank=True, help_text="How its answers are made: ConversationSettings.")
    created = models.DateTimeField(_("created"), auto_now_add=True)
    updated = models.DateTimeField(_("updated"), help_text=_("When its last message was accepted."))
    deleted = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="Out of sight since then, and gone soon after."
    )

    class Meta:
        verbose_name = _("conversation")
        verbose_name_plural = _("conversations")
        indexes: ClassVar = [
            models.Index(fields=["visitor", "-updated"], name="conversations_of_visitor"),
            models.Index(fields=["deleted"], name="deleted_conversations", condition=Q(deleted__isnull=False)),
        ]

    def __str__(self) -> str:
        return self.title


class Message(models.Model):
    """A question, which follows an answer or starts the conversation, or an answer, which follows its question."""

    class Role(models.TextChoices):
        USER = "user", _("Visitor")
        ASSISTANT = "assistant", _("Model")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    conversation = models.ForeignKey(
        Conversation, on_delete=models.CASCADE, related_name="messages", verbose_name=_("conversation")
    )
    parent = models.ForeignKey("self", null=True, blank=True, on_delete=models.CASCADE, related_name="children")
    role = models.CharField(_("role"), max_length=9, choices=Role.choices)
    text = models.TextField(_("text"), blank=True)
    created = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("message")
        verbose_name_plural = _("messages")

    def __str__(self) -> str:
        return f"{self.get_role_display()}: {self.text[:TITLE_LENGTH]}"


class Generation(models.Model):
    """One run of the model that writes an answer: its state while it lives, its outcome after."""

    class State(models.TextChoices):
        QUEUED = "queued", _("Waiting")
        RUNNING = "running", _("Running")
        STOP = "stop", _("Complete")
        LENGTH = "length", _("Cut at the limit")
        CANCELLED = "cancelled", _("Stopped by the visitor")
        TIMEOUT = "timeout", _("Timed out")
        ERROR = "error", _("Failed")
        INTERRUPTED = "interrupted", _("Interrupted")

    LIVE: ClassVar = (State.QUEUED, State.RUNNING)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    visitor = models.ForeignKey(Visitor, on_delete=models.CASCADE, related_name="generations")
    # Both are null in a temporary chat, whose text is in no table: what is left are its figures.
    conversation = models.ForeignKey(
        Conversation,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="generations",
        verbose_name=_("conversation"),
    )
    answer = models.ForeignKey(Message, null=True, blank=True, on_delete=models.CASCADE, related_name="generations")
    request_id = models.CharField(max_length=64, null=True, editable=False)  # noqa: DJ001 NULL keeps out of UNIQUE
    process = models.UUIDField(editable=False)  # the web process that runs it
    state = models.CharField(_("state"), max_length=11, choices=State.choices, default=State.QUEUED)
    code = models.CharField(_("code"), max_length=40, blank=True)
    error = models.TextField(_("error"), blank=True)
    created = models.DateTimeField(_("created"), auto_now_add=True)
    ended = models.DateTimeField(_("ended"), null=True, blank=True)
    model = models.TextField(_("model"), blank=True)
    prompt_tokens = models.PositiveIntegerField(_("prompt tokens"), null=True, blank=True)
    cached_tokens = models.PositiveIntegerField(_("cached tokens"), null=True, blank=True)
    completion_tokens = models.PositiveIntegerField(_("completion tokens"), null=True, blank=True)
    left_out_turns = models.PositiveIntegerField(
        _("left out turns"),
        null=True,
        blank=True,
        help_text=_("Turns of the conversation that were not in the prompt, the oldest."),
    )
    queue_time = models.FloatField(_("queue time"), null=True, blank=True, help_text=_("Seconds in the queue."))
    ttft = models.FloatField(
        _("time to first text"), null=True, blank=True, help_text=_("Seconds since the message came.")
    )
    decode_time = models.FloatField(
        _("decode time"), null=True, blank=True, help_text=_("Seconds from the first token to the last.")
    )
    tokens_per_second = models.FloatField(_("tokens per second"), null=True, blank=True)

    class Meta:
        verbose_name = _("generation")
        verbose_name_plural = _("generations")
        indexes: ClassVar = [models.Index(fields=["state", "process"], name="generations_by_state")]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["visitor", "request_id"], name="request_runs_once"),
            models.UniqueConstraint(
                fields=["conversation"],
                condition=Q(state__in=["queued", "running"]),
                name="one_live_generation_per_conversation",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_state_display()} ({str(self.id)[:8]})"


class Process(models.Model):
    """A web process, and when it last gave a sign of life, by the database's clock."""

    id = models.UUIDField(primary_key=True, editable=False)  # the `process` of its generations
    last_seen = models.DateTimeField()

    class Meta:
        verbose_name_plural = "processes"

    def __str__(self) -> str:
        return f"process {str(self.id)[:8]}"


class Chore(models.Model):
    """A task that one of the web processes does now and then, and when it was last begun, by the database's clock."""

    name = models.CharField(max_length=20, primary_key=True, editable=False)
    begun = models.DateTimeField()
    done_until = models.DateTimeField(null=True)  # how far the task came, where the next run goes on

    def __str__(self) -> str:
        return self.name


class Feedback(models.Model):
    """A visitor's rating of an answer."""

    answer = models.OneToOneField(Message, on_delete=models.CASCADE, related_name="feedback")
    value = models.SmallIntegerField(choices=[(1, "Good"), (-1, "Bad")])
    comment = models.TextField(blank=True)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = _("rating")
        verbose_name_plural = _("ratings")

    def __str__(self) -> str:
        return f"{self.get_value_display()}: {self.comment[:TITLE_LENGTH]}"
