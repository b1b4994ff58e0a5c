"""Installs the chat as an app."""

from django.apps import AppConfig


class ChatConfig(AppConfig):
    name = "chat"

    def ready(self) -> None:
        from chat import checks  # noqa: F401 it registers checks, and needs the apps
        from chat.visitors import identity  # noqa: F401 it registers receivers of signals
