"""Parses EC2's descriptions of instances and keeps only the fields that the driver needs.

botocore makes a Python object of everything that EC2 says of an instance, which takes half a
millisecond and more for each: a list of 5,000 would keep a processor busy for seconds, and block
the hub's event loop, which shares it. So this module parses the answer with expat before botocore's
own parser sees it.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from datetime import datetime
from typing import Any

_NOTHING = b"<DescribeInstancesResponse/>"


def install(client: Any) -> None:
    """Make the client parse descriptions with this module. Pagination, errors and other calls stay
    botocore's.
    """
    client.meta.events.register("before-parse.ec2.DescribeInstances", _read)


def _read(
    response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any
) -> None:
    if response_dict["status_code"] >= 300:
        return
    # S314: the XML is from EC2, which the hub trusts with its machines anyway.
    answer = ET.fromstring(response_dict["body"])  # noqa: S314
    response_dict["body"] = _NOTHING
    reservations = [
        {"Instances": [_instance(item) for item in reservation.findall("{*}instancesSet/{*}item")]}
        for reservation in answer.findall("{*}reservationSet/{*}item")
    ]
    customized_response_dict["Reservations"] = reservations
    token = answer.findtext("{*}nextToken")
    if token:
        customized_response_dict["NextToken"] = token


def _instance(item: ET.Element) -> dict[str, Any]:
    parts = {_name(part): part for part in item}
    found: dict[str, Any] = {
        "InstanceId": parts["instanceId"].text,
        "State": {"Name": parts["instanceState"].findtext("{*}name")},
        "Tags": list(_tags(parts["tagSet"])) if "tagSet" in parts else [],
    }
    if "clientToken" in parts:
        found["ClientToken"] = parts["clientToken"].text or ""
    if "imageId" in parts:
        found["ImageId"] = parts["imageId"].text
    if "stateReason" in parts:
        found["StateReason"] = {"Message": parts["stateReason"].findtext("{*}message") or ""}
    if "launchTime" in parts:
        found["LaunchTime"] = datetime.fromisoformat(str(parts["launchTime"].text))
    return found


def _tags(tags: ET.Element) -> Iterator[dict[str, str]]:
    for tag in tags:
        texts = {_name(part): part.text or "" for part in tag}
        yield {"Key": texts["key"], "Value": texts.get("value", "")}


def _name(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]
