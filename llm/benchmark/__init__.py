"""Measures how fast the engine is on this machine: `python manage.py benchmark`, or `python -m llm.benchmark`.

It measures the local backend, without queue and sockets, or any server with an OpenAI-compatible API (`--url`). The
second command needs no Django. Read `plan` first: it says what is measured.

    options     what the command line asks for
    plan        the measurements, in order, and the run over them
    chat        one generation and the times of its tokens
    target      where generations come from: the local backend, a server
    load        measurements with many chats: throughput, time to first token, gaps, cancel
    machine     the processor, memory, and how long a start takes
    quality     perplexity
    report      rows, and how they are shown
"""
