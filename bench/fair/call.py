"""A call to the model and the agent that makes it, as the simulator sees them. Sizes in tokens, times in seconds."""

from __future__ import annotations

import msgspec


class Step(msgspec.Struct, frozen=True):
    """One call of an agent and the pause after it.

    `known` is how much of the input the agent's call before it had already (input and output together); infinite
    `pause_s` means a tool that never returns.
    """

    input_tokens: int
    output_tokens: int
    known: int = 0
    pause_s: float = 0.0


class Agent(msgspec.Struct, frozen=True):
    """A program that runs: its steps, one after another. Agents of one `program` open with the same tokens."""

    number: int
    tenant: int
    arrival_s: float
    steps: tuple[Step, ...]
    program: str = ""
    opening: int = 0


class Call(msgspec.Struct, frozen=True, eq=False):
    """A call that waits for a slot, or has one.

    The first `opening` tokens of `reusable` lie in the cache under the program's name, the others under the agent's.
    """

    agent: Agent
    at: int  # which step
    ready_s: float
    number: int  # calls become ready in this order

    @property
    def step(self) -> Step:
        """What is asked."""
        return self.agent.steps[self.at]

    @property
    def tenant(self) -> int:
        """Whose share pays."""
        return self.agent.tenant

    @property
    def opening(self) -> int:
        """How many of the first tokens all agents of the program share."""
        rewritten = self.at > 0 and self.step.known == 0
        return 0 if rewritten else min(self.agent.opening, self.step.input_tokens - 1)

    @property
    def reusable(self) -> int:
        """Tokens that a cache of any size could spare; the last one of an input is always read."""
        return min(max(self.step.known, self.opening), self.step.input_tokens - 1)
