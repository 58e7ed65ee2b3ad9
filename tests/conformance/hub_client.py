"""The client that the official conformance suite drives: every request goes through our hub.

    python hub_client.py SERVER_URL        (MCP_CONFORMANCE_SCENARIO, _PROTOCOL_VERSION and _CONTEXT say what is wanted)

The server becomes a device of a home of its own: it is added, which connects and lists its tools, and then called.
Where a scenario wants OAuth, the SDK's provider signs the requests, through the seam that the hub has for it. A
connection that a scenario expects to fail ends this program with an error, as the suite wants it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp.client.auth import OAuthClientProvider
from mcp.client.auth.extensions.client_credentials import (
    ClientCredentialsOAuthProvider,
    PrivateKeyJWTOAuthProvider,
    SignedJWTParameters,
)
from mcp.client.auth.extensions.identity_assertion import IdentityAssertionOAuthProvider
from mcp.client.auth.utils import build_protected_resource_metadata_discovery_urls
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from mcp_types import CreateMessageResult, ElicitResult, ListRootsResult, TextContent
from pydantic import AnyUrl

from mains.bus.doors import Asked, Doors
from mains.bus.hub import Hub, Seams
from mains.errors import DeviceError
from mains.home import Home
from mains.kernel.devicelist import DeviceList
from mains.kernel.ports import CallContext, Tool
from mains.settings import Settings

SCENARIO = os.environ.get("MCP_CONFORMANCE_SCENARIO", "")
MODERN = os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION", "2026-07-28") >= "2026-07-28"
HANDSHAKE_ONLY = {"json-schema-ref-no-deref"}  # its server speaks no other revision, whatever the suite announces
CALLBACK = AnyUrl("http://localhost:3000/callback")


def context() -> dict[str, Any]:
    """What the suite tells besides the server's address."""
    told: dict[str, Any] = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
    return told


# ------------------------------------------------------------------------------------------------------- doors


async def defaults(asked: Asked) -> ElicitResult:
    """Accept, with the defaults of the form; what has none and is to be confirmed is confirmed."""
    schema = getattr(asked.params, "requested_schema", None) or {}
    properties = schema.get("properties", {})
    content = {name: each["default"] for name, each in properties.items() if "default" in each}
    if SCENARIO.startswith("sep-2322"):
        content = {"confirmed": True}
    return ElicitResult(action="accept", content=content)


async def nothing_said(_: Asked) -> CreateMessageResult:
    """An empty message of a model that does not exist."""
    return CreateMessageResult(role="assistant", content=TextContent(type="text", text=""), model="none")


async def no_roots(_: Asked) -> ListRootsResult:
    """No folder is shown."""
    return ListRootsResult(roots=[])


def doors() -> Doors:
    """All are open, as in a home."""
    return Doors(defaults, nothing_said, no_roots)


# ------------------------------------------------------------------------------------------------------- OAuth


