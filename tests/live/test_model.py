"""The site with the bundled model, from the question in a browser's socket to the stored answer."""

from __future__ import annotations

import asyncio

import pytest

from tests.server import ROOT, Serve, Site
from tests.visitor import Answer, Visitor

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def site(serve: Serve) -> Site:
    """Converting the model takes half a minute, so all runs share the converted copy. In the model's own numbers, so
    that answers can be compared word by word; `tests/browser/test_bundled.py` has the site as it is."""
    models = ROOT / "var" / "test-cache" / "models"
    return serve(models=models, LLM_BACKEND="local", LLM_QUANTIZATION="none", LLM_MAX_NEW_TOKENS=120)


async def test_question_gets_a_sensible_answer(site: Site) -> None:
    visitor = Visitor(site.url)
    async with visitor.socket() as socket:
        accepted = await socket.ask("message.send", text="Who is Alan Turing?", params={"temperature": 0})
        answer = await socket.answer(accepted)
        assert answer.end["reason"] in ("stop", "length")
        assert "mathematician" in answer.text or "computer" in answer.text
        assert answer.kinds.count("delta") > 5
        usage = answer.end["usage"]
        assert usage["prompt_tokens"] > 10
        assert usage["completion_tokens"] > 10
        stored = await visitor.json(f"/api/conversations/{accepted['conversation']}/")
        assert stored["messages"][1]["text"] == answer.text

        again = await Answer.to(
            socket, "Where was he born?", conversation=accepted["conversation"], params={"temperature": 0}
        )
        assert again.end["usage"]["prompt_tokens"] > usage["prompt_tokens"] + usage["completion_tokens"]


async def test_a_cut_off_answer_goes_on_as_if_it_had_not_been(site: Site) -> None:
    visitor = Visitor(site.url)
    question = {"text": "Count from one to twenty.", "params": {"temperature": 0, "max_new_tokens": 40}}
    async with visitor.socket() as socket:
        whole = await Answer.to(socket, **question)
        question["params"] = {"temperature": 0, "max_new_tokens": 15}
        accepted = await socket.ask("message.send", **question)
        cut = await socket.answer(accepted)
        assert cut.end["reason"] == "length"
        more = {"message": accepted["answer"], "params": {"temperature": 0, "max_new_tokens": 25}}
        continued = await socket.ask("message.continue", **more)
        assert continued["answer"] == accepted["answer"]
        snapshot = await socket.until("generation.snapshot")
        assert (snapshot["text"], snapshot["generation"]) == (cut.text, continued["generation"])
        await socket.until("generation.finished", generation=continued["generation"])
        _, answer = (await visitor.json(f"/api/conversations/{accepted['conversation']}/"))["messages"]
        assert answer["text"] == whole.text


async def test_visitors_are_answered_together_and_alike(site: Site) -> None:
    """Greedy answers in one batch are those of each alone, and neither waits for the other."""
    questions = ["Name three colours.", "What is the capital of France?"]
    async with Visitor(site.url).socket() as one, Visitor(site.url).socket() as two:
        alone = [await Answer.to(one, question, params={"temperature": 0}) for question in questions]
        together = await asyncio.gather(
            *(
                Answer.to(socket, question, params={"temperature": 0})
                for socket, question in zip((one, two), questions, strict=True)
            )
        )
    assert [answer.text for answer in together] == [answer.text for answer in alone]
    assert "Paris" in together[1].text
    assert all(answer.end["timings"]["queue_time"] < 0.5 for answer in together)
