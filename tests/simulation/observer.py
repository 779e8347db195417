"""Holds the hub's records to the truth: the invariants that show from outside, after each commit.

What one worker shows by itself the lifecycle core checks at every step; here is what takes the
provider, the machines and the whole database to see.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from hostler_hub.specs.states import TERMINAL_BUILD_STATES

if TYPE_CHECKING:
    from simulation.machine import Run
    from simulation.world import World

TERMINAL = tuple(sorted(state.value for state in TERMINAL_BUILD_STATES))


class Violated(AssertionError):
    """An invariant of architecture.md does not hold."""


class Observer:
    """Looks at the committed rows with a connection of its own."""

    def __init__(self, world: World) -> None:
        self._world = world
        path = world.settings.state_dir / "hub.sqlite3"
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        self._results: dict[str, tuple[str, str | None]] = {}
        self._leases: set[str] = set()
        self.violations: list[str] = []
        self.checks = 0
        world.provider.watch = self._called
        world.truth.began = self._began

    def close(self) -> None:
        self._db.close()

    def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        return [dict(row) for row in self._db.execute(sql, values)]

    def row(self, sql: str, *values: Any) -> dict[str, Any]:
        (row,) = self.rows(sql, *values)
        return row

    # --- after every commit ---------------------------------------------------------------------

    def look(self) -> None:
        self.checks += 1
        self._check_results()
        self._check_leases()
        self._check_instances()

    def _violation(self, text: str) -> None:
        """Whoever is at it goes on, since it is he who is wrong; the simulation ends for it."""
        self._world.note(f"VIOLATED {text}")
        self.violations.append(text)
        self._world.fail(Violated(text))

    def _check_results(self) -> None:
        """V6, V8: a result is the first one, for ever."""
        marks = ",".join("?" * len(TERMINAL))
        sql = f"SELECT id, state, result_text FROM builds WHERE state IN ({marks})"
        seen = {row[0]: (row[1], row[2]) for row in self._db.execute(sql, TERMINAL)}
        for build, result in self._results.items():
            if seen.get(build) != result:
                self._violation(f"V8 build {build}: {result} became {seen.get(build)}")
        self._results = seen

    def _check_leases(self) -> None:
        """V5, V11: one open lease per build; a new one only on a worker that may have it."""
        sql = (
            "SELECT l.id, l.build, l.worker, l.instance, w.mode, w.quarantine_until, w.removing,"
            " w.instance_id, w.tainted, b.state,"
            " json_extract(w.definition, '$.expects.disk_free_mb') AS expects_mb FROM leases l"
            " LEFT JOIN workers w ON w.name = l.worker LEFT JOIN builds b ON b.id = l.build"
            " WHERE l.ended_at IS NULL"
        )
        held: dict[str, int] = {}
        for row in self._db.execute(sql):
            held[row["build"]] = held.get(row["build"], 0) + 1
            if row["id"] in self._leases:
                continue
            self._leases.add(row["id"])
            if row["mode"] != "active" or row["quarantine_until"] is not None or row["removing"]:
                self._violation(f"V11 a lease on {row['worker']}, which is {dict(row)}")
            if row["instance"] != row["instance_id"]:
                self._violation(f"V4 a lease on an instance that is over: {dict(row)}")
            if row["tainted"]:
                self._violation(f"V10 a lease on an instance that is not clean: {dict(row)}")
            self._check_fitness(row)
            self._check_room(row["worker"])
        for build, count in held.items():
            if count > 1:
                self._violation(f"V5 build {build} has {count} leases")

    def _check_fitness(self, row: sqlite3.Row) -> None:
        """V11: nobody gets a machine that has told that it is not what is expected of it."""
        machines = self._world.provider.machines
        machine = machines.get(row["instance"]) or self._world.permanents.get(row["worker"])
        if machine is not None and (machine.told_free_mb or 0) < (row["expects_mb"] or 0):
            self._violation(f"V11 a lease on {row['worker']}, whose machine is not as expected")

    def _check_room(self, worker: str) -> None:
        """V10: when a lease begins there is a slot for it; fewer slots may be defined later."""
        sql = (
            "SELECT (SELECT COUNT(*) FROM leases WHERE worker = w.name AND ended_at IS NULL),"
            " json_extract(definition, '$.max_builds') FROM workers w WHERE name = ?"
        )
        for leases, slots in self._db.execute(sql, (worker,)):
            if leases > slots:
                self._violation(f"V10 {worker} has {leases} leases for {slots} slots")

    def _check_instances(self) -> None:
        """V3, V4: what is recorded as gone is gone; one instance per worker is not."""
        present = [m for m in self._world.provider.machines.values() if not m.ended]
        for machine in present:
            sql = "SELECT ended_at FROM instances WHERE id = ?"
            row = self._db.execute(sql, (machine.instance,)).fetchone()
            if row is not None and row["ended_at"] is not None:
                self._violation(f"V3 {machine.worker}'s {machine.instance} is recorded as gone")
        sql = "SELECT worker FROM instances WHERE ended_at IS NULL GROUP BY 1 HAVING COUNT(*) > 1"
        for row in self._db.execute(sql):
            self._violation(f"V4 {row['worker']} has several live instances")

    # --- as it happens ---------------------------------------------------------------------------

    def _called(self, verb: str, instance: str) -> None:
        """V1: the intent is durable before the provider hears of it."""
        self._world.note(f"provider: {verb} {instance}")
        if verb != "create":
            return
        rows = self.rows("SELECT * FROM instances WHERE id = ?", instance)
        if not rows or rows[0]["token_hash"] is None:
            self._violation(f"V1 create of {instance} without a recorded intent")

    def _began(self, run: Run) -> None:
        """V5, V10, as the machines see it: no build runs twice at a time, no slot is shared."""
        machine = run.machine
        self._world.note(f"{machine.worker}#{machine.epoch} runs {run.command_id}")
        others = [
            each
            for each in self._world.truth.of(run.build)
            if each is not run and each.ended_at is None and not _frozen(each)
        ]
        if others:
            where = f"{others[0].machine.worker}#{others[0].machine.epoch}"
            self._violation(
                f"V5 {run.command_id} runs while {others[0].command_id} does on {where}"
            )
        if run.command_id in {
            each.command_id for each in self._world.truth.runs if each is not run
        }:
            self._violation(f"K7 {run.command_id} was started twice")
        self._check_slots(run)

    def _check_slots(self, run: Run) -> None:
        """Whatever else is on the machine holds a lease too, or nobody gets a new one on it."""
        sql = "SELECT build FROM leases WHERE instance = ? AND ended_at IS NULL"
        machine = run.machine
        holders = {row[0] for row in self._db.execute(sql, (machine.instance,))}
        if run.build not in holders:
            return
        for build in sorted({each.build for each in machine.running} - holders):
            self._violation(f"V10 {machine.worker} still runs {build} beside {run.build}")
        sql = "SELECT tainted FROM workers WHERE instance_id = ?"
        if any(row[0] for row in self._db.execute(sql, (machine.instance,))):
            return
        for build in sorted(machine.workspaces - holders):
            self._violation(f"V10 {machine.worker} has {build}'s workspace beside {run.build}")

    # --- at the end ------------------------------------------------------------------------------

    def unfinished(self) -> list[str]:
        """What has not come to rest yet."""
        world = self._world
        left = [
            f"build {row['id']} is {row['state']} ({row['result_text']})"
            for row in self.rows("SELECT id, state, result_text FROM builds")
            if row["state"] not in TERMINAL
        ]
        left += [
            f"lease {row['id']} of {row['worker']} is open"
            for row in self.rows("SELECT id, worker FROM leases WHERE ended_at IS NULL")
        ]
        left += [
            f"worker {row['name']} is {row['state']} ({row['last_error']})"
            for row in self.rows("SELECT name, state, last_error FROM workers")
            if row["state"] in {"substantiating", "insubstantiating"}
        ]
        listed = set(world.provider.machines)
        ledger = {
            row["id"] for row in self.rows("SELECT i.id FROM instances i WHERE i.ended_at IS NULL")
        } - {machine.instance for machine in world.permanents.values()}
        ledger -= self._permanent_instances()
        if listed != ledger:
            left.append(f"provider and ledger differ: {listed - ledger} / {ledger - listed}")
        left += [
            f"{run.command_id} still runs"
            for run in world.truth.runs
            if run.ended_at is None and run.build in self._results
        ]
        return left

    def _permanent_instances(self) -> set[str]:
        sql = "SELECT id FROM instances WHERE ended_at IS NULL AND driver = 'permanent'"
        return {row["id"] for row in self.rows(sql)}

    def check_all(self) -> None:
        """Everything has come to rest: the books are closed."""
        self.look()
        self._check_builds()
        self._check_logs()
        self._check_history()
        if self.violations:
            raise Violated(self.violations[0])

    def _check_builds(self) -> None:
        """V6: each accepted build, and nothing else, has its one result."""
        known = {row["id"]: row for row in self.rows("SELECT * FROM builds")}
        for build in self._world.builds:
            if build not in known:
                self._violation(f"V6 build {build} was accepted and is lost")
        for build, row in known.items():
            if row["state"] == "success":
                runs = [r for r in self._world.truth.of(build) if r.attempt == row["attempts"]]
                if not any(run.completed for run in runs):
                    self._violation(f"V6 build {build} succeeded, and nobody ran it to its end")

    def _check_logs(self) -> None:
        """V7: what a finished attempt wrote is in its log, whole, once and in order."""
        for row in self.rows("SELECT id, attempts, state FROM builds"):
            for index in range(256):
                key = (row["id"], row["attempts"], index)
                chunks = self.rows(
                    'SELECT "offset", stream, data FROM log_chunks WHERE build = ? AND attempt = ?'
                    ' AND "index" = ? ORDER BY "offset"',
                    *key,
                )
                if not chunks:
                    break
                self._check_log(key, row["state"], chunks)

    def _check_log(
        self, key: tuple[str, int, int], state: str, chunks: list[dict[str, Any]]
    ) -> None:
        end = 0
        for chunk in chunks:
            if chunk["offset"] != end:
                self._violation(f"V7 log of {key} has a gap at {end}")
            end += len(chunk["data"])
        stored = b"".join(c["data"] for c in chunks if c["stream"] == "stdout")
        command = f"{key[0]}.{key[1]}.{key[2]}"
        runs = [run for run in self._world.truth.runs if run.command_id == command]
        written = runs[0].output if runs else b""
        whole = state == "success" and stored != written
        if whole or not written.startswith(stored):
            self._violation(f"V7 log of {key}: {stored!r} of {written!r}")

    def _check_history(self) -> None:
        """V16: each transition is recorded, so each begins where the last one ended."""
        states: dict[str, str] = {}
        sql = "SELECT worker, event, from_state, to_state, cause FROM events ORDER BY id"
        for row in self.rows(sql):
            before = states.get(row["worker"], "latent")
            if row["from_state"] is None or row["to_state"] is None:
                continue
            if row["from_state"] != before:
                self._violation(f"V16 {row['worker']} was {before}, and then {dict(row)}")
            if not row["cause"]:
                self._violation(f"V16 {row['worker']}: a transition without a cause {dict(row)}")
            states[row["worker"]] = row["to_state"]


def _frozen(run: Run) -> bool:
    """On a machine that is suspended nothing runs, whatever it will be when it wakes."""
    process = run.machine.process
    return process is None or process.dead or process.stopped