class Wallet:
    """Tokens and the client's registration, in memory."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


class Person:
    """Who would sign in with a browser: opens the address and brings back what it is sent on with."""

    def __init__(self) -> None:
        self._back: dict[str, list[str]] = {}

    async def open(self, url: str) -> None:
        """Open the sign-in page, which sends on at once."""
        async with httpx2.AsyncClient() as browser:
            page = await browser.get(url, follow_redirects=False)
        self._back = parse_qs(urlsplit(page.headers["location"]).query)

    async def bring_back(self) -> AuthorizationCodeResult:
        """What the address had on the way back."""
        state, issuer = self._back.get("state", [None])[0], self._back.get("iss", [None])[0]
        return AuthorizationCodeResult(code=self._back["code"][0], state=state, iss=issuer)


def by_browser(url: str) -> httpx2.Auth:
    """The flow of a person at a browser."""
    wallet, person, told = Wallet(), Person(), context()
    if told.get("client_id"):
        secret = told.get("client_secret")
        wallet.client = OAuthClientInformationFull(
            client_id=told["client_id"],
            client_secret=secret,
            redirect_uris=[CALLBACK],
            token_endpoint_auth_method="client_secret_basic" if secret else "none",
        )
    metadata = OAuthClientMetadata(
        client_name="mains",
        redirect_uris=[CALLBACK],
        grant_types=["authorization_code", "refresh_token"],
        response_types=["code"],
    )
    return OAuthClientProvider(
        server_url=url,
        client_metadata=metadata,
        storage=wallet,
        redirect_handler=person.open,
        callback_handler=person.bring_back,
        client_metadata_url="https://conformance-test.local/client-metadata.json",
    )


def by_key(url: str) -> httpx2.Auth:
    """A client that signs with its private key."""
    told = context()
    signed = SignedJWTParameters(
        issuer=told["client_id"],
        subject=told["client_id"],
        signing_algorithm=told.get("signing_algorithm", "ES256"),
        signing_key=told["private_key_pem"],
    )
    return PrivateKeyJWTOAuthProvider(
        server_url=url,
        storage=Wallet(),
        client_id=told["client_id"],
        assertion_provider=signed.create_assertion_provider(),
    )


def by_secret(url: str) -> httpx2.Auth:
    """A client with a secret."""
    told = context()
    return ClientCredentialsOAuthProvider(
        server_url=url,
        storage=Wallet(),
        client_id=told["client_id"],
        client_secret=told["client_secret"],
        token_endpoint_auth_method="client_secret_basic",
    )


async def by_enterprise(url: str) -> httpx2.Auth:
    """A token of the company's identity provider, exchanged for one that the server's issuer takes."""
    told = context()
    async with httpx2.AsyncClient() as http:
        place = build_protected_resource_metadata_discovery_urls(None, url)[0]
        issuer = (await http.get(place)).raise_for_status().json()["authorization_servers"][0]

    async def assertion(audience: str, resource: str) -> str:
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "requested_token_type": "urn:ietf:params:oauth:token-type:id-jag",
            "subject_token": told["idp_id_token"],
            "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
            "audience": audience,
            "resource": resource,
            "client_id": told["idp_client_id"],
        }
        async with httpx2.AsyncClient() as http:
            answer = (await http.post(told["idp_token_endpoint"], data=form)).raise_for_status()
        token: str = answer.json()["access_token"]
        return token

    return IdentityAssertionOAuthProvider(
        server_url=url,
        storage=Wallet(),
        client_id=told["client_id"],
        client_secret=told["client_secret"],
        issuer=issuer,
        assertion_provider=assertion,
        token_endpoint_auth_method="client_secret_basic",
    )


async def auth_of(url: str) -> httpx2.Auth | None:
    """What signs the requests of this scenario."""
    if not SCENARIO.startswith("auth/"):
        return None
    if SCENARIO == "auth/enterprise-managed-authorization":
        return await by_enterprise(url)
    flows = {"auth/client-credentials-jwt": by_key, "auth/client-credentials-basic": by_secret}
    return flows.get(SCENARIO, by_browser)(url)


# ------------------------------------------------------------------------------------------------------- calls

Call = Callable[[str, dict[str, Any]], Awaitable[Any]]
_SAMPLES: dict[str, Any] = {"string": "x", "integer": 0, "number": 0, "boolean": False, "object": {}, "array": []}


def least(tool: Tool) -> dict[str, Any]:
    """Arguments with what the tool requires and nothing else."""
    properties = tool.parameters.get("properties", {})
    names = tool.parameters.get("required", [])
    return {name: _SAMPLES.get(properties.get(name, {}).get("type"), "x") for name in names}


def wanted(tools: dict[str, Tool]) -> list[tuple[str, dict[str, Any]]]:
    """The calls that this scenario wants to see."""
    if SCENARIO in ("initialize", "json-schema-ref-no-deref"):
        return []
    if SCENARIO == "json-schema-2020-12-preservation":
        return [("json_schema_echo", {"schema": tools["json_schema_2020_12_tool"].parameters})]
    if SCENARIO == "http-custom-headers":
        calls = context().get("toolCalls", [])
        return [(call["name"], call.get("arguments") or {}) for call in calls if call["name"] in tools]
    if SCENARIO == "sep-2322-client-request-state":
        names = ("test_mrtr_echo_state", "test_mrtr_unrelated", "test_mrtr_no_state", "test_mrtr_no_result_type")
        return [(name, {}) for name in names]
    if SCENARIO.startswith("auth/"):
        return [(name, {}) for name in list(tools)[:1]]
    if "add_numbers" in tools:
        return [("add_numbers", {"a": 5, "b": 3})]
    return [(name, least(tool)) for name, tool in tools.items()]


async def run(url: str) -> None:
    """Be the client of this scenario."""
    auth = await auth_of(url)
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        home.prepare()
        hub = Hub(home, Settings(), DeviceList([]), Seams(doors(), auth=lambda _: auth))
        protocol = "" if MODERN and SCENARIO not in HANDSHAKE_ONLY else "2025-11-25"
        try:
            await hub.add("peer", {"url": url, "protocol": protocol})
            tools = {tool.name: tool for tool in hub.tools_of("peer")}
            for count, (name, arguments) in enumerate(wanted(tools)):
                device, tool = hub.find(f"peer.{name}")
                try:
                    answer = await device.call(tool, arguments, CallContext(1, f"1-call_1_{count}", Path(folder), 1))
                    sys.stderr.write(f"{name}: {answer}\n")
                except DeviceError as error:
                    sys.stderr.write(f"{name}: {error}\n")
        finally:
            await hub.close()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1]))
