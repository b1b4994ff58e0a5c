"""The addresses of the chat."""

from django.urls import path
from django.views.i18n import set_language

from chat import accounts, api, views

urlpatterns = [
    path("", views.page, name="chat"),
    path("c/<uuid:conversation>/", views.page, name="conversation"),
    path("api/conversations/", api.conversations, name="api-conversations"),
    path("api/conversations/<uuid:conversation>/", api.conversation, name="api-conversation"),
    path("api/conversations/<uuid:conversation>/restore/", api.restore, name="api-restore"),
    path("api/messages/<uuid:message>/", api.message, name="api-message"),
    path("api/messages/<uuid:message>/feedback/", api.feedback, name="api-feedback"),
    path("c/<uuid:conversation>/export.md", api.export, {"kind": "md"}, name="export-markdown"),
    path("c/<uuid:conversation>/export.json", api.export, {"kind": "json"}, name="export-json"),
    path("account/", accounts.account, name="account"),
    path("account/sign-in/", accounts.sign_in, name="sign-in"),
    path("account/sign-up/", accounts.sign_up, name="sign-up"),
    path("account/sign-out/", accounts.sign_out, name="sign-out"),
    path("language/", set_language, name="set_language"),
    path("stats", api.stats, name="stats"),
    path("healthz", api.healthz, name="healthz"),
    path("readyz", api.readyz, name="readyz"),
]
