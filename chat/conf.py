"""Defines the settings of the chat: names, types, defaults and ranges, in one place.

A setting `CHAT_SESSION_DAYS` is the field `session_days`. Knows nothing of the environment; `chatsite.settings` puts
values into Django's settings as strings, and they are converted here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver
from msgspec import Meta

Positive = Annotated[int, Meta(ge=1)]

DEFAULT_PORTS = {"http": "80", "https": "443"}
"""Ports that are not written in an origin."""

ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([\w.-]+|\[[0-9a-f:.]+\])(?::(\d+))?/?")


class ChatSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of the chat; the comments say what the README's table says at length."""

    message_max_chars: Annotated[int, Meta(ge=1, le=50_000)] = 16_000  # of one message of a visitor
    messages_per_minute: Annotated[int, Meta(ge=0)] = 30  # of one visitor; 0: no limit
    messages_per_minute_per_address: Annotated[int, Meta(ge=0)] = 0  # of all visitors of one address; 0: no limit
    sockets_per_visitor: Positive = 20  # open at a time, over all tabs
    watches_per_socket: Positive = 8  # answers that one socket follows at once
    unwatched_seconds: Annotated[float, Meta(gt=0)] = 120.0  # that a waiting question keeps its place for nobody
    drain_seconds: Annotated[float, Meta(ge=0)] = 20.0  # for answers under way when the server is told to stop
    revalidate_seconds: Annotated[float, Meta(gt=0)] = 30.0  # between two looks of a socket at its session
    temporary: Literal["off", "optional", "default", "only"] = "optional"  # chats that are in the session alone
    login_required: bool = False  # nobody gets in without an account
    sign_up: bool | None = None  # who comes may make an account; None: unless one is required
    sign_ins_per_minute: Annotated[int, Meta(ge=0)] = 10  # failed attempts of one address; 0: no limit
    system_prompt: Literal["extend", "replace", "fixed"] = "extend"  # of a conversation, beside LLM_SYSTEM_PROMPT
    origins: tuple[str, ...] = ()  # further origins whose pages may open a socket and send forms, comma-separated
    session_days: Annotated[int, Meta(ge=1, le=3_650)] = 365  # without a visit, until the browser is forgotten

    @property
    def may_sign_up(self) -> bool:
        """Whether anybody may make an account: as the operator says, else where an account is not required."""
        return not self.login_required if self.sign_up is None else self.sign_up


FIELDS: dict[str, str] = {f"CHAT_{field.upper()}": field for field in ChatSettings.__struct_fields__}


def from_mapping(values: Mapping[str, Any], *, strict: bool = True) -> ChatSettings:
    """Make settings from a mapping of setting names; other names in it are not looked at.

    Raises ImproperlyConfigured, one line, naming the setting that is wrong; with `strict=False` such a setting takes
    its default, for those who cannot wait until the system checks have reported it.
    """
    found: dict[str, Any] = {}
    for name, field in FIELDS.items():
        if name not in values:
            continue
        try:
            found[field] = _value(field, values[name])
        except msgspec.ValidationError as error:
            if strict:
                raise ImproperlyConfigured(f"{name}={values[name]}: {_in_words(error)}") from error
    return ChatSettings(**found)


def _value(field: str, value: Any) -> Any:
    if field == "origins" and isinstance(value, str):
        value = [_origin(origin.strip()) for origin in value.split(",") if origin.strip()]
    if field == "sign_up" and value == "":
        value = None
    return getattr(msgspec.convert({field: value}, ChatSettings, strict=False), field)


def _origin(value: str) -> str:
    """Return an origin as browsers write it. Raises ValidationError."""
    found = ORIGIN.fullmatch(value.lower())
    if found is None:
        raise msgspec.ValidationError("Expected scheme://host or scheme://host:port for each origin")
    scheme, host, port = found.groups()
    return f"{scheme}://{host}" if port in (None, DEFAULT_PORTS.get(scheme)) else f"{scheme}://{host}:{port}"


def _in_words(error: Exception) -> str:
    what = str(error).partition(" - at ")[0]
    return what[:1].lower() + what[1:].replace("`", "")


@functools.cache
def get_settings() -> ChatSettings:
    """Return what Django's settings say."""
    return from_mapping({name: getattr(django_settings, name) for name in FIELDS if hasattr(django_settings, name)})


@receiver(setting_changed, dispatch_uid="chat.conf")
def _forget(*, setting: str, **_: object) -> None:
    if setting in FIELDS:
        get_settings.cache_clear()
