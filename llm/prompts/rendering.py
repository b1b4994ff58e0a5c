"""Turns a request into the token ids of its prompt, by the prompt class of LLM_PROMPT.

A conversation that does not fit loses whole turns, the oldest first; the system prompt and the last text always stay.
The module knows no engine; its methods are called from several threads at once.
"""

from __future__ import annotations

import bisect
import logging
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from llm.conf import Settings
from llm.errors import ContextLengthExceeded, InvalidRequest, RequestError
from llm.prompts import ChatPrompt, load_prompt_class
from llm.prompts.base import Replacements
from llm.prompts.encoding import Encoder
from llm.request import ChatMessage, GenerationRequest
from llm.sampling import SamplingParams
from llm.tokens import common_length

logger = logging.getLogger(__name__)

OPENINGS = ("Aa", "0")
"""Two texts that have nothing in common."""


class Model(Protocol):
    """The part of a loaded model that rendering needs; `llm.loading.loader.LoadedModel` has it."""

    @property
    def tokenizer(self) -> Any: ...

    @property
    def sampling(self) -> SamplingParams: ...

    @property
    def vocabulary(self) -> int: ...

    @property
    def stop_tokens(self) -> frozenset[int]: ...


class Prepared(NamedTuple):
    """A request as token ids: everything that the engine and the detokenizer need to know of it.

    `before` are the tokens that the answer continues; the first `common` tokens of the prompt are the operator's own.
    """

    tokens: list[int]
    params: SamplingParams
    max_new_tokens: int
    stop_tokens: frozenset[int]
    stop_strings: tuple[str, ...]
    replacements: Replacements
    before: list[int]
    conversation: str
    common: int

    @property
    def need(self) -> int:
        """Token places of KV memory that the request may take."""
        return len(self.tokens) + self.max_new_tokens


class Renderer:
    """Renders requests for one model and its settings. Prompt and answer together have at most `longest` tokens."""

    def __init__(self, settings: Settings, loaded: Model, longest: int) -> None:
        self._settings = settings
        self._prompt_class = load_prompt_class(settings.prompt)
        self._tokenizer = loaded.tokenizer
        self._encoder = Encoder(loaded.tokenizer)
        self._defaults = loaded.sampling
        self._stop_tokens = loaded.stop_tokens
        self._vocabulary = loaded.vocabulary
        self._longest = longest

    def prepare(self, request: GenerationRequest) -> Prepared:
        if not any(message.role != "system" for message in request.messages):
            raise InvalidRequest("messages: at least one that is not a system message is needed")
        params = request.params.validated().over(self._defaults)
        if params.logit_bias and max(params.logit_bias) >= self._vocabulary:
            raise InvalidRequest(f"logit_bias: the model's tokens are 0 to {self._vocabulary - 1}")
        max_new_tokens = min(params.max_new_tokens or self._settings.max_new_tokens, self._settings.max_new_tokens)
        try:
            tokens, prompt = self._fitted(request.messages, max_new_tokens)
            stop = (*params.stop, *prompt.stop_strings())
            replacements = prompt.get_replacement_when_output() or ()
        except RequestError:
            raise
        except Exception as error:
            logger.exception("The prompt could not be made")
            raise RequestError("The prompt class could not render this conversation.") from error
        # a special token has no text to be found in the answer: it is a stop by its id
        special = frozenset(self._encoder.special[string] for string in stop if string in self._encoder.special)
        strings = tuple(dict.fromkeys(string for string in stop if string not in self._encoder.special))
        return Prepared(
            tokens,
            params,
            max_new_tokens,
            self._stop_tokens | special,
            strings,
            replacements,
            before=tokens if prompt.partial else [],
            conversation=request.conversation,
            common=common_length(self._opening, tokens),
        )

    @cached_property
    def _opening(self) -> list[int]:
        """The tokens with which prompts begin that have no system message: template and LLM_SYSTEM_PROMPT."""
        try:
            one, other = (self._render([ChatMessage("user", text)])[0] for text in OPENINGS)
        except Exception:
            logger.exception("The prompt class could not render a single text")
            return []
        return one[: common_length(one, other)]

    def _fitted(self, messages: Sequence[ChatMessage], max_new_tokens: int) -> tuple[list[int], ChatPrompt]:
        """Return tokens and prompt of all turns, or of as many as there is room for. Raises ContextLengthExceeded.

        How much is cut goes in steps of a quarter of the room, counted from the beginning of the conversation: after a
        cut some turns only append to what was sent before, and its keys and values can be used again.
        """
        room = self._longest - max_new_tokens
        shorter = without_oldest_turns(messages)
        rendered: dict[int, tuple[list[int], ChatPrompt]] = {}

        def length(dropped: int) -> int:
            if dropped not in rendered:
                rendered[dropped] = self._render(shorter[dropped])
            return len(rendered[dropped][0])

        def least_dropped(limit: int) -> int:
            return bisect.bisect_left(range(len(shorter)), True, key=lambda dropped: length(dropped) <= limit)

        excess, step = length(0) - room, max(1, room // 4)
        if excess <= 0:
            return rendered[0]
        for limit in (length(0) - step * -(-excess // step), room):
            if (dropped := least_dropped(limit)) < len(shorter):
                return rendered[dropped]
        raise ContextLengthExceeded(
            f"The prompt has {length(len(shorter) - 1)} tokens and the answer may take {max_new_tokens}; "
            f"together they may have {self._longest}."
        )

    def _render(self, messages: Sequence[ChatMessage]) -> tuple[list[int], ChatPrompt]:
        prompt = self._prompt_class()
        prompt.set_tokenizer(self._tokenizer)
        prompt.set_system(self._settings.system_prompt)
        prompt.set_messages(messages)
        return self._encoder.encode(prompt), prompt


def without_oldest_turns(messages: Sequence[ChatMessage]) -> list[list[ChatMessage]]:
    """Return the messages whole, without the oldest turn, without the two oldest, ... down to the last turn.

    A turn is a visitor's text and its answer.
    """
    system = [message for message in messages if message.role == "system"]
    rest = [message for message in messages if message.role != "system"]
    starts = [i for i, message in enumerate(rest) if message.role == "user" and i > 0]
    return [system + rest[start:] for start in (0, *starts)]
