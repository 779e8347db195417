"""The agent's main object: connects to the hub, runs commands, and handles lost connections.

With a Hostler hub, commands go on while the connection is lost, and are resumed: reports that the
hub has not acknowledged wait in the outbox and are sent again, until the lease expires. A stock
Buildbot master considers a build lost as soon as the connection is, so its commands are ended then
(A16). The settings, which a hub must send first, show which of the two it is.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Optional

from hostler_agent import machine
from hostler_agent.clock import Clock, SystemClock
from hostler_agent.commands import Command, Settings, secret_files
from hostler_agent.commands.context import CommandContext, Reporting, builder_key
from hostler_agent.commands.leftovers import remove_workspaces
from hostler_agent.commands.masking import LeaseMasks
from hostler_agent.commands.roster import Roster
from hostler_agent.commands.slots import AgentSlots, Slots
from hostler_agent.errors import AgentError, ConfigurationError, LinkLost, OrderedAway
from hostler_agent.hub.credentials import Credentials
from hostler_agent.hub.dead_man_switch import DeadManSwitch
from hostler_agent.hub.lease import LeaseTimer
from hostler_agent.hub.link import Dial, Endpoint, Link
from hostler_agent.hub.outbox import Outbox
from hostler_agent.hub.sender import ReportSender
from hostler_agent.machine import spot_notice
from hostler_agent.machine.facts import CONTAINER, NONE, USER, machine_facts, worker_info
from hostler_agent.machine.spot_notice import Notice, SpotNoticeWatcher
from hostler_agent.wire import extension, messages
from hostler_agent.wire.extension import AgentReport, CommandTerms, Handshake, HubSettings
from hostler_agent.wire.text import LineSplitter

if TYPE_CHECKING:
    from hostler_agent.config import Config
    from hostler_agent.hub.connection import Connection
    from hostler_agent.jobs.containment import Containment

FAREWELL_DEADLINE_S = 60.0
"""How long a stopping agent waits for the hub to acknowledge its last reports."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Toolbox:
    """The agent's abilities: commands by name, their versions, the containment of jobs, and as whom
    they run.
    """

    commands: Mapping[str, type[Command]]
    versions: Mapping[str, str]
    containment: Containment
    slots: Slots = field(default_factory=AgentSlots)
    is_container: bool = False
    """Whether the instance is a container of its own."""

    @property
    def isolation(self) -> str:
        """What separates builds from the agent: a value of the fact `isolation`."""
        if self.slots.have_users:
            return USER
        return CONTAINER if self.is_container else NONE


@dataclass(frozen=True)
class Surroundings:
    """The dependencies that tests replace: clock, randomness, spot notices, dialling."""

    clock: Clock = field(default_factory=SystemClock)
    random: Callable[[], float] = random.random
    query_spot_notice: Callable[[], Optional[Notice]] = spot_notice.query
    dial: Optional[Dial] = None


