"""Serve the site with daphne; the model loads at start, not at the first visitor."""

from __future__ import annotations

import gc
import os
import sys
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandParser
from rich.console import Console

import llm
from chat.conf import get_settings
from chatsite.progress import LoadingProgress
from chatsite.server.server import Server
from chatsite.start import AlreadyServing
from chatsite.start import drain as drain_site
from chatsite.start import start as start_site
from chatsite.start import stop as stop_site
from llm.service.watchdog import notify


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
        parser.add_argument("--port", type=int, default=8000, help="port to listen on; 0 takes a free one")

    def handle(self, *args: Any, host: str, port: int, **options: Any) -> None:
        from chatsite.asgi import application

        console = Console(highlight=False)
        admins = get_user_model().objects.filter(is_superuser=True, is_active=True).exists()

        async def start(address: str) -> None:
            try:
                await start_site()
            except AlreadyServing as error:
                console.print(f"[red]Cannot start:[/red] {error}", soft_wrap=True)
                server.fail(1)
                return
            notify("READY=1")  # it answers, and says itself how far the model is
            _spare_streams_full_collections()
            controller = llm.get_controller()
            status = await LoadingProgress(controller, console).wait()
            if status.state == "failed":
                console.print(f"[red]Cannot start:[/red] {status.message}", soft_wrap=True)
                server.fail(os.EX_CONFIG)
                return
            console.print(f"{controller.model} is ready. Open [bold]{address}[/bold] (Ctrl-C stops)", soft_wrap=True)
            if not admins:
                console.print("No account for the admin yet: `make admin` asks for a name and a password.")

        server = Server(
            application,
            host=host,
            port=port,
            on_start=start,
            on_drain=drain_site,
            on_stop=stop_site,
            drain_seconds=get_settings().drain_seconds,
            max_body=settings.DATA_UPLOAD_MAX_MEMORY_SIZE,
        )
        server.run()
        sys.exit(server.exit_code)


def _spare_streams_full_collections() -> None:
    """Make full collections rare: each walks all objects, a tenth of a second with 500 sockets, in which no text moves.

    What is loaded by now stays, and need not be walked; what streams and sockets make is freed without it, so it can be
    rarer: some thousand views of pages apart, whose requests are the rings that need it.
    """
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, 50)
