"""The addresses of the chat."""

from django.urls import path

from chat import api, views

urlpatterns = [
    path("", views.page, name="chat"),
    path("c/<uuid:conversation>/", views.page, name="conversation"),
    path("api/conversations/", api.conversations, name="api-conversations"),
    path("api/conversations/<uuid:conversation>/", api.conversation, name="api-conversation"),
    path("stats", api.stats, name="stats"),
    path("healthz", api.healthz, name="healthz"),
    path("readyz", api.readyz, name="readyz"),
]
