"""The node: every part, wired once. `serve_node` is the main path.

local endpoint -> Buyer -> quote round over libp2p -> Seller -> llama.cpp worker
               <- checks <- receipt, envelope      <-        <- tokens
"""

from __future__ import annotations

import json
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import trio
import trio_asyncio

from ryvion_node import __version__
from ryvion_node.config import ExecutorSection, NodeConfig
from ryvion_node.engine.counter import VocabCounter
from ryvion_node.engine.devices import list_devices
from ryvion_node.engine.figures import FigureBook
from ryvion_node.engine.files import DigestCache
from ryvion_node.engine.fleet import Fleet, RunningEngine
from ryvion_node.engine.free_memory import free_main_memory, room_for
from ryvion_node.engine.interface import EngineModel
from ryvion_node.engine.llama_engine import LlamaEngine
from ryvion_node.engine.remote.engine import RemoteEngine
from ryvion_node.errors import EXIT_UNAVAILABLE, OperatorError
from ryvion_node.executor.announcer import Advert, Announcer, draw_up_offer
from ryvion_node.executor.availability import Availability
from ryvion_node.executor.backoff import Backoff, PauseRules
from ryvion_node.executor.hardware import SCRIPTED_HARDWARE, hardware_of, remote_hardware
from ryvion_node.executor.quoting import Shop
from ryvion_node.executor.seller import Seller
from ryvion_node.executor.workshop import Chains, Workshop
from ryvion_node.identity import NodeIdentity, load_or_create_identity
from ryvion_node.keys import KeyStore
from ryvion_node.ledger.interface import Ledger
from ryvion_node.ledger.store import open_ledger
from ryvion_node.library.lookup import Library
from ryvion_node.library.remotes import remote_specs
from ryvion_node.log import configure_logging
from ryvion_node.market.attempt import Desk
from ryvion_node.market.book import OfferBook
from ryvion_node.market.buyer import Buyer
from ryvion_node.market.feed import OfferFeed
from ryvion_node.market.warmup import Warmup
from ryvion_node.models.catalogue import catalogue
from ryvion_node.p2p.interface import Network
from ryvion_node.paths import Paths, make_private_folder, replace_private_file
from ryvion_node.proxy.knowledge.service import Knowledge, KnowledgeService
from ryvion_node.proxy.metrics import Metrics
from ryvion_node.proxy.server import ProxyServer
from ryvion_node.proxy.settings import Settings
from ryvion_node.proxy.vault import FolderVault
from ryvion_node.proxy.wiring import LedgerReceipts, NodeKeys
from ryvion_protocol.constants import MARKET_PROTOCOL
from ryvion_protocol.messages import Hardware
from ryvion_protocol.schema import NodeKey, as_label

THREAD_SWITCH_S: Final = 0.001
"""How long the ledger's thread waits for its turn while the event loop is busy: by default 5 ms, many times in each
transaction, and every order waits for one."""


class NothingToServe(OperatorError):
    """None of the models can be served, so there is nothing to sell. {reasons}"""

    exit_code = EXIT_UNAVAILABLE


if TYPE_CHECKING:
    from ryvion_node.p2p.libp2p_network import Libp2pNetwork


@dataclass(frozen=True, slots=True)
class NodeReady:
    """What a started node tells about itself."""

    peer_id: str
    node_key: NodeKey
    listening: tuple[str, ...]
    endpoint: str | None
    """Base URL for an OpenAI client."""
    control: str | None
    serving: tuple[str, ...]
    """Models that are for sale."""
    not_serving: tuple[str, ...] = ()
    """Models that are configured and cannot be sold now; the log says why."""


@dataclass(frozen=True, slots=True)
class Selling:
    """What a node sells."""

    models: tuple[EngineModel, ...] = ()
    own_engine: LlamaEngine | None = None
    """Runs models on this machine."""


def run_node(config: NodeConfig, paths: Paths, on_ready: Callable[[NodeReady], None]) -> None:
    """Run a node until SIGINT or SIGTERM; raises OperatorError when it cannot start."""
    sys.setswitchinterval(THREAD_SWITCH_S)
    configure_logging(config.log)
    make_private_folder(paths.home)
    try:
        trio.run(_until_signal, partial(serve_node, config, paths, on_ready))
    except BaseExceptionGroup as group:  # nurseries wrap whatever comes; nothing is swallowed
        raise _operators_part(group) from group


