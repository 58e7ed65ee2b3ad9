"""A discrete-event simulator of serving: one engine, agents that call it, and the policies that say whose turn it is."""
