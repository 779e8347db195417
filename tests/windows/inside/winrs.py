"""What is behind a WinRM service: shells, and commands in them, on Windows.

`python -m winrs PORT` connects to the test's side of the service and speaks JSON lines with it.
As with the real one, the commands of a shell are in its Job Object, and go with it; from which
`breakaway` lets those that ask for it away.
"""

import base64
import ctypes
import json
import os
import socket
import subprocess
import sys
import threading

import psutil

from hostler_agent.jobs.plan import Resources
from hostler_agent.jobs.windows import job_object
from hostler_agent.win32 import api

BREAKAWAY_OK = 0x0800
CREATE_SUSPENDED = 0x00000004
CREATE_NO_WINDOW = 0x08000000


class Service:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.lock = threading.Lock()
        self.shells, self.commands = {}, {}

    def serve(self):
        with self.socket.makefile("rb") as lines:
            for line in lines:
                message = json.loads(line)
                getattr(self, message.pop("op"))(**message)

    def say(self, **message):
        with self.lock:
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def create(self, shell, breakaway):
        job = job_object.JobObject(Resources())
        if breakaway:
            limits = job_object._limits(Resources())
            limits.BasicLimitInformation.LimitFlags |= BREAKAWAY_OK
            job_object._set(job.handle.value, 9, ctypes.byref(limits), ctypes.sizeof(limits))
        self.shells[shell] = job

    def delete(self, shell):
        job = self.shells.pop(shell, None)
        if job is not None:
            job.close()

    def command(self, shell, command, line):
        job = self.shells.get(shell)
        if job is None:  # deleted over another connection
            self.say(command=command, code=1)
            return
        process = subprocess.Popen(
            line,
            executable=os.environ["COMSPEC"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=os.environ["USERPROFILE"],
            creationflags=CREATE_SUSPENDED | CREATE_NO_WINDOW,
        )
        job.attach(api.Handle(int(process._handle)))
        psutil.Process(process.pid).resume()
        self.commands[command] = process
        threading.Thread(target=self.attend, args=(command, process), daemon=True).start()

    def send(self, command, data, end):
        process = self.commands.get(command)
        if process is None:  # it has ended by itself
            return
        try:
            process.stdin.write(base64.b64decode(data))
            process.stdin.flush()
            if end:
                process.stdin.close()
        except (OSError, ValueError):
            return

    def attend(self, command, process):
        pipes = {"stdout": process.stdout, "stderr": process.stderr}
        readers = [
            threading.Thread(target=self.read, args=(command, name, pipe), daemon=True)
            for name, pipe in pipes.items()
        ]
        for each in readers:
            each.start()
        code = process.wait()
        for each in readers:
            each.join(2)  # what has got away may still hold them
        self.commands.pop(command, None)
        self.say(command=command, code=code)

    def read(self, command, name, pipe):
        while chunk := os.read(pipe.fileno(), 65536):
            self.say(command=command, stream=name, data=base64.b64encode(chunk).decode())


if __name__ == "__main__":
    Service(int(sys.argv[1])).serve()