def _operators_part(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that a person can mend, out of the nurseries it went through; else the group as it is."""
    for error in group.exceptions:
        found = _operators_part(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, OperatorError):
            return found
    return group


async def _until_signal(serve: Callable[[], Awaitable[None]]) -> None:
    """Cancel `serve` at the first signal to stop."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            async for _ in signals:
                nursery.cancel_scope.cancel()
                return


async def serve_node(config: NodeConfig, paths: Paths, on_ready: Callable[[NodeReady], None]) -> None:
    """Start every part in order and run until cancelled; the ledger and the event loop under it go last."""
    identity = load_or_create_identity(paths.identity_file)
    network = _new_network(config, identity)
    async with (
        trio_asyncio.open_loop(),
        open_ledger(paths.ledger_file, clock=_now_ms) as ledger,
        trio.open_nursery() as foundations,
    ):
        await ledger.abandon_unfinished()
        await foundations.start(network.run)
        async with trio.open_nursery() as services:
            metrics = Metrics()
            book = OfferBook(config.node.network)
            feed = OfferFeed(network, config.node.network, book, _now_ms)
            await services.start(feed.run)
            selling = Selling()
            if config.executor.enabled:
                selling = await _start_selling(services, config, paths, identity, network, feed, ledger, metrics)
            url: str | None = None
            if config.proxy.enabled:
                url = await _start_buying(
                    services, config, paths, identity, network, book, ledger, metrics, selling.own_engine
                )
            here = network.snapshot()
            serving = tuple(model.name for model in selling.models)
            on_ready(
                NodeReady(
                    peer_id=here.peer_id,
                    node_key=here.node_key,
                    listening=here.listening,
                    endpoint=None if url is None else f"{url}/v1",
                    control=url,
                    serving=serving,
                    not_serving=tuple(name for name in _names_for_sale(config.executor) if name not in serving),
                )
            )
            try:
                await trio.sleep_forever()
            finally:
                paths.control_file.unlink(missing_ok=True)


def _names_for_sale(executor: ExecutorSection) -> tuple[str, ...]:
    if not executor.enabled:
        return ()
    return (*(model.name for model in executor.models), *(model.name for model in executor.remote_models))


def _new_network(config: NodeConfig, identity: NodeIdentity) -> Libp2pNetwork:
    from ryvion_node.p2p.libp2p_network import Libp2pNetwork  # takes seconds to import

    return Libp2pNetwork(identity.seed, config.node.listen, config.node.bootstrap)


async def _start_selling(
    services: trio.Nursery,
    config: NodeConfig,
    paths: Paths,
    identity: NodeIdentity,
    network: Network,
    feed: OfferFeed,
    ledger: Ledger,
    metrics: Metrics,
) -> Selling:
    """Load the models, then quote, then announce."""
    engine, own_engine, hardware = await _start_engines(services, config, paths)
    if all(status.state == "broken" for status in engine.status()):
        raise NothingToServe(reasons="; ".join(f"{status.name}: {status.reason}" for status in engine.status()))
    jurisdiction = config.node.jurisdiction or ""
    workshop = Workshop(
        identity=identity.signing,
        engine=engine,
        ledger=ledger,
        chains=Chains(ledger, identity.public_key),
        hardware=hardware,
        location=as_label(config.node.location),
        network=config.node.network,
        clock_ms=_now_ms,
        tally=metrics,
    )

    def shop(models: tuple[EngineModel, ...]) -> Shop:
        return Shop(
            network=config.node.network,
            node_key=identity.public_key,
            jurisdiction=jurisdiction,
            price_in=config.executor.price_in,
            price_out=config.executor.price_out,
            models=models,
        )

    availability = await _watch_owner(services, config, engine)
    seller = Seller(workshop, shop, config.executor.max_queue, lambda: availability.paused)
    metrics.watch_slots(seller.load)
    network.serve(MARKET_PROTOCOL, seller.serve)
    advert = Advert(
        network=config.node.network,
        software=f"ryvion-node/{__version__}",
        hardware=hardware,
        jurisdiction=jurisdiction,
        location=as_label(config.node.location),
        price_in=config.executor.price_in,
        price_out=config.executor.price_out,
    )
    announcer = Announcer(
        draw_up=lambda now_ms: draw_up_offer(
            advert, identity.signing, engine.models(), seller.free_slots, network.snapshot().listening, now_ms
        ),
        publish=feed.publish,
        identity=identity.signing,
        network_id=config.node.network,
        clock_ms=_now_ms,
    )
    await services.start(announcer.run)
    return Selling(engine.models(), own_engine)


async def _start_engines(
    services: trio.Nursery, config: NodeConfig, paths: Paths
) -> tuple[Fleet, LlamaEngine | None, Hardware]:
    """Our own engine for the models whose files are here, and one for those that other engines serve."""
    library, executor = Library(paths), config.executor
    engines: list[RunningEngine] = []
    own_engine: LlamaEngine | None = None
    hardware = remote_hardware([model.hardware for model in executor.remote_models])
    if executor.engine == "scripted":
        from ryvion_node.engine.scripted import ScriptedEngine  # of no use to a node that sells real answers

        engines.append(ScriptedEngine(config.proxy.keep_alive_s))
        hardware = SCRIPTED_HARDWARE
    if executor.models:
        devices = await list_devices()
        hardware = hardware_of(devices)
        own_engine = LlamaEngine(
            library.specs(config),
            digests=DigestCache(paths.digests_file),
            figures=FigureBook(paths.speeds_file),
            room=room_for(devices, executor.memory_budget, free_main_memory()),
        )
        engines.append(own_engine)
    if executor.remote_models:
        known = await trio.to_thread.run_sync(library.tokenizers, config)
        engines.append(RemoteEngine(remote_specs(config, known)))
    fleet = Fleet(engines)
    await services.start(fleet.run)
    await fleet.settled()
    return fleet, own_engine, hardware


async def _watch_owner(services: trio.Nursery, config: NodeConfig, engine: Fleet) -> Availability:
    from ryvion_node.machine.sensors import MachineSensors

    pause = config.executor.pause
    # What another engine uses is for selling too, and looks like any other program.
    minds_load = not config.executor.remote_models
    gpu_percent, cpu_percent = (pause.gpu_percent, pause.cpu_percent) if minds_load else (0, 0)
    rules = PauseRules(gpu_percent, cpu_percent, pause.on_battery, pause.hours, pause.calm_s)
    sensors = await trio.to_thread.run_sync(MachineSensors)
    availability = Availability(
        sensors, Backoff(rules), lambda: [status.worker_pid for status in engine.status() if status.worker_pid]
    )
    await services.start(availability.run)
    return availability


async def _start_buying(
    services: trio.Nursery,
    config: NodeConfig,
    paths: Paths,
    identity: NodeIdentity,
    network: Network,
    book: OfferBook,
    ledger: Ledger,
    metrics: Metrics,
    own_engine: LlamaEngine | None,
) -> str:
    """Start the meter, the buyer, the knowledge bases and the local endpoint. Returns the endpoint's URL."""
    counter = VocabCounter(await trio.to_thread.run_sync(Library(paths).tokenizers, config))
    await services.start(counter.run)
    desk = Desk(
        identity=identity.signing,
        ledger=ledger,
        counter=counter,
        clock_ms=_now_ms,
        first_token_timeout_s=config.requester.first_token_timeout_s,
        tally=metrics,
    )
    buyer = Buyer(
        network,
        config.node.network,
        book,
        desk,
        config.requester.quote_peers,
        services,
        max_price=config.requester.max_price,
        digests=catalogue().digests(),
    )
    services.start_soon(Warmup(network, book, counter, identity.public_key, _now_ms).run)
    token = f"control_{secrets.token_urlsafe(32)}"
    keys = KeyStore(paths.keys_file)
    knowledge: Knowledge | None = None
    if config.knowledge.enabled:
        wanted = config.knowledge
        service = KnowledgeService(paths.knowledge_file, buyer, keys.find, own_engine, wanted, _now_ms)
        knowledge = await services.start(service.run)
    settings = Settings(
        host=config.proxy.host,
        port=config.proxy.port,
        allowed_hosts=config.proxy.allowed_hosts,
        allowed_origins=config.proxy.allowed_origins,
        aliases=config.proxy.aliases,
        max_body_bytes=config.proxy.max_body_bytes,
        default_max_completion_tokens=config.proxy.default_max_completion_tokens,
        keep_alive_s=config.proxy.keep_alive_s,
    )
    server = ProxyServer(
        buyer,
        NodeKeys(keys, token),
        LedgerReceipts(ledger),
        settings,
        FolderVault(paths.answers_folder),
        metrics,
        knowledge,
    )
    url: str = await services.start(server.run)
    replace_private_file(paths.control_file, json.dumps({"url": url, "token": token}).encode())
    return url


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
