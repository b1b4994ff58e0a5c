"""Lists the addresses of the chat."""

from django.urls import path
from django.views.i18n import set_language

from chat import views
from chat.accounts import views as accounts
from chat.api import conversations, operations

urlpatterns = [
    path("", views.page, name="chat"),
    path("c/<uuid:conversation>/", views.page, name="conversation"),
    path("api/conversations/", conversations.conversations, name="api-conversations"),
    path("api/conversations/<uuid:conversation>/", conversations.conversation, name="api-conversation"),
    path("api/conversations/<uuid:conversation>/restore/", conversations.restore, name="api-restore"),
    path("api/messages/<uuid:message>/", conversations.message, name="api-message"),
    path("api/messages/<uuid:message>/feedback/", conversations.feedback, name="api-feedback"),
    path("c/<uuid:conversation>/export.md", conversations.export, {"kind": "md"}, name="export-markdown"),
    path("c/<uuid:conversation>/export.json", conversations.export, {"kind": "json"}, name="export-json"),
    path("account/", accounts.account, name="account"),
    path("account/sign-in/", accounts.sign_in, name="sign-in"),
    path("account/sign-up/", accounts.sign_up, name="sign-up"),
    path("account/sign-out/", accounts.sign_out, name="sign-out"),
    path("language/", set_language, name="set_language"),
    path("stats", operations.stats, name="stats"),
    path("healthz", operations.healthz, name="healthz"),
    path("readyz", operations.readyz, name="readyz"),
]
