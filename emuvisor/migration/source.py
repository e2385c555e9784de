"""The side from which a guest goes."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from emuvisor.errors import EmuvisorError, MigrationError, StateError
from emuvisor.host.garbage import no_garbage
from emuvisor.host.guest import Guest
from emuvisor.host.states import GuestState
from emuvisor.machine.config_mapping import to_mapping
from emuvisor.machine.machine_state import save_machine
from emuvisor.memory.saved_layout import Layout
from emuvisor.migration.calling import Dial
from emuvisor.migration.channel import Channel, LineLost
from emuvisor.migration.claims import present_config
from emuvisor.migration.convergence import decide
from emuvisor.migration.copier import Copier
from emuvisor.migration.endpoints import Gone, connect
from emuvisor.migration.frames import Message, words_of
from emuvisor.migration.options import Options, Phase, Progress
from emuvisor.migration.security import Insecure, Security
from emuvisor.migration.source_disks import SourceDisks
from emuvisor.migration.source_line import NobodyToSay, SourceLine
from emuvisor.migration.switchover import Act, SourceState, SourceSwitch
from emuvisor.migration.throttle import CpuThrottle
from emuvisor.units import NS_PER_S

__all__ = ["Source"]

RETRY_S = 0.5
"""Between attempts to reach the target again."""
ANSWERS_PER_STEP = 256
"""Pages that the guest waits for."""


class Source:
    """Moves `guest` to the `Target` that listens at `address`. Nothing happens before `step` or `run`.

    One thread calls `step` or `run`; `cancel`, `decide` and `progress` are for any. `dial` makes connections in place
    of the operating system. Raises UsageError for a bad address, StateError for a guest that is off.
    """

    def __init__(
        self,
        guest: Guest,
        address: str,
        options: Options | None = None,
        security: Security | None = None,
        *,
        timeout_s: float = 30.0,
        dial: Dial = connect,
    ) -> None:
        if guest.state not in (GuestState.RUNNING, GuestState.PAUSED):
            raise StateError(f"guest {guest.name!r} is {guest.state}; migrate needs it running or paused")
        self.guest = guest
        self.address = address
        self.options = options or Options()
        self._line = SourceLine(address, security or Insecure(), self._asked, timeout_s=timeout_s, dial=dial)
        self._switch = SourceSwitch()
        self._deciding = threading.RLock()
        """Guards `_switch`: the target's questions come in a thread of their own."""
        self._disks = SourceDisks(guest.machine, self.options.disks, self._held)
        self._cancelled = False
        self._ordered: bool | None = None
        """What an operator has decided: whether it goes on here."""
        self._phase = Phase.COPYING
        self._reason = ""
        self._copier = Copier(guest.memory, self.options, self._held, lambda: self._cancelled)
        self._load_ns = 0
        """What the target says that building the guest will take."""
        self._ran = False
        self._stopped_ns: int | None = None
        self._downtime_ns: int | None = None
        self._throttle = CpuThrottle(guest)

    # ---- for anybody ----

    @property
    def progress(self) -> Progress:
        """Where it is now."""
        counts = self._copier.counts
        return Progress(
            guest=self.guest.name,
            phase=self._phase,
            pages=self.guest.memory.page_count,
            rounds=tuple(counts.rounds),
            left=len(self._copier.todo),
            bytes_sent=self._line.bytes_sent,
            zero_pages=counts.zero,
            copied_pages=counts.copied,
            unchanged_pages=counts.unchanged,
            resent_pages=counts.resent,
            demanded_pages=counts.demanded,
            throttle=self._throttle.percent,
            downtime_ns=self._downtime_ns,
            reason=self._reason,
        )

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to do."""
        return self._phase in (Phase.MOVED, Phase.STAYED, Phase.LOST)

    def cancel(self) -> None:
        """Let the guest stay, if it is not decided yet that it goes; `run` says then that it did. Any thread."""
        self._cancelled = True

    def decide(self, here: bool) -> None:
        """End the doubt when the target does not answer: the guest goes on `here`, or it is given up here because it
        runs there. Who says this must know what the other side does: nobody else can see to it that the guest runs on
        one side only. Any thread."""
        self._ordered = here

    def lose_line(self) -> None:
        """As if the line had died: for tests and labs. By the thread that steps."""
        if self._line.channel is not None:
            self._line.channel.end()

    def abandon(self) -> None:
        """As if this process had died, but that the guest stands still here: for tests and labs. By the thread that
        steps, which then steps no more."""
        self._line.close()

    def run(self, progress: Callable[[Progress], object] | None = None) -> Progress:
        """Do all of it, and tell `progress` after each step. Raises MigrationError when the guest did not move; it goes
        on here then, unless the message says otherwise."""
        while True:
            now = self.step()
            if progress is not None:
                progress(now)
            if self.is_over:
                break
        if self._phase is not Phase.MOVED:
            raise MigrationError(self._reason)
        return now

    # ---- steps ----

    def step(self) -> Progress:
        """Do the next part: connect, one round, the change-over, or (post-copy) some of the pages that are left. What
        goes wrong shows in the phase and the reason."""
        try:
            self._step()
        except Gone as error:
            if self._phase is Phase.FOLLOWING:
                self._lose()
            else:
                self._apply(self._switch.target_gone, f"the target is gone ({error})")
        except LineLost as error:
            self._lose_line(str(error))
        except EmuvisorError as error:
            self._fail(str(error))
        return self.progress

    def _step(self) -> None:
        channel = self._line.channel
        if self.is_over:
            return
        if self._phase is Phase.FOLLOWING:
            if channel is None:
                self._connect_again()
            else:
                self._follow(channel)
        elif self._switch.state is not SourceState.COPYING:
            self._settle()
        elif self._cancelled:
            self._fail("cancelled")
        elif channel is None:
            self._begin()
        else:
            rounds = self._copier.counts.rounds
            decision = decide(rounds, self._throttle.percent, self.options, self._load_ns)
            if self._wants_change_over(decision.stop):
                with no_garbage():
                    self._change_over(channel)
            else:
                self._throttle.set(decision.throttle)
                self._copier.round(channel, self._disks)

    def _wants_change_over(self, little_is_left: bool) -> bool:
        rounds = len(self._copier.counts.rounds)
        if self.options.mode == "pre-copy":
            return little_is_left
        return rounds >= (self.options.mode == "hybrid")

    def _begin(self) -> None:
        """Connect and offer the guest."""
        guest = self.guest
        self._disks.check()
        channel, about_line = self._line.connect()
        channel.send(
            {
                "type": "offer",
                "config": to_mapping(present_config(guest)),
                "pages": guest.memory.page_count,
                "mode": self.options.mode,
                "disks": [plan.as_list() for plan in self._disks.plans()],
                **about_line,
            }
        )
        self._load_ns = _load_ns(channel.receive_message("accepted"))
        channel.limit(self.options.bandwidth)
        with self._held():
            self._copier.begin()
            self._disks.start()

    def _asked(self) -> str:
        with self._deciding:
            return self._switch.asked().value

    @contextmanager
    def _held(self) -> Iterator[None]:
        """The guest is on no pCPU meanwhile. Raises MigrationError when that is not to be had."""
        with self.guest.host.held(self.guest.name) as got:
            if not got:
                raise MigrationError(f"guest {self.guest.name!r} is being loaded, or gone")
            yield

    # ---- changing over ----

    def _change_over(self, channel: Channel) -> None:
        """Stop the guest, send the rest, and let the target decide with us."""
        guest = self.guest
        self._ran = guest.depart(f"it moves to {self.address}")
        self._stopped_ns = time.monotonic_ns()
        self._phase = Phase.SWITCHING
        channel.limit(None)
        later = self._copier.finish(channel)
        guest.memory.stop_log()
        state = save_machine(guest.machine)
        layout = Layout.of(guest.memory).as_plain()
        self._disks.finish(channel)
        with self._deciding:
            self._switch.offer()
        channel.send(
            {
                "type": "machine",
                "state": state,
                "layout": layout,
                "running": self._ran,
                "later": later,
            }
        )

    def _settle(self) -> None:
        """After everything was offered: hear what the target says, or find it again."""
        if self._ordered is not None:
            here = self._ordered
            self._apply(lambda: self._switch.operator(here), "an operator decided so")
            return
        if self._cancelled and self._switch.state is SourceState.OFFERED:
            self._apply(self._switch.cancel, "cancelled")
        if self._line.channel is None:
            self._connect_again()
        else:
            self._heard(self._line.channel.receive_message("ready", "running", "discarded"))

    def _heard(self, message: dict[str, object]) -> None:
        if message["type"] == "ready":
            self._apply(self._switch.ready, "cancelled")
        elif message["type"] == "running":
            if "missing" in message:
                self._copier.still_missing(message["missing"])
            self._apply(self._switch.running, "")
        else:
            cancelled = self._switch.state is SourceState.ABORTING
            self._apply(self._switch.discarded, "cancelled" if cancelled else words_of(message))

    def _connect_again(self) -> None:
        """Once; where the target cannot be reached, the next step tries again."""
        try:
            channel = self._line.connect_again()
        except Gone:
            raise
        except NobodyToSay as error:
            self._wait(str(error))
            return
        except (LineLost, MigrationError) as error:
            self._wait(f"the target cannot be reached: {error}")
            return
        self._reason = ""
        self._phase = Phase.FOLLOWING if self._switch.state is SourceState.MOVED else Phase.SWITCHING
        self._heard(channel.receive_message("ready", "running", "discarded"))

    def _wait(self, reason: str) -> None:
        if self._phase is Phase.SWITCHING:
            self._phase = Phase.IN_DOUBT
        self._reason = reason
        time.sleep(RETRY_S)

    def _lose_line(self, reason: str) -> None:
        channel = self._line.channel
        copying = self._switch.state is SourceState.COPYING
        refusal = channel.last_words() if copying and channel is not None else ""
        self._line.drop()
        if self._phase is Phase.FOLLOWING:
            self._reason = reason
        else:
            self._apply(self._switch.line_lost, refusal or f"the line to the target was lost: {reason}")

    def _fail(self, reason: str) -> None:
        """Something does not work here, or the target has refused."""
        if self._switch.state is SourceState.COPYING:
            self._apply(self._switch.cancel, reason)
        else:
            self._line.drop()
            self._apply(self._switch.line_lost, reason)

    def _apply(self, event: Callable[[], list[Act]], reason: str) -> None:
        """Let the switch hear `event`, and do what it says."""
        with self._deciding:
            acts = event()
        for act in acts:
            self._act(act, reason)

    def _act(self, act: Act, reason: str) -> None:
        if act is Act.RESUME:
            self._stay(reason)
        elif act is Act.GIVE_UP:
            self._give_up()
        elif act is Act.CONNECT:
            self._reason = reason
        elif self._line.channel is not None:
            word = {Act.SEND_COMMIT: "commit", Act.SEND_ABORT: "abort", Act.SEND_BYE: "bye"}[act]
            if act is Act.SEND_BYE and (len(self._copier.todo) or self._phase is Phase.FOLLOWING):
                return  # not before all pages are there
            try:
                self._line.channel.send({"type": word})
            except LineLost as error:
                if act is Act.SEND_COMMIT:
                    self._lose_line(str(error))
                # who does not hear that it is over asks for it

    def _stay(self, reason: str) -> None:
        """The guest goes on here."""
        guest = self.guest
        self._phase, self._reason = Phase.STAYED, f"guest {guest.name!r} stays: {reason}"
        if guest.state is GuestState.MIGRATING:
            self._take_back(self._ran, "it did not move")
        else:
            self._disks.cancel()
        if guest.state is not GuestState.GONE:
            self._copier.end()
            self._throttle.end()
        self._line.close()

    def _take_back(self, running: bool, reason: str) -> None:
        """Let the guest go on here, `running` or paused; without its disks it can only be paused."""
        try:
            self._disks.take_back()
        except EmuvisorError as error:
            running = False
            self._reason += f". It is paused, for its disks are not to be had: {error}"
            reason = self._reason
        self.guest.go_on(running, reason)

    def _give_up(self) -> None:
        """It runs there."""
        if self._downtime_ns is None and self._stopped_ns is not None:
            self._downtime_ns = time.monotonic_ns() - self._stopped_ns
        if len(self._copier.todo):
            self._phase, self._reason = Phase.FOLLOWING, ""
        else:
            self._moved()

    def _moved(self) -> None:
        self._phase, self._reason = Phase.MOVED, ""
        self._line.close()
        self.guest.delete()

    # ---- post-copy ----

    def _follow(self, channel: Channel) -> None:
        """Send what the guest waits for, then some of the rest."""
        copier = self._copier
        channel.limit(self.options.bandwidth)
        for _ in range(ANSWERS_PER_STEP):
            if not channel.waits(channel.delay_s if len(copier.todo) else self._line.timeout_s):
                break
            message = channel.receive_message("demand", "complete")
            if message["type"] == "complete":
                channel.send({"type": "bye"})
                self._moved()
                return
            copier.send_wanted(channel, message.get("page"))
        else:
            return
        if not len(copier.todo):
            raise LineLost("the other side is silent")
        copier.send_some(channel)

    def _lose(self) -> None:
        """The target's process is gone, and some of the guest with it."""
        guest = self.guest
        self._phase = Phase.LOST
        self._reason = (
            f"guest {guest.name!r} is lost: the target ended before it had all pages. It is paused here as it was when "
            "it left; what it has done since is gone"
        )
        self._take_back(False, self._reason)
        self._line.close()


def _load_ns(accepted: Message) -> int:
    """What the target says that building the guest will take; who exaggerates is believed a second."""
    value = accepted.get("load_ns")
    return min(max(value, 0), NS_PER_S) if type(value) is int else 0
