"""Installs the chat as an app."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class ChatConfig(AppConfig):
    name = "chat"
    verbose_name = _("Chat")

    def ready(self) -> None:
        from chat import checks  # noqa: F401 it registers checks, and needs the apps
        from chat.visitors import identity  # noqa: F401 it registers receivers of signals
