"""Connects the package to Django: its settings come from `django.conf.settings`, its system checks are registered."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks

from llm import conf
from llm.errors import ConfigurationError


class LLMConfig(AppConfig):
    name = "llm"
    verbose_name = "Language model"

    def ready(self) -> None:
        from llm.checks import check_settings, configured

        checks.register(check_settings, "llm")
        try:
            conf.configure(configured())
        except ConfigurationError:
            return  # llm.E001 says it in one line; raising here would be a traceback
