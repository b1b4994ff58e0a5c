"""What our server is measured against: a Channels consumer that does nothing else, for plain daphne.

`daphne tests.load.bare:application`. A socket that asks for N frames of a text gets them, in a loop.
"""

import asyncio
import json
from typing import Any

from django.conf import settings

settings.configure()  # no database, no channel layer

from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter  # noqa: E402


class Bare(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        asked: dict[str, Any] = json.loads(text_data or "{}")
        for sent in range(asked["frames"]):
            await self.send(text_data=asked["text"])
            if sent % 50 == 49:
                await asyncio.sleep(0)  # otherwise nothing is written before the last one is made


application = ProtocolTypeRouter({"websocket": Bare.as_asgi()})
