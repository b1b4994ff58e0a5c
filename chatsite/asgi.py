"""Routes connections: HTTP to Django, WebSockets through the origin check and the session to the chat."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chatsite.settings")
http = get_asgi_application()  # loads the apps, which the imports below need

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.sessions import SessionMiddlewareStack  # noqa: E402

from chat.routing import websocket_urlpatterns  # noqa: E402
from chatsite.origin import OriginCheck  # noqa: E402
from chatsite.start import Starting  # noqa: E402

application = Starting(
    ProtocolTypeRouter(
        {
            "http": http,
            "websocket": OriginCheck(SessionMiddlewareStack(URLRouter(websocket_urlpatterns))),
        }
    )
)
