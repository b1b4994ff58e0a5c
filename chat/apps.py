"""The chat as an installed app."""

from django.apps import AppConfig


class ChatConfig(AppConfig):
    name = "chat"

    def ready(self) -> None:
        from chat import checks, visitors  # noqa: F401 they register checks and receivers, and need the apps
