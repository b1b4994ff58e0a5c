"""manage.py for a server that gives up after a few seconds: a silent socket, a slow request, an unread answer."""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chatsite.settings")
    import django

    django.setup()
    from chatsite.server import requests, server, sockets

    server.PING_SECONDS = 1
    sockets.ChatSocket.SILENCE = 4.0
    server.CLOSING_SECONDS = 4.0
    requests.REQUEST_SECONDS = requests.UNREAD_SECONDS = requests.LINGER_SECONDS = requests.Channel.abortTimeout = 2.0
    execute_from_command_line(sys.argv)
