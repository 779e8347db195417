"""A region with many instances: `python -m benchmarks.reconcile_region COUNT PORT_FILE`.

moto takes half a minute to start 5,000 instances and seconds to list them, so this answers
DescribeInstances itself, in pages and by the filter instance-id, from what it made at its start.
The hub's id is asked of who asks: it stands in the filter by the tag.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

_INSTANCE = """\
<item><reservationId>r-{number:017x}</reservationId><ownerId>1</ownerId><groupSet/><instancesSet>\
<item><instanceId>{id}</instanceId><imageId>ami-12c6146b</imageId><instanceState><code>16</code>\
<name>running</name></instanceState><privateDnsName>ip.internal</privateDnsName><keyName/>\
<instanceType>c7i.xlarge</instanceType><launchTime>2026-01-01T00:00:00.000Z</launchTime><placement>\
<availabilityZone>eu-west-1a</availabilityZone><tenancy>default</tenancy></placement>\
<privateIpAddress>10.0.0.1</privateIpAddress><architecture>x86_64</architecture><tagSet>{tags}\
</tagSet><hypervisor>xen</hypervisor></item></instancesSet></item>"""
_TAG = "<item><key>{}</key><value>{}</value></item>"
_ANSWER = """<?xml version="1.0" encoding="UTF-8"?>
<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>x</requestId>\
<reservationSet>{items}</reservationSet>{more}</DescribeInstancesResponse>"""
_HUB = "THE-HUB"


def instance_id(number: int) -> str:
    return f"i-{number:017x}"


def ulid(number: int) -> str:
    """Of long ago, and as a ULID looks."""
    return f"01K0000000{number:016d}"


def worker(number: int) -> str:
    return f"bench-{number:05d}"


def _described(number: int) -> str:
    tags = {
        "Name": f"hostler {worker(number)}",
        "hostler:hub": _HUB,
        "hostler:instance": ulid(number),
        "hostler:epoch": "1",
        "hostler:worker": worker(number),
    }
    text = "".join(_TAG.format(key, value) for key, value in tags.items())
    return _INSTANCE.format(number=number, id=instance_id(number), tags=text)


class _Region(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    instances: Mapping[str, str]
    hub = ""

    def log_message(self, *_arguments: object) -> None: ...

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        query = {key: values[0] for key, values in parse_qs(body).items()}
        items, more = self._found(query)
        text = _ANSWER.format(items="".join(items), more=more).replace(_HUB, _Region.hub)
        answer = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _found(self, query: Mapping[str, str]) -> tuple[Sequence[str], str]:
        for number in range(1, 5):
            name = query.get(f"Filter.{number}.Name")
            if name == "tag:hostler:hub":
                _Region.hub = query[f"Filter.{number}.Value.1"]
            if name == "instance-id":
                wanted = (v for k, v in query.items() if k.startswith(f"Filter.{number}.Value."))
                return [self.instances[each] for each in wanted if each in self.instances], ""
        first = int(query.get("NextToken", "0"))
        end = first + int(query.get("MaxResults", "1000"))
        more = f"<nextToken>{end}</nextToken>" if end < len(self.instances) else ""
        return list(self.instances.values())[first:end], more


def main(count: int, port_file: Path) -> None:
    _Region.instances = {instance_id(number): _described(number) for number in range(count)}
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Region)
    server.daemon_threads = True
    fresh = port_file.with_suffix(".new")
    fresh.write_text(str(server.server_port))
    fresh.rename(port_file)
    server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
