"""Turns a request into the token ids of its prompt, by the prompt class of LLM_PROMPT.

The module knows no engine; its methods are called from several threads at once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from llm.conf import Settings
from llm.errors import ConfigurationError, InvalidRequest, RequestError, one_line
from llm.prompts import ChatPrompt, load_prompt_class
from llm.prompts.base import Replacements
from llm.prompts.encoding import Encoder
from llm.prompts.fitting import Fitter
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

    `partial` is the text that the answer continues, and `before` are the tokens up to its end; both are empty if it
    continues none. The first `common` tokens of the prompt are the operator's own. `left_out` turns are not in it.
    """

    tokens: list[int]
    params: SamplingParams
    max_new_tokens: int
    stop_tokens: frozenset[int]
    stop_strings: tuple[str, ...]
    replacements: Replacements
    partial: str
    before: list[int]
    conversation: str
    common: int
    left_out: int

    @property
    def need(self) -> int:
        """Token places of KV memory that the request may take."""
        return len(self.tokens) + self.max_new_tokens


class Renderer:
    """Renders requests for one model and its settings. Raises ConfigurationError where no prompt can be made."""

    def __init__(self, settings: Settings, loaded: Model) -> None:
        self._settings = settings
        self._prompt_class = load_prompt_class(settings.prompt)
        self._tokenizer = loaded.tokenizer
        self._defaults = loaded.sampling
        self._vocabulary = loaded.vocabulary
        try:
            self._stop_tokens = _ends(loaded.stop_tokens, self._built("", [ChatMessage("user", OPENINGS[0])]))
            self._encoder = Encoder(loaded.tokenizer, self._stop_tokens)
            self._fitter = Fitter(self._render, settings.system_prompt)
            self._opening = self._tried()
        except Exception as error:
            logger.debug("No prompt can be made", exc_info=True)
            raise ConfigurationError(f"{_blamed(settings)} ({one_line(error)})") from error

    def prepare(self, request: GenerationRequest, longest: int) -> Prepared:
        """Return the request as tokens, of which prompt and answer together have at most `longest`.

        Raises RequestError.
        """
        if not any(message.role != "system" for message in request.messages):
            raise InvalidRequest("messages: at least one that is not a system message is needed")
        params = request.params.validated().over(self._defaults)
        if params.logit_bias and max(params.logit_bias) >= self._vocabulary:
            raise InvalidRequest(f"logit_bias: the model's tokens are 0 to {self._vocabulary - 1}")
        max_new_tokens = min(params.max_new_tokens or self._settings.max_new_tokens, self._settings.max_new_tokens)
        try:
            tokens, prompt, left_out = self._fitter.fitted(request.messages, longest, max_new_tokens)
            strings, replacements = _of_answers(prompt)
        except RequestError:
            raise
        except Exception as error:
            logger.exception("The prompt could not be made")
            raise RequestError("The prompt class could not render this conversation.") from error
        stop = (*params.stop, *strings)
        # a special token has no text to be found in the answer: it is a stop by its id
        special = frozenset(self._encoder.special[string] for string in stop if string in self._encoder.special)
        texts = tuple(dict.fromkeys(string for string in stop if string not in self._encoder.special))
        return Prepared(
            tokens,
            params,
            max_new_tokens,
            self._stop_tokens | special,
            texts,
            replacements,
            partial=prompt.partial,
            before=tokens if prompt.partial else [],
            conversation=request.conversation,
            common=common_length(self._opening, tokens),
            left_out=request.left_out + left_out,
        )

    def _tried(self) -> list[int]:
        """Return the tokens with which prompts begin that have no system message: template and LLM_SYSTEM_PROMPT.

        Raises whatever the prompt class raises on a question, or on two with an answer between them.
        """
        system = self._settings.system_prompt
        one, other = ([ChatMessage("user", text)] for text in OPENINGS)
        _of_answers(self._render(system, [*one, ChatMessage("assistant", OPENINGS[1]), *other])[1])
        one_tokens, other_tokens = (self._render(system, messages)[0] for messages in (one, other))
        return one_tokens[: common_length(one_tokens, other_tokens)]

    def _render(self, system: str, messages: Sequence[ChatMessage]) -> tuple[list[int], ChatPrompt]:
        return self._encoder.encode(self._built, system, messages)

    def _built(self, system: str, messages: Sequence[ChatMessage]) -> ChatPrompt:
        prompt = self._prompt_class()
        prompt.set_tokenizer(self._tokenizer)
        prompt.set_system(system)
        prompt.set_messages(messages)
        return prompt


def _ends(named: frozenset[int], prompt: ChatPrompt) -> frozenset[int]:
    """Return the tokens that end an answer: those that the model's files name, or also those of its prompts.

    Where the files name one that ends turns in prompts they are right about the others too: after some of these a
    model goes on (gpt-oss ends its reasoning with a token that also follows old answers).
    """
    written = prompt.turn_ends()
    return named if named & written else named | written


def _of_answers(prompt: ChatPrompt) -> tuple[tuple[str, ...], Replacements]:
    """Return the stop strings of a prompt class and what it replaces in answers. Raises what is wrong with them."""
    return prompt.stop_strings(), [(old, new) for old, new in prompt.get_replacement_when_output() or ()]


def _blamed(settings: Settings) -> str:
    try:
        settings.system_prompt.encode()
    except UnicodeEncodeError:
        return "LLM_SYSTEM_PROMPT: is not valid UTF-8"
    if settings.prompt:
        return f"LLM_PROMPT={settings.prompt}: makes no prompt of a conversation"
    return f"LLM_MODEL={settings.model}: its chat template makes no prompt of a conversation; set LLM_PROMPT"
