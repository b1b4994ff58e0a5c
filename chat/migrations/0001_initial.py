import uuid

from django.conf import settings
from django.db import migrations, models
from django.db.models import CASCADE, SET_NULL

STATES = [
    ("queued", "Waiting"),
    ("running", "Running"),
    ("stop", "Complete"),
    ("length", "Cut at the limit"),
    ("cancelled", "Stopped by the visitor"),
    ("timeout", "Timed out"),
    ("error", "Failed"),
    ("interrupted", "Interrupted"),
]


def key(**options):
    return ("id", models.UUIDField(primary_key=True, editable=False, serialize=False, **options))


def link(to, **options):
    return models.ForeignKey(to=to, **{"on_delete": CASCADE, **options})


class Migration(migrations.Migration):
    initial = True
    dependencies = [migrations.swappable_dependency(settings.AUTH_USER_MODEL)]
    operations = [
        migrations.CreateModel(
            name="Visitor",
            fields=[
                key(default=uuid.uuid4),
                (
                    "user",
                    models.OneToOneField(
                        settings.AUTH_USER_MODEL,
                        blank=True,
                        null=True,
                        on_delete=CASCADE,
                        related_name="visitor",
                        verbose_name="account",
                    ),
                ),
                (
                    "became",
                    link(
                        "chat.visitor",
                        blank=True,
                        editable=False,
                        help_text="The account's visitor, if this browser's was another one when it signed in; "
                        "its rows went there.",
                        null=True,
                        related_name="+",
                    ),
                ),
                ("created", models.DateTimeField(auto_now_add=True)),
            ],
            options={"verbose_name": "visitor", "verbose_name_plural": "visitors"},
        ),
        migrations.CreateModel(
            name="Conversation",
            fields=[
                key(default=uuid.uuid4),
                ("visitor", link("chat.visitor", related_name="conversations", verbose_name="visitor")),
                ("title", models.CharField("title", max_length=60)),
                ("pinned", models.BooleanField(default=False)),
                (
                    "settings",
                    models.JSONField(
                        blank=True, default=dict, help_text="How its answers are made: ConversationSettings."
                    ),
                ),
                ("created", models.DateTimeField("created", auto_now_add=True)),
                ("updated", models.DateTimeField("updated", help_text="When its last message was accepted.")),
                (
                    "deleted",
                    models.DateTimeField(
                        blank=True, editable=False, help_text="Out of sight since then, and gone soon after.", null=True
                    ),
                ),
            ],
            options={
                "verbose_name": "conversation",
                "verbose_name_plural": "conversations",
                "indexes": [
                    models.Index(fields=["visitor", "-updated"], name="conversations_of_visitor"),
                    models.Index(
                        condition=models.Q(("deleted__isnull", False)), fields=["deleted"], name="deleted_conversations"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Message",
            fields=[
                key(default=uuid.uuid4),
                ("conversation", link("chat.conversation", related_name="messages", verbose_name="conversation")),
                ("parent", link("chat.message", blank=True, null=True, related_name="children")),
                ("role", models.CharField("role", choices=[("user", "Visitor"), ("assistant", "Model")], max_length=9)),
                ("text", models.TextField("text", blank=True)),
                ("created", models.DateTimeField("created", auto_now_add=True)),
            ],
            options={"verbose_name": "message", "verbose_name_plural": "messages"},
        ),
        migrations.AddField(
            model_name="conversation",
            name="head",
            field=link(
                "chat.message",
                blank=True,
                null=True,
                on_delete=SET_NULL,
                related_name="+",
                verbose_name="last message of the shown branch",
            ),
        ),
        migrations.CreateModel(
            name="Generation",
            fields=[
                key(default=uuid.uuid4),
                ("visitor", link("chat.visitor", related_name="generations")),
                (
                    "conversation",
                    link(
                        "chat.conversation",
                        blank=True,
                        null=True,
                        related_name="generations",
                        verbose_name="conversation",
                    ),
                ),
                ("answer", link("chat.message", blank=True, null=True, related_name="generations")),
                ("request_id", models.CharField(editable=False, max_length=64, null=True)),
                ("process", models.UUIDField(editable=False)),
                ("state", models.CharField("state", choices=STATES, default="queued", max_length=11)),
                ("code", models.CharField("code", blank=True, max_length=40)),
                ("error", models.TextField("error", blank=True)),
                ("created", models.DateTimeField("created", auto_now_add=True)),
                ("ended", models.DateTimeField("ended", blank=True, null=True)),
                ("model", models.TextField("model", blank=True)),
                ("prompt_tokens", models.PositiveIntegerField("prompt tokens", blank=True, null=True)),
                ("cached_tokens", models.PositiveIntegerField("cached tokens", blank=True, null=True)),
                ("completion_tokens", models.PositiveIntegerField("completion tokens", blank=True, null=True)),
                (
                    "left_out_turns",
                    models.PositiveIntegerField(
                        "left out turns",
                        blank=True,
                        help_text="Turns of the conversation that were not in the prompt, the oldest.",
                        null=True,
                    ),
                ),
                (
                    "queue_time",
                    models.FloatField("queue time", blank=True, help_text="Seconds in the queue.", null=True),
                ),
                (
                    "ttft",
                    models.FloatField(
                        "time to first text", blank=True, help_text="Seconds since the message came.", null=True
                    ),
                ),
                (
                    "decode_time",
                    models.FloatField(
                        "decode time", blank=True, help_text="Seconds from the first token to the last.", null=True
                    ),
                ),
                ("tokens_per_second", models.FloatField("tokens per second", blank=True, null=True)),
            ],
            options={
                "verbose_name": "generation",
                "verbose_name_plural": "generations",
                "indexes": [models.Index(fields=["state", "process"], name="generations_by_state")],
                "constraints": [
                    models.UniqueConstraint(fields=("visitor", "request_id"), name="request_runs_once"),
                    models.UniqueConstraint(
                        condition=models.Q(("state__in", ["queued", "running"])),
                        fields=("conversation",),
                        name="one_live_generation_per_conversation",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Feedback",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("answer", models.OneToOneField("chat.message", on_delete=CASCADE, related_name="feedback")),
                ("value", models.SmallIntegerField(choices=[(1, "Good"), (-1, "Bad")])),
                ("comment", models.TextField(blank=True)),
                ("created", models.DateTimeField(auto_now_add=True)),
            ],
            options={"verbose_name": "rating", "verbose_name_plural": "ratings"},
        ),
        migrations.CreateModel(
            name="Process",
            fields=[key(), ("last_seen", models.DateTimeField())],
            options={"verbose_name_plural": "processes"},
        ),
        migrations.CreateModel(
            name="Chore",
            fields=[
                ("name", models.CharField(editable=False, max_length=20, primary_key=True, serialize=False)),
                ("begun", models.DateTimeField()),
                ("done_until", models.DateTimeField(null=True)),
            ],
        ),
    ]
