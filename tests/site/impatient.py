"""manage.py for a server that gives up a silent socket after four seconds, where it has twenty of patience."""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chatsite.settings")
    import django

    django.setup()
    from chatsite import server, sockets

    server.PING_SECONDS = 1
    sockets.ChatSocket.SILENCE = 4.0
    execute_from_command_line(sys.argv)
