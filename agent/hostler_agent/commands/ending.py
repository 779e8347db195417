"""How the end of a job is reported: the failure reason, the receipt for the hub, sentences for
people.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Callable, Optional

from hostler_agent.jobs.plan import Resources
from hostler_agent.jobs.receipt import Ended, KillReceipt
from hostler_agent.jobs.run import DRAIN_S, JobOutcome
from hostler_agent.wire import extension

_FAILURE_REASONS = {
    Ended.TIMEOUT: "timeout",
    Ended.SILENT: "timeout_without_output",
    Ended.TALKATIVE: "max_lines_failure",
}
"""The failure reasons that a stock master knows."""

_RAW_FAILURE_REASONS = {
    **_FAILURE_REASONS,
    Ended.NOT_STARTED: "not_started",
    Ended.LOST: "lost",
    Ended.OOM_KILLED: "oom_killed",
}
"""The failure reasons that a Hostler hub knows."""


def failure_reason(receipt: KillReceipt, return_code: int, raw: bool) -> Optional[str]:
    """The `failure_reason` of a job. `raw`: for a Hostler hub, which knows more reasons than a
    stock master.
    """
    if not raw:
        return _FAILURE_REASONS.get(receipt.ended)
    if receipt.ended is Ended.EXITED and return_code != 0 and receipt.usage.oom_kills:
        # A shell, or make, that tells of its child's end by an exit code of its own.
        return _RAW_FAILURE_REASONS[Ended.OOM_KILLED]
    return _RAW_FAILURE_REASONS.get(receipt.ended)


def remarks(outcome: JobOutcome, resources: Resources) -> Iterator[str]:
    """The lines that the log gets about a job that did not end normally."""
    receipt = outcome.receipt
    if receipt.held_output:
        names = ", ".join(receipt.held_output)
        why = f"output was still held open {DRAIN_S:g} seconds after the command's end"
        yield f"{why}; killed: {names}"
    if receipt.escaped:
        names = ", ".join(f"{one.name} ({one.pid})" for one in receipt.escaped)
        yield f"had left the cgroup of the command; killed: {names}"
    if receipt.missing:
        yield f"this worker cannot give the command {'; '.join(receipt.missing)}"
    if receipt.ended is Ended.LOST:
        yield "the process that ran the command was killed, so nobody knows how it ended"
    if receipt.survivors:
        names = ", ".join(f"{one.name} ({one.pid})" for one in receipt.survivors)
        yield f"could not be killed: {names}"
    if outcome.signal is not None:
        yield f"process killed by signal {outcome.signal}"
    text = oom_sentence(receipt, resources)
    if text is not None:
        yield text


def oom_sentence(receipt: KillReceipt, resources: Resources) -> Optional[str]:
    """A sentence about processes of the job that the kernel's OOM killer ended; None if there were
    none.
    """
    kills, peak_bytes = receipt.usage.oom_kills, receipt.usage.peak_memory_bytes
    if not kills:
        return None
    if receipt.ended is Ended.OOM_KILLED:
        what = "killed by the kernel's OOM killer"
    else:
        what = f"the kernel's OOM killer took {kills} of its processes"
    if resources.memory_bytes is None:
        why = "no limit of its own, so the machine or a cgroup above was out of memory"
    else:
        why = f"limit {_mebibytes(resources.memory_bytes)}"
    peak = "" if peak_bytes is None else f", peak {_mebibytes(peak_bytes)}"
    return f"{what}: {why}{peak}"


def limits_text(resources: Resources) -> str:
    """The job's limits, for the header of its log."""
    found = []
    if resources.memory_bytes is not None:
        found.append(f"memory {_mebibytes(resources.memory_bytes)}")
    if resources.processes is not None:
        found.append(f"processes {resources.processes}")
    if resources.cpu_percent is not None:
        found.append(f"CPU {resources.cpu_percent} %")
    return ", ".join(found)


def wire_receipt(
    receipt: KillReceipt, why: Optional[str], masked: Callable[[str], str]
) -> extension.Receipt:
    """The receipt for the hub. `masked` takes the secrets out of a text: a process may have any
    name.
    """
    return extension.Receipt(
        ended=receipt.ended.value,
        exit_code=receipt.exit_code,
        containment=receipt.containment,
        pids_seen=receipt.pids_seen,
        peak_memory_bytes=receipt.usage.peak_memory_bytes,
        cpu_s=receipt.usage.cpu_s,
        survivors=tuple(extension.Survivor(one.pid, masked(one.name)) for one in receipt.survivors),
        held_output=tuple(map(masked, receipt.held_output)),
        oom_kills=receipt.usage.oom_kills,
        why=None if why is None else masked(why),
        escaped=tuple(masked(one.name) for one in receipt.escaped),
        missing=receipt.missing,
    )


def _mebibytes(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.4g} MiB"
