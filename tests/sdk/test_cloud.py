"""The official Python SDK drives the simulated cloud.

A party that knows nothing of the driver says that the sandbox is UCloud's API: the SDK signs the requests, checks
their parameters and reads the answers by its own schemas.
"""

import json
import logging
import os
import subprocess
import tempfile
import time
import unittest
import urllib.request
from pathlib import Path

from ucloud.client import Client
from ucloud.core import exc

# The SDK sets the level of its own logger whenever a client is made.
logging.disable()

BINARY = os.environ.get("CSI_UDISK_BINARY", str(Path(__file__).parents[2] / "target/debug/csi-udisk"))


class Sandbox:
    """The simulated cloud, without a driver in front of it."""

    def __init__(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.dir = Path(self.temporary.name) / "s"
        self.process = subprocess.Popen(
            [BINARY, "sandbox", "--serve", "--cloud-only", "--latency", "none", "--dir", str(self.dir)],
            stdout=subprocess.DEVNULL,
        )
        wait(lambda: (self.dir / "cloud.url").exists() or self.process.poll() is not None, "the sandbox starts")
        if self.process.poll() is not None:
            raise RuntimeError(f"the sandbox ended with status {self.process.returncode}")
        self.environment = dict(
            line.split("=", 1) for line in (self.dir / "controller.env").read_text().splitlines()
        )
        self.node = dict(line.split("=", 1) for line in (self.dir / "node.env").read_text().splitlines())

    def client(self, **changes):
        settings = {
            "region": self.environment["UCLOUD_REGION_ID"],
            "public_key": self.environment["UCLOUD_ACCESS_PUBKEY"],
            "private_key": self.environment["UCLOUD_ACCESS_PRIKEY"],
            "base_url": self.environment["UCLOUD_API_ENDPOINT"],
            "max_retries": 0,
        }
        return Client({**settings, **changes})

    def stop(self):
        self.process.terminate()
        status = self.process.wait(30)
        self.temporary.cleanup()
        if status != 0:
            raise RuntimeError(f"the sandbox stopped with status {status}")


def wait(condition, what):
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.01)


class CloudTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.sandbox = Sandbox()
        cls.addClassCleanup(cls.sandbox.stop)
        cls.zone = cls.sandbox.environment["UCLOUD_ZONE_ID"]
        cls.client = cls.sandbox.client()
        cls.udisk = cls.client.udisk()
        cls.uhost = cls.client.uhost()
        hosts = cls.uhost.describe_uhost_instance({"Zone": cls.zone})["UHostSet"]
        cls.host, cls.other = (host["UHostId"] for host in hosts[:2])
        zones = [zone["Zone"] for zone in cls.client.invoke("ListZones", {})["Zones"]]
        cls.other_zone = next(zone for zone in zones if zone != cls.zone)

    def create(self, name="sdk-disk", **extra):
        request = {"Zone": self.zone, "Size": 10, "Name": name, "DiskType": "SSDDataDisk", **extra}
        answer = self.udisk.create_udisk(request)
        self.assertIsInstance(answer["UDiskId"], list)
        disk = answer["UDiskId"][0]
        self.addCleanup(self.remove, disk)
        self.settle(disk, "Available")
        return disk

    def remove(self, disk):
        found = self.describe(disk)
        if found is None:
            return
        if found["Status"] == "InUse":
            self.udisk.detach_udisk({"UDiskId": disk, "HostId": found["HostId"]})
            self.settle(disk, "Available")
        self.udisk.delete_udisk({"Zone": self.zone, "UDiskId": disk})

    def describe(self, disk):
        found = self.udisk.describe_udisk({"UDiskId": disk})["DataSet"]
        self.assertLessEqual(len(found), 1)
        return found[0] if found else None

    def settle(self, disk, status):
        wait(lambda: (self.describe(disk) or {}).get("Status") == status, f"{disk} becomes {status}")

    def attach(self, disk, host=None):
        self.udisk.attach_udisk({"UDiskId": disk, "HostId": host or self.host, "MultiAttach": "No"})
        self.settle(disk, "InUse")

    def refused(self, code, call, request):
        with self.assertRaises(exc.RetCodeException) as caught:
            call(request)
        self.assertEqual(caught.exception.code, code, caught.exception)
        self.assertTrue(caught.exception.request_uuid, "an error carries its request id")
        return caught.exception

    def test_a_disk_lives_and_goes(self):
        disk = self.create()
        self.assertRegex(disk, r"^bsm?-")
        found = self.describe(disk)
        self.assertEqual((found["Size"], found["Name"], found["DiskType"], found["Zone"]),
                         (10, "sdk-disk", "SSDDataDisk", self.zone))
        self.assertFalse(found.get("HostId"))

        self.attach(disk)
        found = self.describe(disk)
        self.assertEqual(found["HostId"], self.host)
        self.assertRegex(found["DeviceName"].lower().removeprefix("/dev/"), r"^vd[b-z]$")

        self.udisk.detach_udisk({"UDiskId": disk, "HostId": self.host})
        self.settle(disk, "Available")
        self.udisk.delete_udisk({"Zone": self.zone, "UDiskId": disk})
        self.assertIsNone(self.describe(disk))

    def test_pages_hold_every_disk_once(self):
        disks = {self.create(f"sdk-page-{i:02}") for i in range(7)}
        seen = []
        for offset in range(0, 100, 3):
            page = self.udisk.describe_udisk({"Zone": self.zone, "Offset": offset, "Limit": 3})
            self.assertLessEqual(len(page["DataSet"]), 3)
            self.assertGreaterEqual(page["TotalCount"], 7)
            seen += [disk["UDiskId"] for disk in page["DataSet"]]
            if offset + 3 >= page["TotalCount"]:
                break
        self.assertEqual(len(seen), len(set(seen)))
        self.assertLessEqual(disks, set(seen))

    def test_grows_detached_and_attached(self):
        disk = self.create()
        self.udisk.resize_udisk({"Zone": self.zone, "UDiskId": disk, "Size": 20})
        wait(lambda: self.describe(disk)["Size"] == 20, "the detached disk grows")
        self.attach(disk)
        self.refused(17026, self.udisk.resize_udisk, {"Zone": self.zone, "UDiskId": disk, "Size": 30})
        grown = self.uhost.resize_attached_disk(
            {"Zone": self.zone, "UHostId": self.host, "DiskId": disk, "DiskSpace": 30})
        self.assertEqual(grown["DiskId"], disk)
        self.assertIs(grown["NeedRestart"], False)
        wait(lambda: self.describe(disk)["Size"] == 30, "the attached disk grows")

    def test_snapshots_of_a_disk_with_the_service(self):
        disk = self.create(SnapshotService="Yes")
        snapshot = self.udisk.create_udisk_snapshot({"Zone": self.zone, "UDiskId": disk, "Name": "cut"})["SnapshotId"][0]

        def state():
            found = self.udisk.describe_udisk_snapshot({"Zone": self.zone, "SnapshotId": snapshot})["DataSet"]
            return found[0]["Status"] if found else None

        wait(lambda: state() == "Normal", "the snapshot is made")
        self.udisk.delete_udisk_snapshot({"Zone": self.zone, "SnapshotId": snapshot})
        self.assertIsNone(state())

    def test_refuses_a_wrong_signature(self):
        self.refused(171, self.sandbox.client(private_key="wrong").udisk().describe_udisk, {})

    def test_refuses_an_unknown_user(self):
        self.refused(172, self.sandbox.client(public_key="nobody").udisk().describe_udisk, {})

    def test_refuses_a_missing_parameter(self):
        # The SDK would refuse by itself what its schema requires, so the raw call it is.
        error = self.refused(220, lambda r: self.client.invoke("CreateUDisk", r), {"Zone": self.zone, "Name": "sdk-disk"})
        self.assertIn("Size", error.message)
        self.assertIn("Zone", self.refused(
            220, lambda r: self.client.invoke("DeleteUDisk", r), {"UDiskId": "bsm-none"}).message)

    def test_refuses_a_bad_value(self):
        for wrong in ({"DiskType": "GoldenDisk"}, {"Size": 0}, {"Size": 8001}, {"ChargeType": "Never"}, {"UDataArkMode": "Perhaps"}):
            request = {"Zone": self.zone, "Size": 10, "Name": "sdk-disk", "DiskType": "SSDDataDisk", **wrong}
            self.assertIn(next(iter(wrong)), self.refused(230, self.udisk.create_udisk, request).message)

    def test_refuses_an_unknown_action(self):
        self.refused(161, lambda r: self.client.invoke("CreateGoldenDisk", r), {})

    def test_refuses_a_wrong_zone(self):
        request = {"Zone": "nowhere-01", "Size": 10, "Name": "sdk-disk"}
        self.refused(230, self.udisk.create_udisk, request)

    def test_finds_no_disk_in_another_zone(self):
        disk = self.create()
        here = {"Zone": self.other_zone, "UDiskId": disk}
        self.assertEqual(self.udisk.describe_udisk(here)["DataSet"], [])
        self.refused(17041, self.udisk.delete_udisk, here)
        self.refused(17041, self.udisk.resize_udisk, {**here, "Size": 20})
        self.refused(17041, self.udisk.attach_udisk, {**here, "HostId": self.host})
        self.assertEqual(self.describe(disk)["Status"], "Available")

    def test_attaches_no_disk_of_another_zone(self):
        request = {"Zone": self.other_zone, "Size": 10, "Name": "sdk-elsewhere"}
        disk = self.udisk.create_udisk(request)["UDiskId"][0]
        self.addCleanup(self.udisk.delete_udisk, {"Zone": self.other_zone, "UDiskId": disk})
        self.settle(disk, "Available")
        self.refused(17055, self.udisk.attach_udisk, {"UDiskId": disk, "HostId": self.host})

    def test_knows_no_disk_that_does_not_exist(self):
        self.assertIsNone(self.describe("bsm-none"))
        self.refused(17041, self.udisk.delete_udisk, {"Zone": self.zone, "UDiskId": "bsm-none"})
        self.refused(17041, self.udisk.attach_udisk, {"UDiskId": "bsm-none", "HostId": self.host})
        self.refused(17041, self.udisk.detach_udisk, {"UDiskId": "bsm-none", "HostId": self.host})
        self.refused(17041, self.udisk.resize_udisk, {"Zone": self.zone, "UDiskId": "bsm-none", "Size": 20})
        self.refused(17041, self.udisk.create_udisk_snapshot,
                     {"Zone": self.zone, "UDiskId": "bsm-none", "Name": "cut"})
        disk = self.create()
        with self.assertRaises(exc.RetCodeException):
            self.udisk.attach_udisk({"UDiskId": disk, "HostId": "uhost-none"})
        self.assertEqual(self.describe(disk)["Status"], "Available")

    def test_refuses_what_the_state_forbids(self):
        disk = self.create()
        self.refused(17060, self.udisk.detach_udisk, {"UDiskId": disk, "HostId": self.host})
        self.attach(disk)
        self.refused(17057, self.udisk.attach_udisk,
                     {"UDiskId": disk, "HostId": self.host, "MultiAttach": "No"})
        elsewhere = self.other
        with self.assertRaises(exc.RetCodeException) as caught:
            self.udisk.attach_udisk({"UDiskId": disk, "HostId": elsewhere, "MultiAttach": "No"})
        self.assertIn(caught.exception.code, (17055, 17057))
        with self.assertRaises(exc.RetCodeException) as caught:
            self.udisk.delete_udisk({"Zone": self.zone, "UDiskId": disk})
        self.assertIn(caught.exception.code, (17026, 17030))

    def test_refuses_a_step_that_is_not_ten(self):
        disk = self.create()
        self.attach(disk)
        with self.assertRaises(exc.RetCodeException) as caught:
            self.uhost.resize_attached_disk(
                {"Zone": self.zone, "UHostId": self.host, "DiskId": disk, "DiskSpace": 25})
        self.assertIn(caught.exception.code, (8107, 230))

    def test_hosts_are_described(self):
        host = self.uhost.describe_uhost_instance({"UHostIds": [self.host]})["UHostSet"]
        self.assertEqual([h["UHostId"] for h in host], [self.host])
        self.assertEqual(host[0]["State"], "Running")
        self.assertTrue(any(ip["Type"] == "Private" for ip in host[0]["IPSet"]))
        self.assertEqual(self.uhost.describe_uhost_instance({"UHostIds": ["uhost-none"]})["UHostSet"], [])

    def test_the_metadata_service_knows_its_host(self):
        base = self.sandbox.node["CSI_UDISK_METADATA_ENDPOINT"]
        with urllib.request.urlopen(f"{base}/meta-data/v1.json", timeout=5) as answer:
            document = json.load(answer)
        self.assertEqual(document["availability-zone"], self.zone)
        self.assertIn(document["instance-id"], (self.host, self.other))
        self.assertTrue(document["uhost"]["machine-type"])
        with urllib.request.urlopen(f"{base}/meta-data/v1/instance-id", timeout=5) as answer:
            self.assertEqual(answer.read().decode().strip(), document["instance-id"])


if __name__ == "__main__":
    unittest.main()
