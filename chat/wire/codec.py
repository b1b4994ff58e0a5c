"""Turns the text of the socket into frames, and frames into text."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from chat.errors import SENTENCES, BadFrame, TooLarge
from chat.wire.frames import MAX_FRAME_BYTES, AnyClientFrame, Error, MessageSend, ServerFrame


class _Id(msgspec.Struct):
    """The part that can be read of a frame that is otherwise wrong."""

    id: Annotated[str, Meta(min_length=1, max_length=64)] | UnsetType = UNSET


_client = msgspec.json.Decoder(AnyClientFrame)
_id = msgspec.json.Decoder(_Id)
_server = msgspec.json.Encoder()


def parse(text: str) -> AnyClientFrame:
    """Return the frame in `text`. Raises BadFrame, TooLarge."""
    if len(text.encode()) > MAX_FRAME_BYTES:
        raise TooLarge(f"A frame has at most {MAX_FRAME_BYTES} bytes.", _id_of(text))
    try:
        frame: AnyClientFrame = _client.decode(text)
    except RecursionError as error:
        raise BadFrame("This is nested too deeply.") from error
    except msgspec.DecodeError as error:
        raise BadFrame(str(error).replace("`", ""), _id_of(text)) from error
    if "\0" in frame.id or (isinstance(frame, MessageSend) and "\0" in frame.text):
        raise BadFrame("NUL is not text.", frame.id)
    return frame


def encode(frame: ServerFrame) -> bytes:
    """Return `frame` as it goes over the socket, in UTF-8."""
    return _server.encode(frame)


def error(code: str, *, id: str | UnsetType = UNSET, message: str = "", retry_after: float | None = None) -> Error:
    """Make an `error` frame, with the code's own sentence unless there is a closer one."""
    return Error(
        code=code,
        message=message or SENTENCES[code],
        id=id,
        retry_after=UNSET if retry_after is None else retry_after,
    )


def _id_of(text: str) -> str | UnsetType:
    try:
        return _id.decode(text).id
    except (msgspec.DecodeError, RecursionError):
        return UNSET
