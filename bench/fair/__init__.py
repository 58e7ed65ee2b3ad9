"""A discrete-event simulator of serving: one engine, agents that call it, policies that say whose turn it is."""
