"""EC2's descriptions as the driver reads them, beside botocore's own reading of the same bytes."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from peers.ec2 import AMI, REGION, Ec2, Fault, running

from hostler_hub.drivers.ec2 import describe_parser

pytestmark = pytest.mark.peer("ec2")


def client_of(ec2: Ec2) -> Any:
    keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
    return boto3.client("ec2", region_name=REGION, endpoint_url=ec2.url, **keys)


def test_what_is_read_is_what_botocore_reads_of_it() -> None:
    with running() as ec2:
        plain, ours = client_of(ec2), client_of(ec2)
        describe_parser.install(ours)
        tags = [{"Key": "hostler:hub", "Value": "H"}, {"Key": "empty", "Value": ""}]
        spec = [{"ResourceType": "instance", "Tags": tags}]
        made = plain.run_instances(ImageId=AMI, MinCount=7, MaxCount=7, TagSpecifications=spec)
        plain.run_instances(ImageId=AMI, MinCount=1, MaxCount=1)  # one that has no tags
        dead = made["Instances"][0]["InstanceId"]
        plain.terminate_instances(InstanceIds=[dead])
        more: dict[str, str] = {}
        while True:
            theirs = plain.describe_instances(MaxResults=5, **more)
            read = ours.describe_instances(MaxResults=5, **more)
            assert _flat(read) == _flat(theirs)
            assert read.get("NextToken") == theirs.get("NextToken")
            if not theirs.get("NextToken"):
                break
            more = {"NextToken": theirs["NextToken"]}
        assert ours.describe_instances(InstanceIds=[dead])["Reservations"]
        ec2.faults.append(Fault("DescribeInstances", hidden=True))
        assert ours.describe_instances()["Reservations"] == []
        ec2.faults.append(Fault("DescribeInstances", "UnauthorizedOperation", 403))
        with pytest.raises(ClientError, match="UnauthorizedOperation"):
            ours.describe_instances()
        for client in (plain, ours):
            client.close()


def _flat(answer: Any) -> list[dict[str, Any]]:
    return [
        {
            "id": each["InstanceId"],
            "state": each["State"]["Name"],
            "token": each["ClientToken"],
            "reason": each.get("StateReason", {}).get("Message"),
            "tags": each.get("Tags", []),
            "launched": each["LaunchTime"],
        }
        for made in answer["Reservations"]
        for each in made["Instances"]
    ]
