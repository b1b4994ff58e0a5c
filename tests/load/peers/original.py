"""The original ChatStream 0.3.0 on the rows of `manage.py benchmark --only throughput`, over its own HTTP endpoint.

    python -m venv /tmp/original
    /tmp/original/bin/pip install chatstream==0.3.0 fastapi==0.115.6 uvicorn httpx psutil torch transformers
    /tmp/original/bin/python tests/load/peers/original.py MODEL

MODEL is a directory that transformers loads (the bundled one is converted into `var/models/`). Needs nothing of this
project; `compare` runs it with `--original /tmp/original/bin/python --original-model MODEL`. It sends the whole answer
and an end mark with each token: the marks are counted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import threading
import time
from typing import Any

import httpx
import torch
import uvicorn
from chatstream import AbstractChatPrompt, ChatStream
from fastapi import FastAPI, Request
from transformers import AutoModelForCausalLM, AutoTokenizer

MARK = b"<::EOS::>"
PORT = 8179


class Prompt(AbstractChatPrompt):
    """A question and an open place for the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.set_requester("user")
        self.set_responder("assistant")

    def get_stop_strs(self) -> list[str]:
        return []

    def create_prompt(self, opts: Any = None) -> str:
        contents = self.get_contents(opts) if opts else self.get_contents()
        return "".join(f"{each.get_role()}: {each.get_message() or ''}\n" for each in contents)

    def build_initial_prompt(self, chat_prompt: Any) -> None:
        pass


async def answer(client: httpx.AsyncClient, text: str, times: list[float]) -> None:
    rest = b""
    async with client.stream("POST", "/chat_stream", json={"user_input": text, "regenerate": False}) as response:
        response.raise_for_status()
        async for piece in response.aiter_raw():
            *marks, rest = (rest + piece).split(MARK)
            times += [time.perf_counter()] * len(marks)


async def measure(count: int, length: int, tokens: int) -> float:
    """Tokens a second while all are answered."""
    words = " ".join(f"word{i % 7}" for i in range(length // 3))
    times: list[list[float]] = [[] for _ in range(count)]
    async with contextlib.AsyncExitStack() as stack:
        answers = []
        for number, seen in enumerate(times):  # a client each: the original keeps one history for each session
            client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{PORT}", timeout=600)
            answers.append(answer(await stack.enter_async_context(client), f"{number} {words}", seen))
        await asyncio.gather(*answers)
    start, end = max(seen[0] for seen in times), min(seen[-1] for seen in times)
    return sum(start < moment <= end for seen in times for moment in seen) / (end - start)


class Server(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = threading.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.listening.set()


async def measured(given: argparse.Namespace) -> None:
    rows = [
        {
            "name": "throughput",
            "of": {"chats": count, "context": context},
            "values": {"tokens_per_second": await measure(count, context, given.tokens)},
        }
        for context in given.contexts
        for count in given.chats
    ]
    sys.stdout.write(json.dumps({"model": "ChatStream 0.3.0", "rows": rows}) + "\n")
    sys.stdout.flush()
    os._exit(0)  # its own handlers would keep it


def served(given: argparse.Namespace) -> FastAPI:
    chat = ChatStream(
        num_of_concurrent_executions=max(given.chats),
        max_queue_size=max(given.chats) + 2,
        model=AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32).eval(),
        tokenizer=AutoTokenizer.from_pretrained(given.model),
        device="cpu",
        chat_prompt_clazz=Prompt,
        max_new_tokens=given.tokens + 2 * max(given.chats),
        context_len=2048,
        temperature=1.0,
    )
    app = FastAPI(on_startup=[chat.start_queue_worker])
    chat.append_middlewares(app)

    @app.post("/chat_stream")
    async def chat_stream(request: Request) -> Any:
        return await chat.handle_chat_stream_request(request)

    return app


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--chats", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--contexts", type=int, nargs="+", default=[40])
    parser.add_argument("--tokens", type=int, default=32)
    given = parser.parse_args()
    server = Server(uvicorn.Config(served(given), port=PORT, log_level="error"))

    def clients() -> None:
        """In a thread of its own: the model runs on the server's loop."""
        server.listening.wait()
        asyncio.run(measured(given))

    threading.Thread(target=clients, daemon=True).start()
    server.run()


if __name__ == "__main__":
    main()
