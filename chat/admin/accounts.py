"""Has accounts in Django's own pages deleted with their conversations."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.admin import UserAdmin

from chat.admin.deletion import DeletesConversations

admin.site.unregister(get_user_model())


@admin.register(get_user_model())
class AccountAdmin(DeletesConversations, UserAdmin):
    owned_by = "visitor__user"
