"""The endpoint's service: a bound port, hypercorn's connections behind it, and a clean end."""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING, cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.typing import ASGIFramework

from ryvion_node.errors import EXIT_UNAVAILABLE, OperatorError
from ryvion_node.log import log_event
from ryvion_node.market.interface import Market
from ryvion_node.proxy.access import Keys
from ryvion_node.proxy.app import create_app
from ryvion_node.proxy.connection import Connections
from ryvion_node.proxy.knowledge.service import Knowledge
from ryvion_node.proxy.metrics import Metrics
from ryvion_node.proxy.receipts import ReceiptStore
from ryvion_node.proxy.settings import Settings
from ryvion_node.proxy.vault import Vault

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger("ryvion.proxy.server")


class EndpointPortTaken(OperatorError):
    """Port {port} on {host} is taken, so the local endpoint cannot be served there.

    Stop the program that uses it (perhaps another ryvion-node), or choose another port with --proxy-port or
    `port` in the [proxy] section; 0 takes any free one.
    """

    exit_code = EXIT_UNAVAILABLE


class EndpointAddressUnusable(OperatorError):
    """The local endpoint cannot be served on {host}, port {port}: {reason}.

    Choose an address of this machine with `host` in the [proxy] section; 127.0.0.1 always works.
    """

    exit_code = EXIT_UNAVAILABLE


class ProxyServer:
    """Serves the OpenAI-compatible endpoint for one market."""

    def __init__(
        self,
        market: Market,
        keys: Keys,
        receipts: ReceiptStore,
        settings: Settings,
        vault: Vault,
        metrics: Metrics | None = None,
        knowledge: Knowledge | None = None,
    ) -> None:
        self._market = market
        self._keys = keys
        self._receipts = receipts
        self._settings = settings
        self._vault = vault
        self._metrics = metrics or Metrics()
        self._knowledge = knowledge

    async def run(self, *, task_status: TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; started with the URL, such as `http://127.0.0.1:7986`.

        Raises EndpointPortTaken or EndpointAddressUnusable. Cancelled, it ends running streams with an error event.
        """
        host = self._settings.host.strip("[]")
        listeners = await self._listen(host)
        ports = [listener.socket.getsockname()[1] for listener in listeners]
        app = create_app(
            self._market,
            self._keys,
            self._receipts,
            self._settings,
            self._vault,
            self._metrics,
            ports,
            self._knowledge,
        )
        connections = Connections(ASGIWrapper(cast("ASGIFramework", app)))
        url = f"http://{f'[{host}]' if ':' in host else host}:{ports[0]}"
        async with trio.open_nursery() as nursery:
            await nursery.start(self._vault.run)
            await nursery.start(trio.serve_listeners, connections.serve, listeners)
            log_event(log, "endpoint_up", url=url)
            task_status.started(url)
            try:
                await trio.sleep_forever()
            finally:
                connections.hurry()

    async def _listen(self, host: str) -> list[trio.SocketListener]:
        port = self._settings.port
        try:
            return list(await trio.open_tcp_listeners(port, host=host))
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                raise EndpointPortTaken(host=host, port=port) from exc
            raise EndpointAddressUnusable(host=host, port=port, reason=exc.strerror or "no such address") from exc
