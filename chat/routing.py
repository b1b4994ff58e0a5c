"""Lists the addresses of sockets."""

from django.urls import path, re_path

from chat.consumers import ChatConsumer, UnknownSocket

websocket_urlpatterns = [
    path("ws/chat/", ChatConsumer.as_asgi()),
    re_path("", UnknownSocket.as_asgi()),
]
