"""Runs the llm service (`python -m llm.service`), the process with the model, and has the clients that find and use it.

`server` and `connection` run in the service and put `llm.control` behind a socket. `client`, `ticket`, `link` and
`launch` run in every other process and know the frames (`wire`) and the address only: importing them loads no model and
no torch. A reader starts in `client` for what callers use, or in `server` for what answers them.
"""
