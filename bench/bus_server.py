"""The MCP server that `bus` calls: one tool that adds. `python -m bench.bus_server`: over standard streams."""

from __future__ import annotations

import mcp_types
from mcp.server.mcpserver import MCPServer


def server() -> MCPServer:
    """A new one. Its tool gives text and nothing structured, so that no client has anything to check."""
    made = MCPServer("adder", version="1.0")

    @made.tool(annotations=mcp_types.ToolAnnotations(open_world_hint=False), structured_output=False)
    def add(a: int, b: int) -> str:
        """Add two numbers."""
        return str(a + b)

    return made


if __name__ == "__main__":
    server().run("stdio")
