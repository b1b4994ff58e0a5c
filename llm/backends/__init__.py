"""Generates, behind one interface (`base`): with a local model, or numbers at a known rate for tests.

A backend knows no queue, no limits and no visitors; it starts what it is told to start. A reader starts in `base`, then
`local`: it puts loading, prompts and text around the engine, whose forward `forward` prepares.
"""