class Daemon:
    """One agent. Must be created inside the running event loop, and run once."""

    def __init__(
        self, config: Config, toolbox: Toolbox, surroundings: Optional[Surroundings] = None
    ) -> None:
        surroundings = surroundings or Surroundings()
        self._surroundings = surroundings
        self._config = config
        self._toolbox = toolbox
        self._outbox = Outbox()
        self._roster = Roster(self._outbox)
        self._masks = LeaseMasks()
        self._lease = LeaseTimer(surroundings.clock, self._lease_is_over)
        # A permanent worker waits without limit: its owner started it, and pays for it knowingly.
        patience_s = 0 if config.instance is None else config.orphan_timeout_s
        self._dead_man_switch = DeadManSwitch(surroundings.clock, patience_s, self._roster.is_idle)
        self._credentials = _credentials(config, isolated=toolbox.isolation == USER)
        self._link = Link(
            Endpoint(config.hub, config.ca_file, config.hub_socket),
            _handshake(config, self._credentials),
            surroundings.clock,
            surroundings.random,
            self._contacted,
            surroundings.dial,
        )
        self._connection: Optional[Connection] = None
        self._sender: Optional[ReportSender] = None
        self._settings: Optional[Settings] = None
        self._hub: Optional[HubSettings] = None
        self._is_finishing = False
        self.is_unwanted = False
        """Whether the agent left because its hub told it to, or because the hub was silent for too
        long."""
        self.is_orphaned = False
        """Whether the agent left because the hub was silent for too long."""
        self._farewell: Optional[asyncio.Task[None]] = None
        self._ending_slots: Optional[asyncio.Task[None]] = None
        self._leave = asyncio.Event()
        self._handlers: Mapping[type[messages.Message], Callable[[Any], Any]] = {
            messages.Print: self._print,
            messages.Keepalive: lambda _: None,
            messages.GetWorkerInfo: self._get_worker_info,
            messages.SetWorkerSettings: self._set_worker_settings,
            messages.StartCommand: self._start_command,
            messages.InterruptCommand: self._interrupt_command,
            messages.Shutdown: self._shutdown,
        }

    async def run(self) -> None:
        """Serve the hub until it, or a signal, says to stop. Before it returns, it ends all
        commands and jobs.
        """
        await self._toolbox.containment.sweep()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, remove_workspaces, self._config.workdir)
        await loop.run_in_executor(None, secret_files.sweep, self._config.workdir)
        if self._config.instance is not None:
            # A latent worker was started because a build waits for it.
            self._toolbox.containment.warm_up()
        tasks = [
            asyncio.create_task(self._link.run(self._serve), name="link"),
            asyncio.create_task(self._lease.watch(), name="lease"),
            asyncio.create_task(self._leave.wait(), name="leave"),
            asyncio.create_task(self._await_orphanhood(), name="dead-man switch"),
        ]
        watching = self._watch_interruptions()
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except OrderedAway as order:
            log.warning("going away: %s", order)
            self.is_unwanted = True
        finally:
            await self._end([*tasks, *watching])

    def finish(self) -> None:
        """Accept no more commands, and end when the running ones have ended. A second call ends at
        once.
        """
        if self._is_finishing:
            self.stop()
            return
        log.warning("stopping when the running commands have ended")
        self._is_finishing = True
        self._farewell = asyncio.create_task(self._say_farewell(), name="farewell")

    def stop(self) -> None:
        """End all commands and leave."""
        self._leave.set()

    def _contacted(self, sent_at: float) -> None:
        self._lease.contacted(sent_at)
        self._dead_man_switch.contacted(sent_at)

    async def _await_orphanhood(self) -> None:
        await self._dead_man_switch.watch()
        log.warning("going away: no hub for %d s (P17)", self._config.orphan_timeout_s)
        self.is_unwanted = self.is_orphaned = True

    def _watch_interruptions(self) -> list[asyncio.Task[Any]]:
        if self._config.interruptions is None:
            return []
        notice = SpotNoticeWatcher(self._surroundings.clock, self._surroundings.query_spot_notice)
        watching = notice.watch(self.finish, self.stop)
        return [asyncio.create_task(watching, name="interruption")]

    async def _say_farewell(self) -> None:
        await self._roster.idle()
        try:
            await asyncio.wait_for(self._outbox.drained(), FAREWELL_DEADLINE_S)
        except asyncio.TimeoutError:
            log.exception("leaving with reports that the hub has not acknowledged")
        self.stop()

    async def _end(self, tasks: list[asyncio.Task[Any]]) -> None:
        grace_s = 10.0 if self._hub is None else self._hub.go_away_grace_s
        await self._roster.aclose("the agent is going away", grace_s)
        if self._ending_slots is not None:
            await self._ending_slots
        await self._toolbox.slots.aclose()
        await self._toolbox.containment.aclose()
        secret_files.sweep(self._config.workdir)
        if self._connection is not None:
            code = 1001 if self._hub is None else extension.LEAVE_CLOSE_CODE
            await self._connection.close(code, "the agent is going away")
        if self._farewell is not None:
            tasks.append(self._farewell)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, connection: Connection) -> None:
        self._connection = connection
        self._credentials.accepted()
        try:
            await connection.serve(self._handle)
        finally:
            self._connection = None
            if self._sender is not None:
                await self._sender.aclose()
                self._sender = None
            if self._hub is None:
                self._roster.forget("the connection to the master is lost")

    async def _handle(self, message: messages.Message) -> Any:
        return self._handlers[type(message)](message)

    def _print(self, message: messages.Print) -> None:
        log.info("message from the hub: %s", message.message)

    def _get_worker_info(self, _: messages.GetWorkerInfo) -> dict[str, Any]:
        isolation = self._toolbox.isolation
        versions = {**self._toolbox.versions, extension.NAME: str(extension.VERSION)}
        report = AgentReport(
            boot_id=machine.boot_id(),
            process=self._credentials.process,
            former=self._credentials.former,
            commands=self._roster.reports(),
            facts=machine_facts(self._config.workdir, isolation),
            clock_s=self._surroundings.clock.wall(),
        )
        info = worker_info(self._config.workdir, versions, isolation)
        return {**info, extension.NAME: report.body()}

    def _set_worker_settings(self, message: messages.SetWorkerSettings) -> None:
        hub = None if message.hostler is None else HubSettings.parse(message.hostler)
        LineSplitter(message.max_line_length, message.newline_re)  # refused here, or by a command
        self._settings = Settings(
            newline_re=message.newline_re,
            max_line_length=message.max_line_length,
            buffer_size=message.buffer_size,
            buffer_timeout=message.buffer_timeout,
        )
        self._hub = hub
        self._lease.granted(None if hub is None else hub.lease_ttl_s)
        if hub is not None and hub.keepalive_interval_s is not None and self._connection:
            self._connection.ping_interval_s = hub.keepalive_interval_s
        # Buildbot's master sends its settings again whenever it is reconfigured; only the first of
        # a connection tell what is to be resumed.
        if self._sender is None:
            self._roster.forget("the hub does not resume it", () if hub is None else hub.resume)
            assert self._connection is not None
            self._sender = ReportSender(self._outbox, self._connection, self._lease)

    def _start_command(self, message: messages.StartCommand) -> None:
        if self._settings is None:
            raise AgentError("set_worker_settings must come before the first command")
        if self._roster.knows(message.command_id):
            log.info("command %s is known already", message.command_id)
            return
        if self._is_finishing:
            raise AgentError(extension.STOPPING)
        if self._roster.is_ending(message.command_id):
            raise AgentError(extension.ENDING)
        if self._hub is not None and self._roster.has_lost(message.command_id):
            raise AgentError(extension.LOST)
        kind = self._toolbox.commands.get(message.command_name)
        if kind is None:
            raise AgentError(f"command {message.command_name!r} does not exist")
        workdir, terms = str(self._config.workdir), CommandTerms.parse(message.args)
        if self._hub is None:
            slot_key: Optional[str] = builder_key(workdir, message.args)
        else:
            slot_key = None if terms is None else terms.lease
        context = CommandContext(
            command_id=message.command_id,
            settings=self._settings,
            workdir=workdir,
            terms=terms,
            containment=self._toolbox.containment,
            reporting=Reporting(self._outbox, self._roster, self._request),
            slots=self._toolbox.slots,
            slot_key=slot_key,
            mask=self._masks.add(terms),
        )
        self._roster.start(message.command_id, kind(context, message.args))

    def _interrupt_command(self, message: messages.InterruptCommand) -> None:
        if not self._roster.interrupt(message.command_id, message.why):
            raise AgentError(f"there is no command {message.command_id}")

    def _shutdown(self, _: messages.Shutdown) -> None:
        log.warning("going away: the hub has asked for it")
        self.is_unwanted = True
        self.stop()

    async def _request(self, message: messages.Message) -> Any:
        if self._connection is None:
            raise LinkLost("there is no connection to the hub")
        return await self._connection.request(message)

    def _lease_is_over(self) -> None:
        self._roster.lose("the hub has not been heard of for as long as its lease")
        # Each waits for the commands that still end in it.
        ending = self._toolbox.slots.end_all()
        self._ending_slots = asyncio.create_task(ending, name="end of the slots")


def _credentials(config: Config, *, isolated: bool) -> Credentials:
    try:
        config.workdir.mkdir(parents=True, exist_ok=True)
        return Credentials.of(config, isolated=isolated)
    except OSError as error:
        raise ConfigurationError(f"option 'workdir': {error}") from error


def _handshake(config: Config, credentials: Credentials) -> Handshake:
    return Handshake(
        name=config.name,
        password=credentials.token,
        session=credentials.session,
        instance=config.instance,
        epoch=config.epoch,
    )
